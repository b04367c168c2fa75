// The seam of pipeline stages carries stages whose gradients stop at their border (specification of local learning,
// §1, 2, 8): states go forward, and once a step the parameters of a neighbor's first block come back; no gradient does.
//
// The stage is one of these tests alone. It stands where `StagedSequence` does, receives by it, and hands on by
// `StageExchange`; networks, blocks and tape are those of the product. Its auxiliary layers are a frozen copy of the next
// stage's first block, as it was at the start of the step, and a norm and projection of its own (§1: E of MAN, then H).

import Autodiff
import Basics
import DenseKernels
import Exchange
import MeshLayout
import MessagePassing
import ProcessMesh
import Tensors
import Testing

@testable import Models
@testable import Training

/// A stretch of blocks whose border no gradient crosses.
private final class LocalStage: SequenceParallel, PipelineStage {
  typealias Scalar = Double
  typealias State = [Value<Double>]

  let (isFirst, isLast): (Bool, Bool)
  private let ownBlocks: Range<Int>
  private let receiveState: (_ shapes: [[Int]], Tape<Double>) -> State
  private let handOnState: (State, _ velocityShape: [Int], Tape<Double>) -> Value<Double>

  /// - Parameters:
  ///   - receive: the state that comes from the stage before.
  ///   - handOn: passes the state on, and gives the velocity of the auxiliary layers.
  init(
    _ blocks: Range<Int>, of blockCount: Int,
    receive: @escaping ([[Int]], Tape<Double>) -> State,
    handOn: @escaping (State, [Int], Tape<Double>) -> Value<Double>
  ) {
    (isFirst, isLast) = (blocks.lowerBound == 0, blocks.upperBound == blockCount)
    ownBlocks = blocks
    receiveState = receive
    handOnState = handOn
  }

  func blocks(of count: Int) -> Range<Int> { ownBlocks }
  func receive(_ shapes: [[Int]], on tape: Tape<Double>) -> State { receiveState(shapes, tape) }
  func handOn(_ state: State, velocityShape: [Int], on tape: Tape<Double>) -> Value<Double> {
    handOnState(state, velocityShape, tape)
  }
  /// Nobody else learns from it.
  func publish(_ velocity: Value<Double>) {}

  // What the passes of these tests do not come to.
  var stageIndex: Int { preconditionFailure("a pass for features") }
  func stage(ofBlock block: Int, of count: Int) -> Int {
    preconditionFailure("a pass for features")
  }
  func handOn(
    _ state: State, featuresShape: [Int], of stage: Int, on tape: Tape<Double>
  ) -> Value<Double> { preconditionFailure("a pass for features") }
  func receiveFeatures(
    _ shape: [Int], of stage: Int, on tape: Tape<Double>
  ) -> Value<Double> { preconditionFailure("a pass for features") }
  func publish(features: Value<Double>) { preconditionFailure("a pass for features") }
  func sharingGradient(
    of latents: Value<Double>, on tape: Tape<Double>
  ) -> Value<Double> { preconditionFailure("latents with a gradient") }

  // Each stage has all tokens.
  var stage: (any PipelineStage<Double>)? { self }
  var tokens: (any SequenceParallel<Double>)? { nil }
  var partCount: Int { 1 }
  func ownRange(of tokenCount: Int) -> Range<Int> { 0..<tokenCount }
  func attention(
    query: Value<Double>, key: Value<Double>, value: Value<Double>, headCount: Int,
    mask: AttentionMask?, segments: [Int], on tape: Tape<Double>
  ) -> Value<Double> {
    tape.attention(query: query, key: key, value: value, headCount: headCount, mask: mask)
  }
  func gatherTokens(
    _ x: Value<Double>, tokenCount: Int, on tape: Tape<Double>
  ) -> Value<Double> { x }
}

