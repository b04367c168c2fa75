// Boxes of a tensor: what a file holds of it. A flat range of a row-major tensor (a ZeRO shard) is
// not a box, but at most 2d - 1 boxes in a row; a box in turn is a sequence of contiguous runs. These
// two cuts are all the geometry of resharding: a wanted flat range is filled by intersecting it
// with the runs of the boxes that were saved.

import Basics

/// The elements `offset ..< offset + shape`, per dimension, of a larger tensor.
package struct TensorBox: Hashable, Codable, Sendable {
  package let offset: [Int]
  package let shape: [Int]

  /// - Precondition: as many offsets as sizes.
  package init(offset: [Int], shape: [Int]) {
    require(
      offset.count == shape.count, "a box with offset \(offset) and shape \(shape)")
    self.offset = offset
    self.shape = shape
  }

  /// The whole of a tensor.
  package init(whole shape: [Int]) {
    self.init(offset: shape.map { _ in 0 }, shape: shape)
  }

  package var count: Int { shape.reduce(1, *) }

  package func isInside(_ tensor: [Int]) -> Bool {
    offset.count == tensor.count
      && zip(zip(offset, shape), tensor).allSatisfy {
        $0.0 >= 0 && $0.1 >= 0 && $0.0 <= $1 && $0.1 <= $1 - $0.0
      }
  }

  /// The flat elements `range` of a tensor as boxes, in order, each contiguous, none empty.
  /// - Cost: at most 2d - 1 boxes for d dimensions.
  package static func boxes(covering range: Range<Int>, of tensor: [Int]) -> [TensorBox] {
    let count = tensor.reduce(1, *)
    require(
      range.lowerBound >= 0 && range.upperBound <= count,
      "elements \(range) of a tensor of shape \(tensor), which has \(count)")
    guard !range.isEmpty else { return [] }
    guard let rowCount = tensor.first else { return [TensorBox(offset: [], shape: [])] }
    let inner = Array(tensor.dropFirst())
    let rowLength = count / rowCount

    func partOfRow(_ row: Int, _ part: Range<Int>) -> [TensorBox] {
      boxes(covering: part, of: inner).map {
        TensorBox(offset: [row] + $0.offset, shape: [1] + $0.shape)
      }
    }
    let (firstRow, head) = range.lowerBound.quotientAndRemainder(dividingBy: rowLength)
    let (lastRow, tail) = range.upperBound.quotientAndRemainder(dividingBy: rowLength)
    if firstRow == lastRow { return partOfRow(firstRow, head..<tail) }

    var result = head == 0 ? [] : partOfRow(firstRow, head..<rowLength)
    let whole = (head == 0 ? firstRow : firstRow + 1)..<lastRow
    if !whole.isEmpty {
      result.append(
        TensorBox(
          offset: [whole.lowerBound] + inner.map { _ in 0 }, shape: [whole.count] + inner))
    }
    if tail != 0 { result += partOfRow(lastRow, 0..<tail) }
    return result
  }

  /// A contiguous stretch of a box: `count` elements from `tensorStart` in the flat tensor and from
  /// `boxStart` in the flat box.
  package struct Run: Equatable, Sendable {
    package let tensorStart: Int
    package let boxStart: Int
    package let count: Int

    package var tensorRange: Range<Int> { tensorStart..<tensorStart + count }
  }

  /// The runs of the box in a tensor, in rising order.
  package func runs(in tensor: [Int]) -> Runs {
    require(isInside(tensor), "the box \(self) is not inside a tensor of shape \(tensor)")
    return Runs(box: self, tensor: tensor)
  }

  package struct Runs: RandomAccessCollection {
    private let outerShape: ArraySlice<Int>
    private let outerStrides: ArraySlice<Int>
    private let tensorStart: Int
    private let runLength: Int
    package let startIndex = 0
    package let endIndex: Int

    init(box: TensorBox, tensor: [Int]) {
      var strides = [Int](repeating: 1, count: tensor.count)
      for dimension in tensor.indices.dropLast().reversed() {
        strides[dimension] = strides[dimension + 1] * tensor[dimension + 1]
      }
      let lastCut = tensor.indices.last { box.shape[$0] != tensor[$0] } ?? 0
      outerShape = box.shape.prefix(lastCut)
      outerStrides = strides.prefix(lastCut)
      tensorStart = zip(box.offset, strides).reduce(0) { $0 + $1.0 * $1.1 }
      runLength = box.shape.dropFirst(lastCut).reduce(1, *)
      endIndex = runLength == 0 ? 0 : outerShape.reduce(1, *)
    }

    package subscript(index: Int) -> Run {
      require(index >= 0 && index < endIndex, "run \(index) of \(endIndex)")
      var (rest, start) = (index, tensorStart)
      for dimension in outerShape.indices.reversed() {
        start += rest % outerShape[dimension] * outerStrides[dimension]
        rest /= outerShape[dimension]
      }
      return Run(tensorStart: start, boxStart: index * runLength, count: runLength)
    }
  }
}

/// What is wrong with a set of boxes that should cover a tensor; nil when each element is in exactly
/// one of them.
func coverageProblem(of boxes: [TensorBox], in tensor: [Int]) -> String? {
  if let outside = boxes.first(where: { !$0.isInside(tensor) }) {
    return "a piece at \(outside.offset) of shape \(outside.shape) lies outside of shape \(tensor)"
  }
  let ranges = boxes.flatMap { $0.runs(in: tensor).map(\.tensorRange) }
    .sorted { ($0.lowerBound, $0.upperBound) < ($1.lowerBound, $1.upperBound) }
  var end = 0
  for range in ranges {
    if range.lowerBound < end {
      return "elements \(range.lowerBound)..<\(min(end, range.upperBound)) were given twice"
    }
    if range.lowerBound > end { return "elements \(end)..<\(range.lowerBound) are missing" }
    end = range.upperBound
  }
  let count = tensor.reduce(1, *)
  return end == count ? nil : "elements \(end)..<\(count) are missing"
}
