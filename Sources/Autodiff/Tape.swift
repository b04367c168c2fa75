// The record of a forward pass, and its way back.
//
// Goals, ranked: 1 the same bits on every run and rank, 2 memory (a node's saved tensors and its
// gradient are dropped as soon as it has been differentiated), 3 speed.
// Gradients are accumulated in reverse order of recording, which is the same wherever a microbatch
// is computed; hence contract 4.2.

package import DenseKernels
package import Tensors

/// A tensor in a computation: a constant, or the result of something that wants a gradient.
package struct Value<Scalar: KernelScalar> {
  package let tensor: Tensor<Scalar>
  fileprivate let node: Int?
  /// Makes the elements again on the way back, for an operation that would keep them; nil: it keeps them.
  let remaking: Remaking<Scalar>?
  /// Takes what its readers have for its gradient; nil: they add it to the gradient.
  let columns: ColumnGradients<Scalar>?

  /// Something that no gradient flows into.
  package init(constant tensor: Tensor<Scalar>) {
    self.init(tensor, node: nil)
  }

  fileprivate init(
    _ tensor: Tensor<Scalar>, node: Int?, remaking: Remaking<Scalar>? = nil,
    columns: ColumnGradients<Scalar>? = nil
  ) {
    self.tensor = tensor
    self.node = node
    self.remaking = remaking
    self.columns = columns
  }

  package var shape: [Int] { tensor.shape }
  package var isTracked: Bool { node != nil }

  /// The same elements under another shape; its gradient is the same memory.
  package func reshaped(_ shape: [Int]) -> Value { Value(tensor.reshaped(shape), node: node) }

  /// The same elements, which linear layers do not keep: the first that needs them on the way back has them made
  /// again, for all that do.
  package func remade(by make: @escaping () -> Tensor<Scalar>) -> Value {
    Value(tensor, node: node, remaking: Remaking(make), columns: columns)
  }

  /// The same elements, whose readers leave their part of its gradient with `columns`.
  func read(by columns: ColumnGradients<Scalar>) -> Value {
    Value(tensor, node: node, remaking: remaking, columns: columns)
  }

  /// The same elements, cut off from the gradient (sg[·] of the specifications).
  package var detached: Value { Value(constant: tensor) }
}

/// Elements that are cheaper to make than to keep. They live from their first use on the way back until the last
/// operation that holds this has been differentiated.
final class Remaking<Scalar: KernelScalar> {
  private(set) lazy var tensor = make()
  private let make: () -> Tensor<Scalar>

  init(_ make: @escaping () -> Tensor<Scalar>) { self.make = make }
}

