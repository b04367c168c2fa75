// The tape over sizes: what each operation stores, what its way back needs, and what both compute.
//
// Twin of Autodiff/Tape.swift and Autodiff/Operations. An operation's `saved` are the blocks that its
// backward closure captures; everything else it made dies with its last reference. Operations of a
// product m × n × k are counted as 2 m n k, forward once and backward once for each wanted gradient;
// elementwise work by the bytes of its operands, as far as they are as large as
// the output.

/// The twin of a value: so many elements, perhaps tracked.
struct ValueTwin {
  let block: PlannedLedger.Block
  let node: Int?
  /// Linear layers do not keep the elements.
  let remaking: RemakingTwin?
  /// Takes the gradients of the layers that read it.
  let columns: ColumnsTwin?

  init(constant block: PlannedLedger.Block) { self.init(block, node: nil) }

  init(
    _ block: PlannedLedger.Block, node: Int?, remaking: RemakingTwin? = nil,
    columns: ColumnsTwin? = nil
  ) {
    self.block = block
    self.node = node
    self.remaking = remaking
    self.columns = columns
  }

  var count: Int { block.count }
  var isTracked: Bool { node != nil }
  var detached: ValueTwin { ValueTwin(constant: block) }
}

/// Elements that are gathered again on the way back.
final class RemakingTwin {
  private let source: PlannedLedger.Block
  private let make: () -> PlannedLedger.Block
  private var block: PlannedLedger.Block?

  init(of source: PlannedLedger.Block, _ make: @escaping () -> PlannedLedger.Block) {
    self.source = source
    self.make = make
  }

  func use() { if block == nil { block = make() } }
}

/// A low-rank update of a linear layer.
struct UpdateTwin {
  let rank: Int
  let isTrainable: Bool
}

final class TapeTwin {
  enum Step {
    case leaf
    case operation(Operation)
    case recomputation(outputs: [Int], run: () -> Void)
    case recomputedOutput
    case event(() -> Void)
    case done
  }

  struct Operation {
    let inputs: [Gradient?]
    /// Inputs that the output's gradient is handed on to.
    let passed: [Int]
    let saved: [PlannedLedger.Block]
    /// What the way back needs made again; held, but not needed, where no weight wants a gradient.
    let remakings: [RemakingTwin]
    let needsRemaking: Bool
    /// Elements of scratch tensors that the way back holds at once.
    let scratch: [Int]
    /// Elements of a scratch tensor that is needed where input 0 has a gradient already.
    let scratchToAdd: Int?
    let products: ProductWork
    let attentionOperationCount: Double
    let sentByteCount: Double
    let messageCount: Int
    let waitCount: Int
    /// Bytes that an elementwise way back reads and writes.
    let movedByteCount: Int
    /// Keeps the output's gradient.
    let collecting: ((PlannedLedger.Block) -> Void)?
  }

  /// The gradient of a value: memory comes with the first contribution.
  final class Gradient {
    let count: Int
    /// Nothing contributes.
    let isDropped: Bool
    var block: PlannedLedger.Block?

    init(_ count: Int, _ block: PlannedLedger.Block? = nil, isDropped: Bool = false) {
      self.count = count
      self.isDropped = isDropped
      self.block = block
    }
  }

  struct Node {
    let gradient: Gradient
    var step: Step
  }

  let ledger: PlannedLedger
  let role: PlannedRole
  let isRecording: Bool
  let isRecomputing: Bool
  var nodes: [Node] = []

  init(
    _ ledger: PlannedLedger, role: PlannedRole, isRecording: Bool = true,
    isRecomputing: Bool = false
  ) {
    self.ledger = ledger
    self.role = role
    self.isRecording = isRecording
    self.isRecomputing = isRecomputing
  }

  func result(_ count: Int) -> PlannedLedger.Block { ledger.allocate(count, role, .activations) }

  func scratch(_ count: Int) -> PlannedLedger.Block { ledger.allocate(count, role, .workspace) }

  /// A parameter where it is used as a value: its gradient is bound elsewhere.
  func parameter(_ count: Int, isTrainable: Bool, of block: PlannedLedger.Block) -> ValueTwin {
    guard isRecording && isTrainable else { return ValueTwin(constant: block) }
    return leaf(block, gradient: Gradient(count, block))
  }

