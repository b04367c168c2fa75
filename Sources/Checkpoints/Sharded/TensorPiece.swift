// What one writer gives to a checkpoint: a part of a logical tensor, as a box or as a flat range.

import Basics
package import DenseKernels

/// Elements that can be stored: a buffer lent for the call, or an array.
package protocol StoredElements {
  var elementType: StoredType { get }
  var count: Int { get }
  func withStoredBytes(_ body: (RawSpan) throws -> Void) throws
}

extension Buffer: StoredElements where Element: StorableElement {
  package var elementType: StoredType { Element.storedType }

  package func withStoredBytes(_ body: (RawSpan) throws -> Void) throws {
    try withBytes { bytes in try body(bytes) }
  }
}

extension Array: StoredElements where Element: StorableElement {
  package var elementType: StoredType { Element.storedType }

  package func withStoredBytes(_ body: (RawSpan) throws -> Void) throws {
    try withBytes { bytes in try body(bytes) }
  }
}

/// A part of a logical tensor, with its elements, which must not change during the save.
package struct TensorPiece {
  /// Which elements of the tensor a piece holds.
  package enum Extent: Hashable, Sendable {
    /// A range of the row-major tensor; stored as at most 2d - 1 boxes.
    case elements(Range<Int>)
    case box(TensorBox)
  }

  package let name: String
  package let shape: [Int]
  package let extent: Extent
  package let values: any StoredElements

  /// - Precondition: `values` has as many elements as `extent`, which lies inside `shape`.
  package init(_ name: String, shape: [Int], _ extent: Extent, _ values: any StoredElements) {
    let wanted: Int
    switch extent {
    case .elements(let range):
      let count = shape.reduce(1, *)
      require(
        range.lowerBound >= 0 && range.upperBound <= count,
        "elements \(range) of \(name), which has \(count)")
      wanted = range.count
    case .box(let box):
      require(box.isInside(shape), "\(box) of \(name), which has shape \(shape)")
      wanted = box.count
    }
    require(
      values.count == wanted, "\(values.count) values for \(wanted) elements of \(name)")
    self.name = name
    self.shape = shape
    self.extent = extent
    self.values = values
  }

  /// A whole tensor.
  package init(_ name: String, shape: [Int], _ values: any StoredElements) {
    self.init(name, shape: shape, .elements(0..<shape.reduce(1, *)), values)
  }

  /// The boxes that are stored, in the order in which `values` has their elements.
  var boxes: [TensorBox] {
    switch extent {
    case .elements(let range): TensorBox.boxes(covering: range, of: shape)
    case .box(let box): box.count == 0 ? [] : [box]
    }
  }
}
