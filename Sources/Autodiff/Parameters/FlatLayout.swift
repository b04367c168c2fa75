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

/// How the ranks of a tensor-parallel group cut a parameter of a block among them, into even parts.
/// - Source: Megatron-LM (1909.08053) §3.
package enum ParameterCut: Hashable, Sendable {
  /// Each has all of it.
  case whole
  /// By the first dimension: weight or bias of a column-parallel layer, whose outputs are cut.
  case rows
  /// By the second: a row-parallel layer, whose inputs are cut, each of these stretches by itself.
  case columns([Int])
}

/// Name, shape and start of one parameter. Names are those of diffusers or PEFT (contract 4.4).
package struct ParameterSpecification: Hashable, Sendable {
  package let name: String
  package let shape: [Int]
  package let initialization: Initialization
  /// The block that it belongs to, whose parameters come and go together; empty outside of blocks.
  package var block: String
  /// Outside of blocks: whether a pass uses it behind them, in the last stage of a pipeline.
  package var isOutput: Bool
  package var cut: ParameterCut

  package init(
    _ name: String, _ shape: [Int], _ initialization: Initialization, block: String = "",
    isOutput: Bool = false, cut: ParameterCut = .whole
  ) {
    self.name = name
    self.shape = shape
    self.initialization = initialization
    self.block = block
    self.isOutput = isOutput
    self.cut = cut
  }
}

/// Where each named tensor lies in the flat vector of a network.
package struct FlatLayout: Sendable {
  /// One tensor's place.
  package struct Entry: Sendable {
    package let name: String
    package let shape: [Int]
    package let range: Range<Int>
    package let cut: ParameterCut
  }

  /// A stretch of tensors of one block, or of those before blocks, or behind them.
  package struct Unit: Sendable {
    /// Empty outside of blocks.
    package let block: String
    /// Outside of blocks: whether it is used behind them.
    package let isOutput: Bool
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
    var starts: [(block: String, isOutput: Bool, entry: Int, element: Int)] = []
    for specification in specifications {
      let (block, isOutput) = (specification.block, specification.isOutput)
      if starts.last?.block != block || starts.last?.isOutput != isOutput {
        offset = Self.aligned(offset, to: Self.unitAlignment)
        starts.append((block, isOutput, entries.count, offset))
      }
      let count = specification.shape.reduce(1, *)
      entries.append(
        Entry(
          name: specification.name, shape: specification.shape, range: offset..<(offset + count),
          cut: specification.cut))
      offset = Self.aligned(offset + count, to: Self.alignment)
      total += count
    }
    self.entries = entries
    units = starts.indices.map { index in
      let isLast = index + 1 == starts.count
      return Unit(
        block: starts[index].block, isOutput: starts[index].isOutput,
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
