// The tape over sizes: what each operation stores, what its way back needs, and what both compute.
//
// Twin of Autodiff/Tape.swift and Autodiff/Operations. An operation's `saved` are the blocks that its
// backward closure captures; everything else it made dies with its last reference. Operations of a
// product m × n × k are counted as 2 m n k, forward once and backward once for each wanted gradient;
// elementwise work is not counted.

import MeshLayout

/// The twin of a value: so many elements, perhaps tracked.
struct ValueTwin {
  let block: PlannedLedger.Block
  fileprivate let node: Int?
  /// Linear layers do not keep the elements.
  fileprivate let remaking: RemakingTwin?

  init(constant block: PlannedLedger.Block) { self.init(block, node: nil) }

  fileprivate init(_ block: PlannedLedger.Block, node: Int?, remaking: RemakingTwin? = nil) {
    self.block = block
    self.node = node
    self.remaking = remaking
  }

  var count: Int { block.count }
  var isTracked: Bool { node != nil }
  var detached: ValueTwin { ValueTwin(constant: block) }
}

/// Elements that are gathered again on the way back.
private final class RemakingTwin {
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
  private enum Step {
    case leaf
    case operation(Operation)
    case recomputation(outputs: [Int], run: ([PlannedLedger.Block?]) -> Void)
    case recomputedOutput
    case event(() -> Void)
    case done
  }

  private struct Operation {
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
    let operationCount: Double
    let sentByteCount: Double
  }

  /// The gradient of a value: memory comes with the first contribution.
  fileprivate final class Gradient {
    let count: Int
    var block: PlannedLedger.Block?

    init(_ count: Int, _ block: PlannedLedger.Block? = nil) {
      self.count = count
      self.block = block
    }
  }

  private struct Node {
    let gradient: Gradient
    var step: Step
  }

