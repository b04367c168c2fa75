import Testing

@testable import Checkpoints

/// Every shape of up to three dimensions of 0, 1, 2 or 3.
func smallShapes(from least: Int = 0) -> [[Int]] {
  var shapes: [[Int]] = [[]]
  var longest: [[Int]] = [[]]
  for _ in 0..<3 {
    longest = longest.flatMap { shape in (least...3).map { shape + [$0] } }
    shapes += longest
  }
  return shapes
}

struct TensorBoxTests {
  @Test func `every flat range is at most 2d - 1 boxes that hold it in order`() {
    for shape in smallShapes() {
      let count = shape.reduce(1, *)
      for lower in 0...count {
        for upper in lower...count {
          let boxes = TensorBox.boxes(covering: lower..<upper, of: shape)
          #expect(boxes.count <= max(1, 2 * shape.count - 1), "\(shape) \(lower)..<\(upper)")
          let elements = boxes.flatMap { $0.runs(in: shape).flatMap { Array($0.tensorRange) } }
          #expect(elements == Array(lower..<upper), "\(shape) \(lower)..<\(upper)")
          for box in boxes { #expect(box.runs(in: shape).count == 1) }
        }
      }
    }
  }

  @Test func `the runs of every box are its elements in row-major order`() {
    for shape in smallShapes() {
      var boxes = [TensorBox(offset: [], shape: [])]
      for size in shape {
        boxes = boxes.flatMap { box in
          (0...size).flatMap { lower in
            (lower...size).map { upper in
              TensorBox(offset: box.offset + [lower], shape: box.shape + [upper - lower])
            }
          }
        }
      }
      for box in boxes {
        var expected = [0]
        for (dimension, size) in shape.enumerated() {
          expected = expected.flatMap { start in
            (0..<box.shape[dimension]).map { start * size + box.offset[dimension] + $0 }
          }
        }
        let runs = Array(box.runs(in: shape))
        #expect(runs.flatMap { Array($0.tensorRange) } == expected, "\(box) in \(shape)")
        #expect(runs.flatMap { $0.boxStart..<$0.boxStart + $0.count } == Array(expected.indices))
      }
    }
  }

  @Test func `coverage is exact or says what is missing or double`() {
    func problem(_ ranges: [Range<Int>], _ shape: [Int] = [3, 4]) -> String? {
      coverageProblem(of: ranges.flatMap { TensorBox.boxes(covering: $0, of: shape) }, in: shape)
    }
    #expect(problem([7..<12, 0..<7]) == nil)
    #expect(problem([0..<6, 7..<12]) == "elements 6..<7 are missing")
    #expect(problem([0..<8, 7..<12]) == "elements 7..<8 were given twice")
    #expect(problem([0..<11]) == "elements 11..<12 are missing")
    #expect(problem([]) == "elements 0..<12 are missing")
    #expect(problem([], [3, 0]) == nil)
    #expect(problem([], []) == "elements 0..<1 are missing")
    let columns = [0, 2].map { TensorBox(offset: [0, $0], shape: [3, 2]) }
    #expect(coverageProblem(of: columns, in: [3, 4]) == nil)
    #expect(coverageProblem(of: [columns[0]], in: [3, 4]) == "elements 2..<4 are missing")
    #expect(coverageProblem(of: columns, in: [3, 3])?.contains("outside") == true)
  }
}
