// Where the parameters of a network lie in one flat vector.
//
// Each tensor begins at a multiple of 16 elements, each unit (a block, or what lies between blocks) at a
// multiple of 4,096, so that a unit consists of whole leaves of the gradient norm's sum. Padding is zero
// and stays zero.

package import DenseKernels

/// How a parameter starts.
package enum Initialization: Hashable, Sendable {
  case zeros
  case ones
  case normal(deviation: Double)
  /// Uniform in ±bound.
  case uniform(bound: Double)
}

/// Name, shape and start of one parameter. Names are those of diffusers or PEFT (contract 4.4).
package struct ParameterSpecification: Hashable, Sendable {
  package let name: String
  package let shape: [Int]
  package let initialization: Initialization
  /// The block that it belongs to, whose parameters come and go together; empty outside of blocks.
  package var block: String

  package init(
    _ name: String, _ shape: [Int], _ initialization: Initialization, block: String = ""
  ) {
    self.name = name
    self.shape = shape
    self.initialization = initialization
    self.block = block
  }
}

/// Where each named tensor lies in the flat vector of a network.
package struct FlatLayout: Sendable {
  /// One tensor's place.
  package struct Entry: Sendable {
    package let name: String
    package let shape: [Int]
    package let range: Range<Int>
  }

  /// A stretch of tensors of one block.
  package struct Unit: Sendable {
    /// Empty outside of blocks.
    package let block: String
    /// Which entries.
    package let entries: Range<Int>
    /// Which elements, the padding behind the tensors included.
    package let range: Range<Int>
  }

  /// Tensors begin at multiples of this many elements: one 64-byte cache line of Float32.
  package static let alignment = 16
  /// Units begin at multiples of this many elements.
  package static let unitAlignment = 4096

  package let entries: [Entry]
  /// In order, covering the vector.
  package let units: [Unit]
  /// Elements of the flat vector, padding included.
  package let count: Int
  /// Elements of the tensors, padding left out.
  package let parameterCount: Int

  package init(_ specifications: [ParameterSpecification]) {
    var offset = 0
    var total = 0
    var entries: [Entry] = []
    var starts: [(block: String, entry: Int, element: Int)] = []
    for specification in specifications {
      if starts.last?.block != specification.block {
        offset = Self.aligned(offset, to: Self.unitAlignment)
        starts.append((specification.block, entries.count, offset))
      }
      let count = specification.shape.reduce(1, *)
      entries.append(
        Entry(
          name: specification.name, shape: specification.shape, range: offset..<(offset + count)))
      offset = Self.aligned(offset + count, to: Self.alignment)
      total += count
    }
    self.entries = entries
    units = starts.indices.map { index in
      let isLast = index + 1 == starts.count
      return Unit(
        block: starts[index].block,
        entries: starts[index].entry..<(isLast ? entries.count : starts[index + 1].entry),
        range: starts[index].element..<(isLast ? offset : starts[index + 1].element))
    }
    count = offset
    parameterCount = total
    precondition(
      Set(entries.map(\.name)).count == entries.count, "two parameters have the same name")
  }

  /// Words of 32 bits that the weights of linear layers take, kept packed.
  package func packedWordCount(_ precision: ProductPrecision) -> Int {
    entries.reduce(0) { sum, entry in
      guard entry.name.hasSuffix(".weight"), entry.shape.count > 1 else { return sum }
      let count = PackedOperand.wordCount(
        rows: entry.range.count / entry.shape[0], columns: entry.shape[0], precision: precision)
      return sum + (count ?? 0)
    }
  }

  private static func aligned(_ count: Int, to alignment: Int) -> Int {
    (count + alignment - 1) / alignment * alignment
  }
}