/// A network of four blocks in two local stages, in Float64, and what they learn from.
struct LocalCase: Sendable, CustomTestStringConvertible {
  let testDescription: String
  let configuration: any TransformerConfiguration
  static let (blockCount, border) = (4, 2)
  static let (stepCount, microbatchCount) = (2, 3)
  let sampleCount = 2
  let textCount = 3
  var latentShape: [Int] { [sampleCount, configuration.inChannels, 2, 4, 4] }

  /// HunyuanVideo, the border between blocks of two streams, and of one, whose state has video and text in one.
  static func hunyuanVideo(double: Int) -> HunyuanVideoConfiguration {
    var configuration = HunyuanVideoConfiguration()
    (configuration.inChannels, configuration.outChannels) = (3, 3)
    (configuration.attentionHeadCount, configuration.attentionHeadWidth) = (2, 8)
    (configuration.doubleBlockCount, configuration.singleBlockCount) = (
      double, blockCount - double
    )
    configuration.refinerBlockCount = 1
    (configuration.textEmbeddingWidth, configuration.pooledProjectionWidth) = (5, 4)
    configuration.ropeAxesWidths = [2, 2, 4]
    configuration.guidanceEmbeds = false
    return configuration
  }

  private static func vchitect(
    _ variant: VchitectConfiguration.BlockVariant
  ) -> VchitectConfiguration {
    var configuration = VchitectConfiguration()
    configuration.variant = variant
    configuration.blockCount = blockCount
    (configuration.inChannels, configuration.outChannels) = (3, 3)
    (configuration.attentionHeadCount, configuration.attentionHeadWidth) = (2, 8)
    (configuration.textEmbeddingWidth, configuration.pooledProjectionWidth) = (5, 4)
    (configuration.positionTableSize, configuration.sampleSize) = (8, 12)
    return configuration
  }

  static let all =
    [1, 3].map {
      LocalCase(
        testDescription: "HunyuanVideo, \($0) blocks of two streams",
        configuration: hunyuanVideo(double: $0))
    }
    + VchitectConfiguration.BlockVariant.allCases.map {
      LocalCase(testDescription: "Vchitect-2.0, \($0)", configuration: vchitect($0))
    }

  private func draws(_ number: Int, _ count: Int) -> [Double] {
    RandomStream(seed: 5, purpose: .tests, step: number).normals(count: count).map(Double.init)
  }

  // MARK: Networks

  /// What a rank has, or one rank that runs both stages.
  final class Networks {
    let arena = Arena()
    let base: ParameterSet<Double>
    /// The first stage's norm and projection.
    let auxiliary: ParameterSet<Double>
    /// As much of the next stage as the first one knows.
    let neighbor: ParameterSet<Double>
    let (gradient, auxiliaryGradient): (Buffer<Double>, Buffer<Double>)
    /// Where the parameters are that go to the stage before.
    let neighborUnit: Range<Int>

    init(_ example: LocalCase) {
      let configuration = example.configuration
      let width = configuration.width
      let projected = configuration.patchVolume * configuration.outChannels
      base = ParameterSet(configuration.parameterSpecifications, in: arena, role: .base)
      neighbor = ParameterSet(configuration.parameterSpecifications, in: arena, role: .base)
      auxiliary = ParameterSet(
        [
          ParameterSpecification("norm_out.linear.weight", [2 * width, width], .zeros),
          ParameterSpecification("norm_out.linear.bias", [2 * width], .zeros),
          ParameterSpecification("proj_out.weight", [projected, width], .zeros),
          ParameterSpecification("proj_out.bias", [projected], .zeros),
        ], in: arena, role: .base)
      base.values.copy(from: example.draws(1, base.values.count).map { 0.15 * $0 })
      auxiliary.values.copy(from: example.draws(2, auxiliary.values.count).map { 0.15 * $0 })
      gradient = Buffer(zeroed: base.values.count)
      auxiliaryGradient = Buffer(zeroed: auxiliary.values.count)
      base.bindGradients(to: gradient)
      auxiliary.bindGradients(to: auxiliaryGradient)
      let blocks = base.layout.units.filter { !$0.block.isEmpty }
      neighborUnit = blocks[LocalCase.border].range
      // All begin with the same weights, so the first step needs no message.
      learn(neighbor: base.values[neighborUnit])
    }