  let ledger: PlannedLedger
  let role: PlannedRole
  let isRecording: Bool
  private let isRecomputing: Bool
  private var nodes: [Node] = []

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
  private func record(
    _ output: PlannedLedger.Block, from inputs: [ValueTwin], wantsParameterGradient: Bool = false,
    passingTo passed: [Int] = [], saving saved: [PlannedLedger.Block] = [],
    remaking remakings: [RemakingTwin] = [], scratch: [Int] = [], scratchToAdd: Int? = nil,
    operationCount: Double = 0, sentByteCount: Double = 0
  ) -> ValueTwin {
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
            needsRemaking: wantsParameterGradient, scratch: scratch, scratchToAdd: scratchToAdd,
            operationCount: operationCount, sentByteCount: sentByteCount))))
    return ValueTwin(output, node: nodes.count - 1)
  }

  // MARK: Operations

  /// Stores its input (and x Aᵀ with an update).
  func linear(
    _ x: ValueTwin, from inputWidth: Int, to outputWidth: Int, isTrainable: Bool,
    update: UpdateTwin? = nil
  ) -> ValueTwin {
    linear(parts: [x], from: inputWidth, to: outputWidth, isTrainable: isTrainable, update: update)
  }

  /// The same of inputs side by side; the parts are tracked all or none.
  func linear(
    parts: [ValueTwin], from inputWidth: Int, to outputWidth: Int, isTrainable: Bool,
    update: UpdateTwin? = nil
  ) -> ValueTwin {
    let rowCount = parts.reduce(0) { $0 + $1.count } / inputWidth
    let isTracked = parts.contains(where: \.isTracked)
    let blocks = parts.filter { $0.remaking == nil }.map(\.block)
    let remakings = parts.compactMap(\.remaking)
    let product = 2 * Double(rowCount) * Double(inputWidth) * Double(outputWidth)
    let output = result(rowCount * outputWidth)
    ledger.operationCount += product
    let wanted = (isTracked ? 1.0 : 0) + (isTrainable ? 1 : 0)
    guard let update else {
      return record(
        output, from: parts, wantsParameterGradient: isTrainable, saving: blocks,
        remaking: remakings, operationCount: wanted * product)
    }
    let hidden = result(rowCount * update.rank)
    let down = 2 * Double(rowCount) * Double(inputWidth) * Double(update.rank)
    let up = 2 * Double(rowCount) * Double(outputWidth) * Double(update.rank)
    ledger.operationCount += down + up
    let ways = (isTracked ? 1.0 : 0) + (update.isTrainable ? 1 : 0)
    return record(
      output, from: parts, wantsParameterGradient: isTrainable || update.isTrainable,
      saving: blocks + [hidden], remaking: remakings, scratch: [rowCount * update.rank],
      operationCount: wanted * product + up + ways * down + (update.isTrainable ? up : 0))
  }

  /// An activation: stores its input.
  func apply(_ x: ValueTwin) -> ValueTwin {
    let output = result(x.count)
    return record(output, from: [x], saving: [x.block])
  }

  /// A sum with constant weights: stores nothing.
  /// - Parameter passed: terms whose weight is 1, which the gradient is handed on to.
  func combine(_ x: ValueTwin, _ y: ValueTwin, passingTo passed: [Int] = []) -> ValueTwin {
    let output = result(x.count)
    return record(output, from: [x, y], passingTo: passed)
  }

  /// A plain sum: hands its gradient on.
  func add(_ x: ValueTwin, _ y: ValueTwin) -> ValueTwin {
    let output = result(x.count)
    return record(output, from: [x, y], passingTo: [0, 1])
  }

  func concatenate(_ values: [ValueTwin]) -> ValueTwin {
    let output = result(values.reduce(0) { $0 + $1.count })
    return record(output, from: values)
  }

  /// Joins `count` elements out of copies of one parameter's value.
  func gather(_ value: ValueTwin, count: Int) -> ValueTwin {
    let output = result(count)
    return record(output, from: [value])
  }

  func slice(_ x: ValueTwin, count: Int) -> ValueTwin {
    let output = result(count)
    return record(output, from: [x])
  }

  func chunks(_ x: ValueTwin, count: Int) -> [ValueTwin] {
    (0..<count).map { _ in slice(x, count: x.count / count) }
  }

  func permuted(_ x: ValueTwin) -> ValueTwin {
    let output = result(x.count)
    return record(output, from: [x], scratchToAdd: x.count)
  }

  /// Rotary positions while two dimensions change places: stores nothing.
  func rotatedAndTransposed(_ x: ValueTwin) -> ValueTwin {
    let output = result(x.count)
    return record(output, from: [x])
  }

  func weightedTokenSum(_ x: ValueTwin, to count: Int) -> ValueTwin {
    let output = result(count)
    return record(output, from: [x])
  }

  /// Stores input, scale, and mean and deviation of each row.
  func layerNorm(
    _ x: ValueTwin, width: Int, scale: ValueTwin? = nil, shift: ValueTwin? = nil,
    isTrainable: Bool = false
  ) -> ValueTwin {
    let rowCount = x.count / width
    let output = result(x.count)
    let mean = result(rowCount)
    let inverseDeviation = result(rowCount)
    return record(
      output, from: [x] + [scale, shift].compactMap(\.self), wantsParameterGradient: isTrainable,
      saving: [x.block, mean, inverseDeviation] + (scale.map { [$0.block] } ?? []))
  }

  /// Stores input and the inverse root of each head.
  func headNorm(_ x: ValueTwin, headWidth: Int, isTrainable: Bool) -> ValueTwin {
    let output = result(x.count)
    let inverseRoot = result(x.count / headWidth)
    return record(
      output, from: [x], wantsParameterGradient: isTrainable, saving: [x.block, inverseRoot])
  }

  /// Stores gate and branch.
  func gatedResidual(_ x: ValueTwin, gate: ValueTwin, _ h: ValueTwin) -> ValueTwin {
    let output = result(x.count)
    return record(output, from: [x, gate, h], passingTo: [0], saving: [gate.block, h.block])
  }

  /// Stores query, key, value, output, and one number for each row and head. Two products forward,
  /// five on the way back.
  func attention(
    query: ValueTwin, key: ValueTwin, value: ValueTwin, headCount: Int, sampleCount: Int,
    width: Int
  ) -> ValueTwin {
    let output = result(query.count)
    let queryCount = query.count / width
    let logSumExp = result(queryCount * headCount)
    // A part of the tokens may be none.
    let keyCount = key.count / width / max(sampleCount, 1)
    let product = 2 * Double(queryCount) * Double(keyCount) * Double(width)
    ledger.operationCount += 2 * product
    return record(
      output, from: [query, key, value],
      saving: [query.block, key.block, value.block, output, logSumExp],
      scratch: [query, key, value].filter { !$0.isTracked }.map(\.count),
      operationCount: 5 * product)
  }

  // MARK: Sequence parallelism

  /// An all-to-all between own tokens of all heads and all tokens of own heads, to a tensor of `count`
  /// elements; some of what is sent each way stays here.
  func exchange(
    _ x: ValueTwin, to count: Int, sentCount: Int, sentBackCount: Int
  ) -> ValueTwin {
    let output = result(count)
    ledger.sentByteCount += 4 * Double(sentCount)
    return record(
      output, from: [x], scratchToAdd: x.count, sentByteCount: 4 * Double(sentBackCount))
  }

  /// Attention to the blocks of keys of a ring of ranks, the own one first. Two blocks of others are held
  /// (four on the way back), and partial outputs as the tree over the ranks keeps them.
  /// - Parameters:
  ///   - blockCounts: elements of keys of every rank's block.
  ///   - rank: whose block the own one is.
  func ringAttention(
    query: ValueTwin, key: ValueTwin, value: ValueTwin, headCount: Int, width: Int,
    blockCounts: [Int], rank: Int, sampleCount: Int
  ) -> ValueTwin {
    typealias Partial = (output: PlannedLedger.Block, logSumExp: PlannedLedger.Block)
    let (size, largest) = (blockCounts.count, blockCounts.max() ?? 0)
    let allCount = blockCounts.reduce(0, +)
    let room = [scratch(largest), scratch(largest)]
    func partial() -> Partial { (result(query.count), result(query.count / width * headCount)) }
    var tree = ArrivalTree<Partial?>(count: size)
    for step in 0..<size {
      let part = (rank + size - step) % size
      let isEmpty = query.count == 0 || blockCounts[part] == 0
      tree.insert(isEmpty ? nil : partial(), at: part) { $0 ?? $1 }
    }
    withExtendedLifetime(room) {}
    let (output, logSumExp) = (tree.result ?? nil) ?? partial()
    let product =
      2 * Double(query.count / width) * Double(allCount / width / sampleCount) * Double(width)
    ledger.operationCount += 2 * product
    // Keys and values pass: all but the next rank's are sent on. Gradients of others' go home.
    let passed = 2 * Double(allCount - blockCounts[(rank + 1) % size])
    ledger.sentByteCount += 4 * passed
    return record(
      output, from: [query, key, value],
      saving: [query.block, key.block, value.block, output, logSumExp],
      scratch: [query, key, value].filter { !$0.isTracked }.map(\.count)
        + Array(repeating: largest, count: 4), operationCount: 5 * product,
      sentByteCount: 4 * (passed + 2 * Double(allCount - blockCounts[rank])))
  }

  /// Own tokens or columns to the ranks that cut weights with this one; on the way back their sum.
  func gather(_ x: ValueTwin, to count: Int, peerCount: Int) -> ValueTwin {
    let output = result(count)
    ledger.sentByteCount += 4 * Double(peerCount * x.count)
    return record(
      output, from: [x], scratch: [x.count], scratchToAdd: x.count,
      sentByteCount: 4 * Double(count - x.count))
  }

  /// The same, gathered again on the way back instead of being kept, unless that follows at once.
  func gatherTwice(_ x: ValueTwin, to count: Int, peerCount: Int) -> ValueTwin {
    let gathered = gather(x, to: count, peerCount: peerCount)
    guard isRecording, !isRecomputing else { return gathered }
    let remaking = RemakingTwin(of: x.block) { [ledger, role, byteCount = 4 * x.count] in
      ledger.sentByteCount += Double(peerCount * byteCount)
      return ledger.allocate(count, role, .activations)
    }
    return ValueTwin(gathered.block, node: gathered.node, remaking: remaking)
  }

  /// The adjoint of `gather`.
  func scatterSum(_ x: ValueTwin, to count: Int, peerCount: Int) -> ValueTwin {
    let output = result(count)
    let room = scratch(count)
    ledger.sentByteCount += 4 * Double(x.count - count)
    withExtendedLifetime(room) {}
    return record(
      output, from: [x], scratchToAdd: x.count, sentByteCount: 4 * Double(peerCount * count))
  }

  /// A bias that is no part of a product.
  func addBias(_ x: ValueTwin, isTrainable: Bool) -> ValueTwin {
    let output = result(x.count)
    return record(output, from: [x], wantsParameterGradient: isTrainable, passingTo: [0])
  }

  /// Own tokens to all ranks.
  func gatherTokens(_ x: ValueTwin, to count: Int, peerCount: Int) -> ValueTwin {
    let output = result(count)
    ledger.sentByteCount += 4 * Double(peerCount * x.count)
    return record(output, from: [x])
  }

  /// Own tokens to all ranks, which add up their gradients on the way back.
  func shareTokens(_ x: ValueTwin, to count: Int, peerCount: Int) -> ValueTwin {
    let output = result(count)
    ledger.sentByteCount += 4 * Double(peerCount * x.count)
    return record(
      output, from: [x], scratch: [x.count], scratchToAdd: x.count,
      sentByteCount: 4 * Double(count - x.count))
  }

  // MARK: Pipelines

  /// Inputs whose gradients are handed over when the way back has come to them.
  /// - Parameter handOver: is given the elements of each gradient that is there.
  func inputs(
    _ inputs: [(block: PlannedLedger.Block, isTracked: Bool)],
    handingOver handOver: @escaping (_ counts: [Int]) -> Void
  ) -> [ValueTwin] {
    guard isRecording, inputs.contains(where: \.isTracked) else {
      return inputs.map { ValueTwin(constant: $0.block) }
    }
    let gradients = inputs.map { $0.isTracked ? Gradient($0.block.count) : nil }
    onWayBack {
      let blocks = gradients.map { gradient in
        defer { gradient?.block = nil }
        return gradient?.block
      }
      handOver(blocks.compactMap { $0?.count })
    }
    return zip(inputs, gradients).map { input, gradient in
      gradient.map { leaf(input.block, gradient: $0) } ?? ValueTwin(constant: input.block)
    }
  }

  /// A velocity that other stages make of a state, whose gradients come from them.
  func handedOn(_ state: [ValueTwin], velocityCount: Int) -> ValueTwin {
    let velocity = result(velocityCount)
    return record(velocity, from: state)
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
    nodes.append(
      Node(
        gradient: Gradient(0),
        step: .recomputation(outputs: outputNodes) { [ledger, role] outputGradients in
          let again = TapeTwin(ledger, role: role, isRecomputing: true)
          let leaves = zip(kept, gradients).map { kept, gradient in
            let block = kept.block
            return gradient.map { again.leaf(block, gradient: $0) } ?? ValueTwin(constant: block)
          }
          let results = body(again, leaves)
          for (result, gradient) in zip(results, outputGradients) {
            guard let node = result.node, let gradient else { continue }
            again.contribute(gradient, to: again.nodes[node].gradient)
          }
          again.runBack()
        }))
    for output in outputs {
      nodes.append(Node(gradient: Gradient(output.count), step: .recomputedOutput))
    }
    return zip(outputs, outputNodes).map { ValueTwin($0.block, node: $1) }
  }

  /// Has `body` run when the way back comes to this place.
  func onWayBack(_ body: @escaping () -> Void) {
    nodes.append(Node(gradient: Gradient(0), step: .event(body)))
  }

  private func leaf(_ block: PlannedLedger.Block, gradient: Gradient) -> ValueTwin {
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
        let outputGradients = outputs.map(take(_:))
        if outputGradients.contains(where: { $0 != nil }) { run(outputGradients) }
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
    ledger.operationCount += operation.operationCount
    ledger.sentByteCount += operation.sentByteCount
    withExtendedLifetime((outputGradient, scratch)) {}
  }

  private func take(_ index: Int) -> PlannedLedger.Block? {
    defer { nodes[index].gradient.block = nil }
    return nodes[index].gradient.block
  }

  private func contribute(_ block: PlannedLedger.Block, to gradient: Gradient) {
    if gradient.block == nil { gradient.block = block }
  }

  private func provide(_ gradient: Gradient) {
    if gradient.block == nil { gradient.block = result(gradient.count) }
  }
}