  /// An input whose gradient `gradient(of:)` tells after `backward`.
  func input(_ block: PlannedLedger.Block) -> ValueTwin {
    leaf(block, gradient: Gradient(block.count))
  }

  func gradient(of value: ValueTwin) -> PlannedLedger.Block? {
    value.node.flatMap { nodes[$0].gradient.block }
  }

  /// Notes an operation; `wantsParameterGradient` stands for inputs that are trainable parameters.
  func record(
    _ output: PlannedLedger.Block, from inputs: [ValueTwin], wantsParameterGradient: Bool = false,
    passingTo passed: [Int] = [], saving saved: [PlannedLedger.Block] = [],
    remaking remakings: [RemakingTwin] = [], needsRemaking: Bool? = nil, scratch: [Int] = [],
    scratchToAdd: Int? = nil,
    products: ProductWork = ProductWork(), attentionOperationCount: Double = 0,
    sentByteCount: Double = 0,
    messageCount: Int = 0, waitCount: Int = 1, collecting: ((PlannedLedger.Block) -> Void)? = nil
  ) -> ValueTwin {
    let isElementwise =
      products.operationCount + attentionOperationCount == 0 && collecting == nil
    ledger.work.tapeOperationCount += 1
    func seen(_ count: Int) -> Int { min(count, output.count) }
    if isElementwise {
      ledger.work.movedByteCount += Double(
        4 * inputs.reduce(output.count) { $0 + seen($1.count) })
    }
    guard isRecording, wantsParameterGradient || inputs.contains(where: \.isTracked) else {
      return ValueTwin(constant: output)
    }
    nodes.append(
      Node(
        gradient: Gradient(output.count),
        step: .operation(
          Operation(
            inputs: inputs.map { input in input.node.map { nodes[$0].gradient } },
            passed: passed, saved: saved, remakings: remakings,
            needsRemaking: needsRemaking ?? wantsParameterGradient, scratch: scratch,
            scratchToAdd: scratchToAdd,
            products: products, attentionOperationCount: attentionOperationCount,
            sentByteCount: sentByteCount,
            messageCount: messageCount, waitCount: messageCount > 0 ? waitCount : 0,
            movedByteCount: isElementwise
              ? 4
                * (output.count + saved.reduce(0) { $0 + seen($1.count) }
                  + 2
                  * inputs.enumerated().reduce(0) {
                    $1.element.isTracked && !passed.contains($1.offset)
                      ? $0 + seen($1.element.count) : $0
                  })
              : 0, collecting: collecting))))
    return ValueTwin(output, node: nodes.count - 1)
  }

  // MARK: Recomputation

  func recomputing(
    _ inputs: [ValueTwin], _ body: @escaping (TapeTwin, [ValueTwin]) -> [ValueTwin]
  ) -> [ValueTwin] {
    let forward = TapeTwin(ledger, role: role, isRecording: false)
    let outputs = body(forward, inputs.map(\.detached))
    guard isRecording else { return outputs.map(\.detached) }

    let block = nodes.count
    let outputNodes = outputs.indices.map { block + 1 + $0 }
    let kept = inputs.map {
      KeptInputTwin($0.block, role: role, store: ledger.activationStore)
    }
    let gradients = inputs.map { input in input.node.map { nodes[$0].gradient } }
    let outputGradients = outputs.map { Gradient($0.count) }
    nodes.append(
      Node(
        gradient: Gradient(0),
        step: .recomputation(outputs: outputNodes) { [ledger, role] in
          guard outputGradients.contains(where: { $0.block != nil }) else { return }
          let again = TapeTwin(ledger, role: role, isRecomputing: true)
          again.run(body, on: zip(kept, gradients).map { ($0, $1) }, takingSeeds: outputGradients)
          again.runBack()
        }))
    for gradient in outputGradients {
      nodes.append(Node(gradient: gradient, step: .recomputedOutput))
    }
    return zip(outputs, outputNodes).map { ValueTwin($0.block, node: $1) }
  }