/// Records operations and differentiates them.
package final class Tape<Scalar: KernelScalar> {
  /// Contributes to the gradients of the inputs, given the gradient of the output.
  package typealias Backward = (
    _ outputGradient: Tensor<Scalar>, _ inputGradients: InputGradients<Scalar>
  ) -> Void

  private enum Step {
    /// Its gradient belongs to the caller (a parameter) or is asked for afterwards (an input).
    case leaf
    case operation(InputGradients<Scalar>, Backward)
    /// A stretch of the forward pass that stored only its inputs; its outputs are the nodes after it.
    case recomputation(outputs: [Int], run: () -> Void)
    case recomputedOutput
    /// Something that is due between the operations after it and those before.
    case event(() -> Void)
    case done
  }

  private struct Node {
    let gradient: Gradient<Scalar>
    var step: Step
  }

  package let arena: Arena
  package let role: MemoryRole
  /// How linear layers and attention read their operands.
  package let precision: ProductPrecision
  package let isRecording: Bool
  /// Whether this is the second pass of a stretch that stored its inputs only; it is differentiated at once.
  package let isRecomputing: Bool
  private let store: (any ActivationStore<Scalar>)?
  private let betweenOperations: (() -> Void)?
  private var nodes: [Node] = []

  /// - Parameters:
  ///   - isRecording: false runs the same forward code and stores nothing for a gradient.
  ///   - store: where inputs of recomputed blocks wait for the way back; nil: in memory.
  ///   - betweenOperations: called often, for what goes on beside the computation.
  package init(
    arena: Arena, role: MemoryRole, precision: ProductPrecision = .float32,
    isRecording: Bool = true, isRecomputing: Bool = false,
    store: (any ActivationStore<Scalar>)? = nil, betweenOperations: (() -> Void)? = nil
  ) {
    self.store = store
    self.betweenOperations = betweenOperations
    self.arena = arena
    self.role = role
    self.precision = precision
    self.isRecording = isRecording
    self.isRecomputing = isRecomputing
  }

  /// A tape that computes alike and stores nothing.
  package func silent(role: MemoryRole? = nil) -> Tape {
    Tape(
      arena: arena, role: role ?? self.role, precision: precision, isRecording: false,
      betweenOperations: betweenOperations)
  }

  // MARK: Leaves

  /// A parameter's value; its gradient accumulates where the parameter says, if it is trainable.
  ///
  /// The elements of one that does not stay in memory are copied, since the record may keep them; for
  /// large ones, whose operation asks the parameter again on its way back, there is `weight`.
  /// - Parameter isCounted: false: what is recorded is the same, and the parameter gets no gradient of it.
  package func use(_ parameter: Parameter<Scalar>, isCounted: Bool = true) -> Value<Scalar> {
    weight(
      parameter, parameter.isKept || !isRecording ? parameter.value : copy(parameter.value),
      isCounted: isCounted)
  }

  /// The same without a copy.
  func weight(_ parameter: Parameter<Scalar>, isCounted: Bool = true) -> Value<Scalar> {
    weight(parameter, parameter.value, isCounted: isCounted)
  }

  private func weight(
    _ parameter: Parameter<Scalar>, _ elements: Tensor<Scalar>, isCounted: Bool
  ) -> Value<Scalar> {
    guard isRecording, let gradient = parameter.accumulatedGradient else {
      return Value(constant: elements)
    }
    return leaf(
      elements,
      gradient: isCounted ? gradient : Gradient(shape: elements.shape, isDropped: true))
  }

  private func copy(_ tensor: Tensor<Scalar>) -> Tensor<Scalar> {
    let copy = result(tensor.shape)
    copy.buffer.copy(from: tensor.buffer)
    return copy
  }

  /// An input whose gradient `gradient(of:)` tells after `backward`.
  package func input(_ tensor: Tensor<Scalar>) -> Value<Scalar> {
    guard isRecording else { return Value(constant: tensor) }
    return leaf(tensor, gradient: Gradient(shape: tensor.shape))
  }

  /// The gradient of an `input`; nil if nothing reached it.
  package func gradient(of value: Value<Scalar>) -> Tensor<Scalar>? {
    value.node.flatMap { nodes[$0].gradient.sum }.map { $0.reshaped(value.shape) }
  }

  /// Inputs whose gradients are handed over when the way back has come to them, and are not kept here.
  /// - Parameter handOver: takes the gradient of each; nil where it is not tracked or nothing reached it.
  package func inputs(
    _ tensors: [(tensor: Tensor<Scalar>, isTracked: Bool)],
    handingOver handOver: @escaping (_ gradients: [Tensor<Scalar>?]) -> Void
  ) -> [Value<Scalar>] {
    guard isRecording, tensors.contains(where: \.isTracked) else {
      return tensors.map { Value(constant: $0.tensor) }
    }
    let gradients = tensors.map { $0.isTracked ? Gradient<Scalar>(shape: $0.tensor.shape) : nil }
    onWayBack { handOver(gradients.map { $0?.take() }) }
    return zip(tensors, gradients).map { input, gradient in
      gradient.map { leaf(input.tensor, gradient: $0) } ?? Value(constant: input.tensor)
    }
  }

  /// The same elements, whose gradient is completed when the way back has come to this place, also where nothing has
  /// reached it here.
  /// - Parameter complete: takes the gradient that was found, and gives the one that x gets.
  package func completingGradient(
    of x: Value<Scalar>, _ complete: @escaping (_ found: Tensor<Scalar>?) -> Tensor<Scalar>
  ) -> Value<Scalar> {
    guard isRecording, let node = x.node else { return x }
    let (found, whole) = (Gradient<Scalar>(shape: x.shape), nodes[node].gradient)
    onWayBack { [arena, role] in
      _ = whole.adopt(complete(found.take()), arena: arena, role: role)
    }
    return leaf(x.tensor, gradient: found)
  }

  private func leaf(_ tensor: Tensor<Scalar>, gradient: Gradient<Scalar>) -> Value<Scalar> {
    nodes.append(Node(gradient: gradient, step: .leaf))
    return Value(tensor, node: nodes.count - 1)
  }

  // MARK: Recording

  /// A new tensor for the result of an operation.
  package func result(_ shape: [Int], zeroed: Bool = false) -> Tensor<Scalar> {
    Tensor(shape: shape, in: arena, booking: Booking(role, .activations), zeroed: zeroed)
  }

  /// A scratch tensor that lives for one kernel call.
  package func scratch(_ shape: [Int]) -> Tensor<Scalar> {
    Tensor(shape: shape, in: arena, booking: Booking(role, .workspace))
  }

  /// Notes how `output` came from `inputs`. Nothing is kept where no input wants a gradient.
  package func record(
    _ output: Tensor<Scalar>, from inputs: [Value<Scalar>], backward: @escaping Backward
  ) -> Value<Scalar> {
    betweenOperations?()
    guard isRecording, inputs.contains(where: \.isTracked) else { return Value(constant: output) }
    let gradients = InputGradients(
      gradients: inputs.map { input in input.node.map { nodes[$0].gradient } }, arena: arena,
      role: role)
    nodes.append(
      Node(gradient: Gradient(shape: output.shape), step: .operation(gradients, backward)))
    return Value(output, node: nodes.count - 1)
  }

  /// Runs `body` without storing its activations; `backward` runs it again, with storing.
  ///
  /// `body` must be a pure function of its inputs and of parameters taken by `use` of the tape it is
  /// given. - Cost: one more forward pass; memory of inputs and outputs only.
  package func recomputing(
    _ inputs: [Value<Scalar>],
    _ body: @escaping (Tape<Scalar>, [Value<Scalar>]) -> [Value<Scalar>]
  ) -> [Value<Scalar>] {
    let forward = silent()
    let outputs = body(forward, inputs.map(\.detached))
    guard isRecording else { return outputs.map(\.detached) }

    let block = nodes.count
    let outputNodes = outputs.indices.map { block + 1 + $0 }
    let kept = inputs.map { keep($0.tensor) }
    let gradients = inputs.map { input in input.node.map { nodes[$0].gradient } }
    let outputGradients = outputs.map { Gradient<Scalar>(shape: $0.shape) }
    nodes.append(
      Node(
        gradient: Gradient(shape: []),
        step: .recomputation(outputs: outputNodes) {
          [arena, role, precision, betweenOperations] in
          guard outputGradients.contains(where: { $0.sum != nil }) else { return }
          let again = Tape(
            arena: arena, role: role, precision: precision, isRecomputing: true,
            betweenOperations: betweenOperations)
          again.run(body, on: zip(kept, gradients).map { ($0, $1) }, takingSeeds: outputGradients)
          again.runBack()
        }))
    for gradient in outputGradients {
      nodes.append(Node(gradient: gradient, step: .recomputedOutput))
    }
    return zip(outputs, outputNodes).map { Value($0.tensor, node: $1) }
  }

  /// Runs `body` on inputs that were kept, each with where its gradient goes, and takes the gradients of its results
  /// over. Not inlined: its results are gone when the way back begins.
  @inline(never)
  private func run(
    _ body: (Tape<Scalar>, [Value<Scalar>]) -> [Value<Scalar>],
    on inputs: [(kept: KeptInput<Scalar>, gradient: Gradient<Scalar>?)],
    takingSeeds seeds: [Gradient<Scalar>]
  ) {
    let results = body(
      self,
      inputs.map { input in
        let tensor = input.kept.tensor
        return input.gradient.map { leaf(tensor, gradient: $0) } ?? Value(constant: tensor)
      })
    for (result, seed) in zip(results, seeds) {
      guard let node = result.node, let seed = seed.take() else { continue }
      _ = nodes[node].gradient.adopt(seed, arena: arena, role: role)
    }
  }

  private func keep(_ tensor: Tensor<Scalar>) -> KeptInput<Scalar> {
    store?.store(tensor.buffer, booking: Booking(role, .activations)).map {
      .stored($0, shape: tensor.shape)
    } ?? .inMemory(tensor)
  }

  /// Has `body` run when the way back comes to this place.
  func onWayBack(_ body: @escaping () -> Void) {
    nodes.append(Node(gradient: Gradient(shape: []), step: .event(body)))
  }

  /// The same, with where contributions to the gradients of `inputs` go.
  func onWayBack(
    of inputs: [Value<Scalar>], _ body: @escaping (_ gradients: InputGradients<Scalar>) -> Void
  ) {
    let gradients = InputGradients(
      gradients: inputs.map { input in input.node.map { nodes[$0].gradient } }, arena: arena,
      role: role)
    onWayBack { body(gradients) }
  }

  /// A value whose gradient does not come together here, although what reads it is recorded.
  func ungraded(_ tensor: Tensor<Scalar>, isTracked: Bool) -> Value<Scalar> {
    isTracked
      ? leaf(tensor, gradient: Gradient(shape: tensor.shape, isDropped: true))
      : Value(constant: tensor)
  }

  // MARK: Differentiation

  /// Accumulates the gradients of Σ ⟨value, seed⟩ into parameters and inputs.
  ///
  /// A tape is differentiated once; saved tensors are dropped on the way, values and seeds live to the end of it.
  /// - Precondition: each seed has as many elements as its value.
  package func backward(_ seeds: [(value: Value<Scalar>, seed: Tensor<Scalar>)]) {
    for (value, seed) in seeds {
      guard let node = value.node else { continue }
      precondition(
        seed.count == value.tensor.count,
        "a seed of \(seed.count) elements for a value of \(value.tensor.count)")
      nodes[node].gradient.add(seed, arena: arena, role: role)
    }
    runBack()
    withExtendedLifetime(seeds) {}
  }

  private func runBack() {
    for index in nodes.indices.reversed() {
      switch nodes[index].step {
      case .leaf, .recomputedOutput, .done: break
      case .event(let body):
        body()
        nodes[index].step = .done
      case .operation(let inputGradients, let backward):
        // Taken out first: where it is handed on, nobody else may hold it.
        if let outputGradient = nodes[index].gradient.take() {
          backward(outputGradient, inputGradients)
          betweenOperations?()
        }
        nodes[index].step = .done
      case .recomputation(let outputs, let run):
        run()
        for output in outputs { nodes[output].step = .done }
        nodes[index].step = .done
      }
    }
  }
}
