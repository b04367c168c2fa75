// Parameters of one network, all in one flat buffer.
//
// Each named tensor is a cut of the buffer at a 16-element boundary; the padding between them is
// zero and stays zero. The optimizer, the EMA and the gradient exchange see only the flat vector
// and its ranges; the layers see only the named tensors.

package import Basics
package import DenseKernels
package import Tensors

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

  package init(_ name: String, _ shape: [Int], _ initialization: Initialization) {
    self.name = name
    self.shape = shape
    self.initialization = initialization
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

  /// Offsets are multiples of this many elements: one 64-byte cache line of Float32.
  package static let alignment = 16

  package let entries: [Entry]
  /// Elements of the flat vector, padding included.
  package let count: Int
  /// Elements of the tensors, padding left out.
  package let parameterCount: Int

  package init(_ specifications: [ParameterSpecification]) {
    var offset = 0
    var total = 0
    entries = specifications.map { specification in
      let count = specification.shape.reduce(1, *)
      let entry = Entry(
        name: specification.name, shape: specification.shape, range: offset..<(offset + count))
      offset += (count + Self.alignment - 1) / Self.alignment * Self.alignment
      total += count
      return entry
    }
    count = offset
    parameterCount = total
    precondition(
      Set(entries.map(\.name)).count == entries.count, "two parameters have the same name")
  }
}

/// One tensor that a layer reads; trainable while it has a gradient.
package final class Parameter<Scalar: KernelScalar> {
  package let name: String
  package let value: Tensor<Scalar>
  /// Where its gradient is accumulated; nil while it is frozen.
  package var gradient: Tensor<Scalar>? { accumulatedGradient?.memory }
  fileprivate(set) var accumulatedGradient: Gradient<Scalar>?

  fileprivate init(name: String, value: Tensor<Scalar>) {
    self.name = name
    self.value = value
  }
}

/// All parameters of one network.
package final class ParameterSet<Scalar: KernelScalar> {
  package let specifications: [ParameterSpecification]
  package let layout: FlatLayout
  package let values: Buffer<Scalar>
  package private(set) var gradients: Buffer<Scalar>?
  package let parameters: [Parameter<Scalar>]
  private let indexByName: [String: Int]

  /// Allocates all values, zeroed; call `initialize` or fill them from a file.
  package init(_ specifications: [ParameterSpecification], in arena: Arena, role: MemoryRole) {
    self.specifications = specifications
    let layout = FlatLayout(specifications)
    let values = arena.allocate(
      Scalar.self, count: layout.count, booking: Booking(role, .parameters), zeroed: true)
    self.layout = layout
    self.values = values
    parameters = layout.entries.map { entry in
      Parameter(name: entry.name, value: Tensor(values[entry.range], shape: entry.shape))
    }
    indexByName = Dictionary(
      uniqueKeysWithValues: layout.entries.enumerated().map { ($1.name, $0) })
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
  package func initialize(
    seed: UInt64, purpose: RandomPurpose = .parameterInitialization
  ) {
    for (index, specification) in specifications.enumerated() {
      let buffer = parameters[index].value.buffer
      let stream = RandomStream(seed: seed, purpose: purpose, sample: index)
      switch specification.initialization {
      case .zeros: buffer.fill(with: 0)
      case .ones: buffer.fill(with: 1)
      case .normal(let deviation):
        buffer.copy(
          from: stream.normals(count: buffer.count).map { Scalar(Double($0) * deviation) })
      case .uniform(let bound): fillUniformly(buffer, bound: bound, from: stream)
      }
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

  /// From now on gradients accumulate in `buffer` (flat, as `values`); nil freezes the network.
  ///
  /// - Parameter isCleared: whether the buffer holds zeros, or a sum to go on with. If not, the first
  ///   contribution to each parameter overwrites, and `completeGradients` is due afterwards.
  package func bindGradients(to buffer: Buffer<Scalar>?, isCleared: Bool = true) {
    if let buffer {
      precondition(
        buffer.count == values.count,
        "\(buffer.count) gradient elements for \(values.count) parameter elements")
    }
    gradients = buffer
    for (parameter, entry) in zip(parameters, layout.entries) {
      parameter.accumulatedGradient = buffer.map {
        Gradient(in: Tensor($0[entry.range], shape: entry.shape), accumulates: isCleared)
      }
    }
  }

  /// Zeroes the gradients that nothing has contributed to, and the padding between them.
  package func completeGradients() {
    guard let gradients else { return }
    var end = 0
    for (parameter, entry) in zip(parameters, layout.entries) {
      parameter.accumulatedGradient?.clearIfUntouched()
      gradients[end..<entry.range.lowerBound].clear()
      end = entry.range.upperBound
    }
    gradients[end..<gradients.count].clear()
  }
}