    func learn(neighbor elements: Buffer<Double>) {
      neighbor.values[neighborUnit].copy(from: elements)
    }

    func clearGradients() {
      gradient.fill(with: 0)
      auxiliaryGradient.fill(with: 0)
    }

    func update() {
      for (set, gradient) in [(base, gradient), (auxiliary, auxiliaryGradient)] {
        let values = set.values
        for index in 0..<values.count { values[index] -= 0.01 * gradient[index] }
      }
    }
  }

  // MARK: Passes

  func forward(
    _ configuration: any TransformerConfiguration, _ parameters: ParameterSet<Double>,
    microbatch: Int, on tape: Tape<Double>, _ sequence: (any SequenceParallel<Double>)?
  ) -> Value<Double> {
    func constant(_ number: Int, _ shape: [Int]) -> Value<Double> {
      Value(
        constant: Tensor(
          draws(10 * microbatch + number, shape.reduce(1, *)), shape: shape, in: tape.arena,
          booking: Booking(.base, .activations)))
    }
    // Some blocks are recomputed, also those at the border.
    return configuration.transformer(parameters).forward(
      tape: tape,
      TransformerInputs(
        hiddenStates: constant(3, latentShape),
        timestep: (0..<sampleCount).map { Double(100 + 300 * microbatch + 50 * $0) },
        encoderHiddenStates: constant(4, [sampleCount, textCount, 5]),
        encoderAttentionMask: Array(repeating: 1, count: sampleCount * textCount),
        pooledProjections: constant(5, [sampleCount, 4])),
      adapter: nil, recomputedShare: 0.5, sequence: sequence)
  }

  /// The gradient of ½ Σ (v − u)², the same u for all stages.
  func seed(_ velocity: Value<Double>, microbatch: Int, on tape: Tape<Double>) -> Tensor<Double> {
    let target = draws(10 * microbatch + 6, velocity.tensor.count)
    let seed = tape.result(velocity.shape)
    seed.buffer.copy(from: zip(velocity.tensor.array, target).map { $0 - $1 })
    return seed
  }

  /// The auxiliary layers: the neighbor's first block, then norm and projection.
  func auxiliaryVelocity(
    _ state: [Value<Double>], _ shape: [Int], microbatch: Int, on tape: Tape<Double>,
    _ networks: Networks
  ) -> Value<Double> {
    let block = LocalStage(
      Self.border..<Self.border + 1, of: Self.blockCount, receive: { _, _ in state }
    ) { state, shape, tape in
      let scope = LayerScope(tape, networks.auxiliary)
      let grid = PatchGrid(latents: shape, patch: configuration.patch)
      // Video tokens come before those of the text, where both are in one.
      let rows = sampleCount * grid.tokenCount / state[0].shape[0]
      let normalized = scope.modulatedLayerNorm(
        "norm_out.linear", tape.slice(state[0], along: 1, 0..<rows),
        condition: state[state.count - 1], epsilon: HunyuanVideoConfiguration.epsilon)
      return grid.latents(
        of: scope.linear("proj_out", normalized),
        configuration.architecture == .vchitect ? .channelsLast : .channelsFirst, on: tape)
    }
    return forward(configuration, networks.neighbor, microbatch: microbatch, on: tape, block)
  }

  // MARK: On ranks

  /// By step: gradients, messages, and what is known of the neighbor after it.
  struct Steps: Sendable {
    var gradients: [[Double]] = []
    var auxiliaryGradients: [[Double]] = []
    /// From the first pass of a step to the end of the last one's way back.
    var messagesInPasses: [[TrafficLog.Entry]] = []
    /// Until the next step.
    var messagesBehindPasses: [[TrafficLog.Entry]] = []
    var neighbors: [[Double]] = []
    var values: [Double] = []
  }

