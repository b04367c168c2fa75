// What a rank of a tensor-parallel group computes with of a unit: of some tensors even parts of their rows or
// columns, of others all. Elements at rest are sharded flat whatever the degree (`UnitSharding`); here is said
// which of them belong to which part, and where they lie in the memory of a part: integer arithmetic.
//
// Source: Megatron-LM (1909.08053) §3: column-parallel layers hold rows of [out, in], row-parallel ones columns.

import Basics

/// A tensor of a unit and how it is cut.
package struct CutTensor: Codable, Hashable, Sendable {
  /// Where it lies in the unit.
  package let range: Range<Int>
  package let rowCount: Int
  /// Widths of stretches of columns, each of which is cut evenly; empty: every part has the whole tensor.
  package let stretches: [Int]

  /// - Precondition: the stretches make up a row.
  package init(range: Range<Int>, rowCount: Int = 1, stretches: [Int] = []) {
    require(
      rowCount > 0 && range.count % rowCount == 0
        && (stretches.isEmpty || stretches.reduce(0, +) == range.count / rowCount),
      "stretches \(stretches) of \(range.count) elements in \(rowCount) rows")
    self.range = range
    self.rowCount = rowCount
    self.stretches = stretches
  }
}

/// Rows of equal width at equal distances, in a unit and in the memory of a part.
package struct StridedRows: Equatable, Sendable {
  package var rowCount: Int
  package var width: Int
  /// First element and distance of rows in the unit.
  package var start: Int
  package let stride: Int
  /// The same in the memory of the part.
  package var localStart: Int
  package let localStride: Int

  package var count: Int { rowCount * width }

  /// What lies in a range of the unit, in order: whole rows together, cut ones by themselves.
  package func clipped(to range: Range<Int>) -> [StridedRows] {
    guard count > 0, !range.isEmpty else { return [] }
    // Rows that end behind the range's begin, and begin before its end.
    let first = max(0, range.lowerBound - start - width + stride) / stride
    let end = min(rowCount, max(0, range.upperBound - start + stride - 1) / stride)
    guard first < end else { return [] }
    func isWhole(_ row: Int) -> Bool {
      range.lowerBound <= start + row * stride && start + row * stride + width <= range.upperBound
    }
    let head = isWhole(first) ? first : first + 1
    let tail = head < end && !isWhole(end - 1) ? end - 1 : max(head, end)
    let parts = [first..<head, head..<tail, tail..<max(end, tail)].map { part -> StridedRows in
      var rows = self
      rows.rowCount = part.count
      rows.start += part.lowerBound * stride
      rows.localStart += part.lowerBound * localStride
      guard part.count == 1 else { return rows }
      let columns = (rows.start..<rows.start + width).clamped(to: range)
      rows.localStart += columns.lowerBound - rows.start
      rows.start = columns.lowerBound
      rows.width = columns.count
      return rows
    }
    return parts.filter { $0.count > 0 }
  }
}

extension [StridedRows] {
  /// Where they lie in the unit, if there are any and one follows the other there.
  package var range: Range<Int>? { range(\.start, \.stride) }
  /// Where they lie in the memory of the part, likewise.
  package var localRange: Range<Int>? { range(\.localStart, \.localStride) }

  private func range(
    _ start: KeyPath<StridedRows, Int>, _ stride: KeyPath<StridedRows, Int>
  ) -> Range<Int>? {
    guard let lower = first?[keyPath: start] else { return nil }
    var upper = lower
    for rows in self {
      guard rows[keyPath: start] == upper,
        rows.rowCount == 1 || rows[keyPath: stride] == rows.width
      else { return nil }
      upper += rows.count
    }
    return lower..<upper
  }
}

/// What one part has of a unit.
package struct UnitSlice: Equatable, Sendable {
  /// Where each tensor's part lies in the memory of the part, row by row.
  package let tensors: [Range<Int>]
  /// Elements of that memory, gaps included.
  package let count: Int
  private let rows: [StridedRows]

  /// - Parameter alignment: tensors begin at multiples of this many elements.
  fileprivate init(_ cuts: [CutTensor], part: Int, degree: Int, alignment: Int) {
    var end = 0
    var tensors: [Range<Int>] = []
    var rows: [StridedRows] = []
    for cut in cuts {
      let stretches = cut.stretches.isEmpty ? [cut.range.count / cut.rowCount] : cut.stretches
      let (part, degree) = cut.stretches.isEmpty ? (0, 1) : (part, degree)
      require(
        stretches.allSatisfy { $0 % degree == 0 }, "stretches \(stretches) over \(degree) ranks")
      let start = (end + alignment - 1) / alignment * alignment
      let localStride = stretches.reduce(0, +) / degree
      var column = 0
      for stretch in stretches {
        let width = stretch / degree
        rows.append(
          StridedRows(
            rowCount: cut.rowCount, width: width,
            start: cut.range.lowerBound + column + part * width,
            stride: max(cut.range.count / cut.rowCount, 1), localStart: start + column / degree,
            localStride: localStride))
        column += stretch
      }
      end = start + cut.rowCount * localStride
      tensors.append(start..<end)
    }
    self.tensors = tensors
    self.rows = rows
    count = end
  }

  /// The elements that lie in a range of the unit.
  package func rows(in range: Range<Int>) -> [StridedRows] {
    rows.flatMap { $0.clipped(to: range) }
  }

  /// How many elements lie in a range of the unit.
  package func count(in range: Range<Int>) -> Int {
    rows(in: range).reduce(0) { $0 + $1.count }
  }
}

/// A unit whose elements are shared among ranks, which compute with parts of it: rank r with part r mod degree.
package struct SlicedUnit: Equatable, Sendable {
  /// Who owns what of the unit.
  package let partition: ShardPartition
  /// By part.
  package let slices: [UnitSlice]

  /// - Precondition: the degree divides the ranks, and every stretch of columns.
  package init(
    _ tensors: [CutTensor], partition: ShardPartition, degree: Int, alignment: Int = 16
  ) {
    require(
      degree > 0 && partition.shardCount % degree == 0,
      "parts of \(degree) among \(partition.shardCount) ranks")
    self.partition = partition
    slices = (0..<degree).map {
      UnitSlice(tensors, part: $0, degree: degree, alignment: alignment)
    }
  }

  package var degree: Int { slices.count }

  /// Pairs of neighbors among the ranks that have all parts; the last of an odd number is one by itself.
  package var pairCount: Int { (degree + 1) / 2 }

  /// The ranks of a pair, of all neighborhoods' pairs in order.
  package func pair(_ index: Int) -> Range<Int> {
    let start = index / pairCount * degree
    let first = index % pairCount * 2
    return start + first..<start + min(first + 2, degree)
  }

  /// What a rank computes with.
  package func slice(of rank: Int) -> UnitSlice { slices[rank % degree] }

  /// Elements that `owner` has of what `reader` computes with.
  package func sharedCount(owner: Int, reader: Int) -> Int {
    slice(of: reader).count(in: partition.range(of: owner))
  }

  /// Elements that a rank sends when all load their parts.
  package func loadCount(from owner: Int) -> Int {
    (0..<partition.shardCount).reduce(0) {
      $0 + ($1 == owner ? 0 : sharedCount(owner: owner, reader: $1))
    }
  }

  /// Elements that a rank sends when the gradients of all parts go to the owners.
  package func gradientCount(from reader: Int) -> Int {
    (0..<partition.shardCount).reduce(0) {
      $0 + ($1 == reader ? 0 : sharedCount(owner: $1, reader: reader))
    }
  }
}