  /// Its results are gone when the way back begins.
  @inline(never)
  private func run(
    _ body: (TapeTwin, [ValueTwin]) -> [ValueTwin],
    on inputs: [(kept: KeptInputTwin, gradient: Gradient?)], takingSeeds seeds: [Gradient]
  ) {
    let results = body(
      self,
      inputs.map { input in
        let block = input.kept.block
        return input.gradient.map { leaf(block, gradient: $0) } ?? ValueTwin(constant: block)
      })
    for (result, seed) in zip(results, seeds) {
      guard let node = result.node, let block = seed.block else { continue }
      seed.block = nil
      contribute(block, to: nodes[node].gradient)
    }
    withExtendedLifetime(results) {}
  }

  /// Has `body` run when the way back comes to this place.
  func onWayBack(_ body: @escaping () -> Void) {
    nodes.append(Node(gradient: Gradient(0), step: .event(body)))
  }

  /// The same elements, whose gradient is completed on the way back.
  func completingGradient(
    of x: ValueTwin, _ complete: @escaping (_ found: PlannedLedger.Block?) -> PlannedLedger.Block
  ) -> ValueTwin {
    guard isRecording, let node = x.node else { return x }
    let (found, whole) = (Gradient(x.count), nodes[node].gradient)
    onWayBack { [unowned self] in
      let block = found.block
      found.block = nil
      contribute(complete(block), to: whole)
    }
    return leaf(x.block, gradient: found)
  }

  func leaf(_ block: PlannedLedger.Block, gradient: Gradient) -> ValueTwin {
    nodes.append(Node(gradient: gradient, step: .leaf))
    return ValueTwin(block, node: nodes.count - 1)
  }

  // MARK: Differentiation

  /// The way back from `values`, whose seeds the caller holds.
  func backward(_ values: [ValueTwin]) {
    for value in values {
      guard let node = value.node else { continue }
      provide(nodes[node].gradient)
    }
    runBack()
  }

  private func runBack() {
    for index in nodes.indices.reversed() {
      switch nodes[index].step {
      case .leaf, .recomputedOutput, .done: break
      case .event(let body):
        body()
        nodes[index].step = .done
      case .operation(let operation):
        if let gradient = take(index) { runBack(operation, outputGradient: gradient) }
        nodes[index].step = .done
      case .recomputation(let outputs, let run):
        run()
        for output in outputs { nodes[output].step = .done }
        nodes[index].step = .done
      }
    }
  }

  private func runBack(_ operation: Operation, outputGradient: PlannedLedger.Block) {
    var scratch = operation.scratch.map(scratch(_:))
    if let count = operation.scratchToAdd, operation.inputs[0]?.block != nil {
      scratch.append(self.scratch(count))
    }
    if operation.needsRemaking { operation.remakings.forEach { $0.use() } }
    for (index, input) in operation.inputs.enumerated() where !operation.passed.contains(index) {
      input.map(provide)
    }
    var isFree = true
    for input in operation.passed.compactMap({ operation.inputs[$0] }) {
      if isFree && input.block == nil {
        input.block = outputGradient
        isFree = false
      } else {
        provide(input)
      }
    }
    ledger.work.tapeOperationCount += 1
    ledger.count(operation.products)
    ledger.countAttention(operation.attentionOperationCount)
    ledger.send(byteCount: operation.sentByteCount)
    ledger.work.messageCount += Double(operation.messageCount)
    ledger.work.waitCount += Double(operation.waitCount)
    ledger.work.movedByteCount += Double(operation.movedByteCount)
    operation.collecting?(outputGradient)
    withExtendedLifetime((outputGradient, scratch)) {}
  }

  private func take(_ index: Int) -> PlannedLedger.Block? {
    defer { nodes[index].gradient.block = nil }
    return nodes[index].gradient.block
  }

  private func contribute(_ block: PlannedLedger.Block, to gradient: Gradient) {
    if gradient.block == nil { gradient.block = block }
  }

  func provide(_ gradient: Gradient) {
    if gradient.block == nil, !gradient.isDropped { gradient.block = result(gradient.count) }
  }
}