  func run(on transport: any Transport) throws -> Steps {
    let recorded = RecordingTransport(transport)
    // A line of its own for what comes once a step.
    let parameterLine = try recorded.split(color: 0, key: recorded.rank)
    let exchange = StageExchange(transport: recorded)
    var failure: (any Error)?
    let attempt: (() throws -> Void) -> Void = { body in
      do { try body() } catch { failure = failure ?? error }
    }
    let staged = StagedSequence<Double>(exchange, attempt: attempt)
    let networks = Networks(self)
    var steps = Steps()
    /// What this rank sent and received since the last call.
    func takeMessages() -> [TrafficLog.Entry] {
      defer { recorded.log.removeAll() }
      return recorded.log.entries.filter { $0.name != "split" }
    }
    _ = takeMessages()
    for _ in 0..<Self.stepCount {
      networks.clearGradients()
      for microbatch in 0..<Self.microbatchCount {
        let stage = LocalStage(
          staged.blocks(of: Self.blockCount), of: Self.blockCount,
          receive: { shapes, tape in
            let state = staged.receive(shapes, on: tape)
            #expect(state.allSatisfy { !$0.isTracked })
            return state
          },
          handOn: { state, shape, tape in
            #expect(state.allSatisfy { $0.isTracked })
            attempt {
              try exchange.sendState(
                state.map(\.tensor.buffer), isTracked: state.map { _ in false })
            }
            return auxiliaryVelocity(state, shape, microbatch: microbatch, on: tape, networks)
          })
        let tape = Tape<Double>(arena: networks.arena, role: .base)
        let velocity = forward(
          configuration, networks.base, microbatch: microbatch, on: tape, stage)
        tape.backward([(velocity, seed(velocity, microbatch: microbatch, on: tape))])
      }
      if let failure { throw failure }
      steps.gradients.append(networks.gradient.array)
      steps.auxiliaryGradients.append(networks.auxiliaryGradient.array)
      steps.messagesInPasses.append(takeMessages())
      networks.update()
      try handOverFirstBlock(networks, parameterLine)
      steps.neighbors.append(networks.neighbor.values[networks.neighborUnit].array)
      steps.messagesBehindPasses.append(takeMessages())
    }
    steps.values = networks.base.values.array
    return steps
  }

  /// Elements as they are in memory, as `SplitNetworks` packs a unit.
  private func handOverFirstBlock(_ networks: Networks, _ line: any Transport) throws {
    let count = networks.neighborUnit.count
    if line.rank == 1 {
      let elements = networks.base.values[networks.neighborUnit]
      let payload = Payload(capacity: count * MemoryLayout<Double>.stride) { bytes in
        elements.packRows(1, width: count, stride: count, into: &bytes, at: 0)
      }
      try line.post(payload, to: 0, tag: 0)
    } else {
      let elements = Buffer<Double>(zeroed: count)
      let payload = try line.receivePayload(from: 1, tag: 0)
      payload.withBytes {
        _ = elements.unpackRows(1, width: count, stride: count, from: $0, at: 0)
      }
      networks.learn(neighbor: elements)
    }
  }

  // MARK: On one rank

