// Parameters of one network, cuts of one flat vector.
//
// The optimizer, the EMA and the gradient exchange see the flat vector and its ranges; the layers see the
// named tensors. A set is whole in memory, or has a source that its blocks are loaded from when they run
// (`ParameterSet+Blocks.swift`).

package import Basics
package import DenseKernels
package import Tensors

/// All parameters of one network.
package final class ParameterSet<Scalar: KernelScalar> {
  package let specifications: [ParameterSpecification]
  package let layout: FlatLayout
  package private(set) var gradients: Buffer<Scalar>?
  package let parameters: [Parameter<Scalar>]
  private let indexByName: [String: Int]
  private let whole: Buffer<Scalar>?

  /// Where the elements are; nil: here.
  package let source: (any UnitSource<Scalar>)?
  package let role: MemoryRole
  let arena: Arena
  /// Units that are in memory now, of a set that is not whole.
  var present: [Int: PresentUnit] = [:]
  /// Gradients that are handed over unit by unit; nil where they are not.
  var unitGradients: UnitGradients?

  /// Allocates all values, zeroed; call `initialize` or fill them from a file.
  package convenience init(
    _ specifications: [ParameterSpecification], in arena: Arena, role: MemoryRole
  ) {
    self.init(specifications, in: arena, role: role, source: nil)
  }

  /// - Parameter source: holds the elements; nil: all of them are allocated here, zeroed.
  package init(
    _ specifications: [ParameterSpecification], in arena: Arena, role: MemoryRole,
    source: (any UnitSource<Scalar>)?
  ) {
    self.specifications = specifications
    let layout = FlatLayout(specifications)
    self.layout = layout
    self.arena = arena
    self.role = role
    self.source = source
    let whole =
      source == nil
      ? arena.allocate(
        Scalar.self, count: layout.count, booking: Booking(role, .parameters), zeroed: true) : nil
    self.whole = whole
    parameters = layout.entries.map { Parameter($0, in: whole) }
    indexByName = Dictionary(
      uniqueKeysWithValues: layout.entries.enumerated().map { ($1.name, $0) })
  }

  package var isWhole: Bool { whole != nil }

  /// The flat vector. Whoever takes it may write it, so packed weights are let go.
  /// - Precondition: the set is whole.
  package var values: Buffer<Scalar> {
    guard let whole else { trap("a set of \(layout.count) elements is not whole in memory") }
    dropPackedWeights()
    return whole
  }

  // MARK: Packed weights

  /// From now on weights stay packed from their first use until `dropUnits`: for passes of few tokens.
  /// Nothing changes where the set is not whole. The bits are the same.
  /// - Cost: memory of `FlatLayout.packedWordCount`.
  package func keepPackedWeights() {
    guard isWhole else { return }
    for parameter in parameters where parameter.shape.count > 1 {
      parameter.packing = WeightPacking(arena: arena, role: role)
    }
  }

  func dropPackedWeights() {
    for parameter in parameters { parameter.packing?.drop() }
  }

  /// - Precondition: there is a parameter of this name.
  package subscript(name: String) -> Parameter<Scalar> {
    guard let index = indexByName[name] else {
      preconditionFailure("there is no parameter \(name)")
    }
    return parameters[index]
  }

  package func contains(_ name: String) -> Bool { indexByName[name] != nil }

  /// Fills all values from the seed; each parameter draws as sample `i` of `purpose`, where `i` is
  /// its place in the list, so that a value depends only on seed, place and element.
  /// - Parameter finish: changes what was drawn, unit by unit where the set is not whole.
  package func initialize(
    seed: UInt64, purpose: RandomPurpose = .parameterInitialization,
    finish: (_ entries: Range<Int>) -> Void = { _ in }
  ) {
    overwriteUnits { entries in
      for index in entries {
        let stream = RandomStream(seed: seed, purpose: purpose, sample: index)
        fill(parameters[index].value.buffer, specifications[index].initialization, from: stream)
      }
      finish(entries)
    }
  }

  private func fill(
    _ buffer: Buffer<Scalar>, _ initialization: Initialization, from stream: RandomStream
  ) {
    switch initialization {
    case .zeros: buffer.fill(with: 0)
    case .ones: buffer.fill(with: 1)
    case .normal(let deviation):
      buffer.copy(from: stream.normals(count: buffer.count).map { Scalar(Double($0) * deviation) })
    case .uniform(let bound): fillUniformly(buffer, bound: bound, from: stream)
    }
  }

  /// Element i is (2 `stream.uniform(at: i)` − 1) · bound, four elements from each block of words.
  private func fillUniformly(_ buffer: Buffer<Scalar>, bound: Double, from stream: RandomStream) {
    for start in stride(from: 0, to: buffer.count, by: 4) {
      let words = stream.block(at: start >> 2)
      for lane in 0..<min(4, buffer.count - start) {
        let uniform = (Double(words[lane]) + 0.5) * 0x1p-32
        buffer[start + lane] = Scalar((2 * uniform - 1) * bound)
      }
    }
  }

  // MARK: Gradients

  /// Whether gradients flow into its parameters.
  package var isTrainable: Bool { gradients != nil || unitGradients != nil }

  /// From now on gradients accumulate in `buffer` (flat, as `values`); nil freezes the network.
  ///
  /// - Parameter isCleared: whether the buffer holds zeros, or a sum to go on with. If not, the first
  ///   contribution to each parameter overwrites, and `completeGradients` is due afterwards.
  package func bindGradients(to buffer: Buffer<Scalar>?, isCleared: Bool = true) {
    if let buffer {
      precondition(
        buffer.count == layout.count,
        "\(buffer.count) gradient elements for \(layout.count) parameter elements")
    }
    gradients = buffer
    unitGradients = nil
    for (parameter, entry) in zip(parameters, layout.entries) {
      parameter.accumulatedGradient = buffer.map {
        Gradient(in: Tensor($0[entry.range], shape: entry.shape), accumulates: isCleared)
      }
    }
  }

  /// Zeroes the gradients that nothing has contributed to, and the padding between them.
  package func completeGradients() {
    guard let gradients else { return }
    completeGradients(layout.entries.indices, at: layout.entries.map(\.range), in: gradients)
  }

  /// The same for some entries, which lie at these places of `buffer`.
  func completeGradients(
    _ entries: Range<Int>, at places: [Range<Int>], in buffer: Buffer<Scalar>
  ) {
    var end = 0
    for (index, place) in zip(entries, places) {
      parameters[index].accumulatedGradient?.clearIfUntouched()
      buffer[end..<place.lowerBound].clear()
      end = place.upperBound
    }
    buffer[end..<buffer.count].clear()
  }
}
