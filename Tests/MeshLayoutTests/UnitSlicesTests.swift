import MeshLayout
import Testing

struct UnitSlicesTests {
  /// A gain, a column-parallel weight and bias, and a row-parallel weight over two inputs side by side.
  private let tensors = [
    CutTensor(range: 0..<5), CutTensor(range: 16..<88, stretches: [72]),
    CutTensor(range: 96..<108, stretches: [12]),
    CutTensor(range: 112..<202, rowCount: 5, stretches: [6, 12]),
  ]

  private func unit(_ degree: Int, ranks: Int) -> SlicedUnit {
    SlicedUnit(
      tensors, partition: ShardPartition(count: 208, shardCount: ranks, blockLength: 16),
      degree: degree)
  }

  @Test(arguments: [1, 2, 3, 6])
  func `parts have cut elements once and whole tensors each`(degree: Int) {
    let unit = unit(degree, ranks: degree)
    for cut in tensors {
      for element in cut.range {
        let holders = unit.slices.count { $0.count(in: element..<element + 1) == 1 }
        #expect(holders == (cut.stretches.isEmpty ? degree : 1))
      }
    }
    #expect(unit.slices.allSatisfy { $0.count(in: 202..<208) == 0 })
  }

  @Test(arguments: [1, 2, 3, 6])
  func `a part of a weight is its rows or its columns, one after the other`(degree: Int) {
    let unit = unit(degree, ranks: degree)
    for (part, slice) in unit.slices.enumerated() {
      var memory = [Int](repeating: -1, count: slice.count)
      for rows in slice.rows(in: 0..<208) {
        for row in 0..<rows.rowCount {
          for column in 0..<rows.width {
            memory[rows.localStart + row * rows.localStride + column] =
              rows.start + row * rows.stride + column
          }
        }
      }
      #expect(Array(memory[slice.tensors[0]]) == Array(0..<5))
      let rows = 72 / degree
      #expect(Array(memory[slice.tensors[1]]) == Array(16 + part * rows..<16 + (part + 1) * rows))
      let (left, right) = (6 / degree, 12 / degree)
      let columns = (0..<5).flatMap { row -> [Int] in
        let (first, second) = (112 + row * 18 + part * left, 118 + row * 18 + part * right)
        return Array(first..<first + left) + Array(second..<second + right)
      }
      #expect(Array(memory[slice.tensors[3]]) == columns)
    }
  }

  /// Every range of a strided stretch, against element by element.
  @Test func `clipping keeps what lies in the range, in order`() {
    let slice = unit(3, ranks: 3).slices[1]
    let all = slice.rows(in: 0..<208).flatMap(elements)
    for lower in 100..<208 {
      for upper in lower...208 {
        let range = lower..<upper
        let clipped = slice.rows(in: range).flatMap(elements)
        #expect(clipped.map(\.unit) == all.map(\.unit).filter(range.contains), "\(range)")
        #expect(clipped.map(\.local) == all.filter { range.contains($0.unit) }.map(\.local))
        let rows = slice.rows(in: range)
        #expect(rows.range == stretch(clipped.map(\.unit)), "\(range)")
        #expect(rows.localRange == stretch(clipped.map(\.local)), "\(range)")
      }
    }
  }

  /// What the places make up, if each follows the one before it.
  private func stretch(_ places: [Int]) -> Range<Int>? {
    guard let first = places.first else { return nil }
    let range = first..<first + places.count
    return places == Array(range) ? range : nil
  }

  private func elements(_ rows: StridedRows) -> [(unit: Int, local: Int)] {
    (0..<rows.rowCount).flatMap { row in
      (0..<rows.width).map {
        (rows.start + row * rows.stride + $0, rows.localStart + row * rows.localStride + $0)
      }
    }
  }

  @Test(arguments: [(2, 2), (2, 6), (3, 6), (1, 4)])
  func `what is sent is what others own of a part`(degree: Int, ranks: Int) {
    let unit = unit(degree, ranks: ranks)
    let held = (0..<ranks).map { unit.slice(of: $0).count(in: 0..<208) }.reduce(0, +)
    let kept = (0..<ranks).map { unit.sharedCount(owner: $0, reader: $0) }.reduce(0, +)
    let loads = (0..<ranks).map { unit.loadCount(from: $0) }.reduce(0, +)
    let gradients = (0..<ranks).map { unit.gradientCount(from: $0) }.reduce(0, +)
    #expect(loads == held - kept && gradients == held - kept)
  }
}