  /// Both stages on one tape, with nothing between them but memory.
  /// - Parameter isCutOff: whether the gradient stops at the border.
  func runTogether(isCutOff: Bool) -> Steps {
    let networks = Networks(self)
    var steps = Steps()
    for _ in 0..<Self.stepCount {
      networks.clearGradients()
      for microbatch in 0..<Self.microbatchCount {
        let tape = Tape<Double>(arena: networks.arena, role: .base)
        var border: [Value<Double>] = []
        let first = LocalStage(
          0..<Self.border, of: Self.blockCount, receive: { _, _ in [] },
          handOn: { state, shape, tape in
            border = isCutOff ? state.map(\.detached) : state
            return auxiliaryVelocity(state, shape, microbatch: microbatch, on: tape, networks)
          })
        let last = LocalStage(
          Self.border..<Self.blockCount, of: Self.blockCount, receive: { _, _ in border },
          handOn: { _, _, _ in preconditionFailure("the last stage hands nothing on") })
        let velocities = [first, last].map {
          forward(configuration, networks.base, microbatch: microbatch, on: tape, $0)
        }
        tape.backward(
          velocities.map { ($0, seed($0, microbatch: microbatch, on: tape)) })
      }
      steps.gradients.append(networks.gradient.array)
      steps.auxiliaryGradients.append(networks.auxiliaryGradient.array)
      networks.update()
      networks.learn(neighbor: networks.base.values[networks.neighborUnit])
      steps.neighbors.append(networks.neighbor.values[networks.neighborUnit].array)
    }
    steps.values = networks.base.values.array
    return steps
  }

  /// The gradients of the first step of a network that has the blocks of the first stage, the one behind the border and
  /// the auxiliary norm and projection for its own: no stage, and nothing of these tests, is in it.
  func truncated(_ configuration: HunyuanVideoConfiguration) -> [String: [Double]] {
    var cut = configuration
    cut.doubleBlockCount = min(configuration.doubleBlockCount, Self.border + 1)
    cut.singleBlockCount = Self.border + 1 - cut.doubleBlockCount
    let networks = Networks(self)
    let set = ParameterSet<Double>(cut.parameterSpecifications, in: networks.arena, role: .base)
    for parameter in set.parameters {
      let source =
        networks.auxiliary.contains(parameter.name) ? networks.auxiliary : networks.base
      parameter.value.buffer.copy(from: source[parameter.name].value.buffer)
    }
    let gradient = Buffer<Double>(zeroed: set.layout.count)
    set.bindGradients(to: gradient)
    for microbatch in 0..<Self.microbatchCount {
      let tape = Tape<Double>(arena: networks.arena, role: .base)
      let velocity = forward(cut, set, microbatch: microbatch, on: tape, nil)
      tape.backward([(velocity, seed(velocity, microbatch: microbatch, on: tape))])
    }
    return Dictionary(
      uniqueKeysWithValues: set.layout.entries.map { ($0.name, gradient[$0.range].array) })
  }
}

struct LocalStageSeamTests {
  @Test(arguments: LocalCase.all)
  func `each stage has the gradients of its own loss, and only states go forward`(
    _ example: LocalCase
  ) throws {
    let found = try InProcessMesh.run(size: 2) { try example.run(on: $0) }
    let together = example.runTogether(isCutOff: true)
    let networks = LocalCase.Networks(example)
    let units = networks.base.layout.units
    let owners = StageCut.stages(
      of: units.map { (!$0.block.isEmpty, $0.isOutput) }, stageCount: 2)
    for step in 0..<LocalCase.stepCount {
      for (unit, owner) in zip(units, owners) {
        let name: Comment = "\(unit.block.isEmpty ? "outside" : unit.block) in step \(step)"
        let expected = together.gradients[step][unit.range]
        let isSame = found[owner].gradients[step][unit.range] == expected
        let isUntouched = found[1 - owner].gradients[step][unit.range].allSatisfy { $0 == 0 }
        #expect(isSame && isUntouched && expected.contains { $0 != 0 }, name)
      }
      let isSame = found[0].auxiliaryGradients[step] == together.auxiliaryGradients[step]
      #expect(isSame && found[0].auxiliaryGradients[step].contains { $0 != 0 })
      #expect(found[1].auxiliaryGradients[step].allSatisfy { $0 == 0 })
    }
    // Where the gradient crosses the border, the first stage's is another.
    let crossing = example.runTogether(isCutOff: false).gradients[0]
    for (unit, owner) in zip(units, owners) {
      let isSame = crossing[unit.range] == together.gradients[0][unit.range]
      #expect(isSame == (owner == 1))
    }
    expectMessages(found, example, unit: networks.neighborUnit)
  }

  /// States upward, one message of parameters a step downward, and nothing else.
  private func expectMessages(
    _ found: [LocalCase.Steps], _ example: LocalCase, unit: Range<Int>
  ) {
    // Rows of the state's tensors, and a word for each of them.
    let video = 2 * example.configuration.tokenCount(frames: 2, height: 4, width: 4)
    let isVchitect = example.configuration.architecture == .vchitect
    // Vchitect-2.0 has a copy of the text for each of two frames.
    let text = 2 * example.textCount * (isVchitect ? 2 : 1)
    let tensors = example.testDescription.hasPrefix("HunyuanVideo, 1") ? 2 : 3
    let state = 8 * ((video + text + example.sampleCount) * example.configuration.width + tensors)
    func message(_ byteCount: Int, to peer: Int) -> TrafficLog.Entry {
      .init(
        name: "post", groupSize: 2, sentByteCount: byteCount, crossNodeByteCount: 0,
        peers: [peer])
    }
    let received = TrafficLog.Entry(
      name: "receive", groupSize: 2, sentByteCount: 0, crossNodeByteCount: 0, peers: [])
    let count = LocalCase.microbatchCount
    for step in 0..<LocalCase.stepCount {
      // The first stage waits for nothing in a pass, the last one for the state alone.
      #expect(
        found[0].messagesInPasses[step] == Array(repeating: message(state, to: 1), count: count))
      #expect(found[1].messagesInPasses[step] == Array(repeating: received, count: count))
      #expect(found[0].messagesBehindPasses[step] == [received])
      #expect(found[1].messagesBehindPasses[step] == [message(8 * unit.count, to: 0)])
    }
  }

  @Test(arguments: LocalCase.all)
  func `a stage has its neighbor's first block as it is after each step`(
    _ example: LocalCase
  ) throws {
    let found = try InProcessMesh.run(size: 2) { try example.run(on: $0) }
    let unit = LocalCase.Networks(example).neighborUnit
    let isSame = found[0].neighbors.last == Array(found[1].values[unit])
    #expect(isSame)
    let isNew = found[0].neighbors[0] != found[0].neighbors[1]
    #expect(isNew)
    // The stage itself computes with other weights there, which nobody trains.
    let isOther = found[0].neighbors.last != Array(found[0].values[unit])
    #expect(isOther)
  }

  @Test(arguments: [1, 3])
  func `the first stage learns as a network of its blocks and auxiliary layers does`(
    double: Int
  ) throws {
    let configuration = LocalCase.hunyuanVideo(double: double)
    let example = LocalCase(testDescription: "", configuration: configuration)
    let found = try InProcessMesh.run(size: 2) { try example.run(on: $0) }[0]
    let expected = example.truncated(configuration)
    let networks = LocalCase.Networks(example)
    var compared = 0
    for (set, gradient) in [
      (networks.auxiliary, found.auxiliaryGradients[0]), (networks.base, found.gradients[0]),
    ] {
      for entry in set.layout.entries where expected[entry.name]?.count == entry.range.count {
        // Outputs of the whole network are the last stage's; behind the border the truncated one trains, too.
        let elements = Array(gradient[entry.range])
        if elements.allSatisfy({ $0 == 0 }) { continue }
        #expect(elements == expected[entry.name], "\(entry.name)")
        compared += 1
      }
    }
    let own = networks.base.layout.units.filter { unit in
      found.gradients[0][unit.range].contains { $0 != 0 }
    }
    #expect(own.map(\.block).filter { !$0.isEmpty }.count == LocalCase.border)
    #expect(compared == own.reduce(4) { $0 + $1.entries.count })
  }
}
