// One rank's networks and one run of each mode, made of the parts that the phases are made of:
// `TeachPhase` for train, `DistillPhase` for the W2SVD iteration. One microbatch a rank.

import Autodiff
import Basics
import DenseKernels
import Diffusion
import Exchange
import Models
import ProcessMesh
import Tensors
import Training

final class StepRun {
  /// Rank of the fake DiT's adapter.
  static let adapterRank = 32
  private static let guidance = 5.0
  private static let weakWeight = 0.25
  private static let learningRate = 1e-5

  let arena: Arena
  private let benchmark: StepBenchmark
  private let transport: any Transport
  private let networks: Networks
  private let latents: Tensor<Float>
  private let conditions: [Condition<Float>]
  private var optimizer: ShardedOptimizer?
  private var adapterOptimizer: ShardedOptimizer?
  /// Runs so far; addresses the random numbers.
  private var step = 0

  private var model: BenchmarkModel { benchmark.model }
  /// Parameters of the transformer, without our null text.
  var parameterCount: Int { model.configuration.parameterCount }

  init(_ benchmark: StepBenchmark, transport: any Transport) throws {
    self.benchmark = benchmark
    self.transport = transport
    let arena = Arena()
    self.arena = arena
    let model = benchmark.model
    networks = Networks(
      model.configuration, nullTokenCount: model.textTokenCount, arena: arena)
    let parameters = networks.base.parameters
    parameters.initialize(seed: 0, purpose: .benchmarks)
    // The zeros of a fresh DiT would leave most of the network without a gradient.
    for (index, specification) in parameters.specifications.enumerated()
    where specification.initialization == .zeros {
      let values = parameters[specification.name].value.buffer
      let stream = RandomStream(seed: 1, purpose: .benchmarks, sample: index)
      for element in 0..<values.count {
        values[element] = Float(0.04 * (stream.uniform(at: element) - 0.5))
      }
    }
    if let folder = model.folder {
      try Architecture.openFolder(folder).load(into: parameters)
    }
    let booking = Booking(.common, .activations)
    func normal(_ sample: Int, _ shape: [Int]) -> Tensor<Float> {
      normalTensor(
        (0..<shape[0]).map {
          RandomStream(
            seed: UInt64(2 + transport.rank), purpose: .benchmarks, step: $0, sample: sample)
        }, sampleShape: Array(shape.dropFirst()), in: arena, booking: booking)
    }
    let configuration = model.configuration
    latents = normal(0, [model.sampleCount] + model.latentShape)
    conditions = (0..<model.sampleCount).map { sample in
      Condition(
        text: TextCondition(
          embeddings: normal(
            3 * sample + 1, [model.textTokenCount, configuration.textEmbeddingWidth]),
          pooled: normal(3 * sample + 2, [1, configuration.pooledProjectionWidth])
            .reshaped([configuration.pooledProjectionWidth])))
    }
    let exchange = BucketExchange(
      transport: transport,
      allocate: { count in
        arena.allocate(Float.self, count: count, booking: Booking(.common, .exchange))
      })
    // Benchmarks run at stage 1, whose passes need no other ranks.
    let group = ShardGroup(transport: transport, exchange: exchange, arena: arena) { _ in
      trap("a pass that needs other ranks")
    }
    func optimizer(_ parameters: ParameterSet<Float>) -> ShardedOptimizer {
      ShardedOptimizer(
        ShardedParameters(parameters, group: group),
        configuration: .init(
          beta1: 0.9, beta2: 0.999, weightDecay: 0.01, clip: .infinity, ema: nil))
    }
    switch benchmark.mode {
    case .forward: break
    case .train: self.optimizer = optimizer(parameters)
    case .iteration:
      let generator = networks.addGenerator()
      generator.parameters.values.copy(from: parameters.values)
      self.optimizer = optimizer(generator.parameters)
      let adapter = networks.addAdapter(
        rank: Self.adapterRank, alpha: Double(Self.adapterRank), seed: 0)
      adapterOptimizer = optimizer(adapter.parameters)
    }
  }

  /// One run; returns its loss where there is one.
  func perform() throws -> Double? {
    defer { step += 1 }
    switch benchmark.mode {
    case .forward:
      forward()
      return nil
    case .train: return try train()
    case .iteration: return try iterate()
    }
  }

  // MARK: Modes

  private func forward() {
    let times = Array(repeating: 0.5, count: model.sampleCount)
    _ = BoundDenoiser(networks.base, conditions: conditions)
      .velocity(of: Value(constant: latents), times: times, on: tape(.base, isRecording: false))
  }

  private func train() throws -> Double? {
    var loss: Double?
    let gradients = gradients(of: networks.base.parameters) {
      loss = matchFlow(latents, by: networks.base, role: .base)
    }
    try update(optimizer, gradients)
    return loss
  }

  /// Generator turn, then critic turn on the generator's sample.
  private func iterate() throws -> Double? {
    guard let generator = networks.generator, let adapter = networks.adapter else { return nil }
    var sample = latents
    let gradients = gradients(of: generator.parameters) {
      let tape = tape(.generator)
      let x = Rollout(schedule: SamplingSchedule(stepCount: 4, shift: 5), source: .simulate)
        .generate(
          depth: 0, noise: noise(0), truth: nil,
          generator: BoundDenoiser(
            generator, conditions: conditions, recomputedShare: benchmark.recompute ? 1 : 0),
          on: tape
        ) { _ in noise(0) }
      sample = x.tensor
      match(x, adapter: adapter, on: tape)
    }
    try update(optimizer, gradients)

    var loss: Double?
    let criticGradients = self.gradients(of: adapter.parameters) {
      loss = matchFlow(
        sample, by: networks.base, adapter: Adapter(adapter, weight: 1), role: .fake)
    }
    try update(adapterOptimizer, criticGradients)
    return loss
  }

  // MARK: Parts

  /// Distribution matching of the generator's sample into its parameters.
  private func match(_ x: Value<Float>, adapter: AdapterSet<Float>, on tape: Tape<Float>) {
    let weak = Adapter(adapter, weight: Self.weakWeight)
    let result = DistributionMatching().evaluate(
      generated: x, noise: noise(1), times: times,
      fake: BoundDenoiser(
        networks.base, conditions: conditions, adapter: Adapter(adapter, weight: 1)),
      real: GuidedDenoiser<Float>(
        conditional: BoundDenoiser(networks.base, conditions: conditions, adapter: weak),
        unconditional: BoundDenoiser(
          networks.base, conditions: conditions.map { _ in Condition() }, adapter: weak),
        scale: Self.guidance), on: tape)
    ObjectiveTerm.backward([(1, result.term)], on: tape)
  }

  /// Flow matching of a network to clean latents.
  private func matchFlow(
    _ clean: Tensor<Float>, by network: ConditionedTransformer<Float>,
    adapter: Adapter<Float>? = nil, role: MemoryRole
  ) -> Double {
    let noise = noise(2)
    let tape = tape(role)
    let noisy = FlowMatching.noised(
      clean, noise: noise, times: times, in: arena, booking: Booking(role, .activations))
    let velocity = BoundDenoiser(
      network, conditions: conditions, adapter: adapter,
      recomputedShare: benchmark.recompute ? 1 : 0
    ).velocity(of: Value(constant: noisy), times: times, on: tape)
    let term = FlowMatchingObjective().evaluate(
      prediction: velocity, clean: clean, noise: noise, on: tape)
    ObjectiveTerm.backward([(1, term)], on: tape)
    return term.loss
  }

  private func gradients(
    of parameters: ParameterSet<Float>, _ body: () -> Void
  ) -> Buffer<Float> {
    MicrobatchSum.gradients(
      of: [GradientTarget(parameters)],
      over: transport.rank..<(transport.rank + 1), arena: arena
    ) { _ in body() }[0]
  }

  private func update(_ optimizer: ShardedOptimizer?, _ gradients: Buffer<Float>) throws {
    _ = try optimizer?.step(
      gradientSum: gradients, microbatchCount: transport.size, learningRate: Self.learningRate)
  }

  private func tape(_ role: MemoryRole, isRecording: Bool = true) -> Tape<Float> {
    Tape(arena: arena, role: role, precision: benchmark.precision, isRecording: isRecording)
  }

  /// Times between the ends, other ones for each run.
  private var times: [Double] {
    (0..<model.sampleCount).map { sample in
      0.05 + 0.9
        * RandomStream(seed: 3, purpose: .benchmarks, step: step, sample: sample).uniform(at: 0)
    }
  }

  private func noise(_ use: Int) -> Tensor<Float> {
    normalTensor(
      (0..<model.sampleCount).map {
        RandomStream(
          seed: UInt64(4 + transport.rank), purpose: .benchmarks, step: step,
          sample: 3 * $0 + use)
      }, sampleShape: model.latentShape, in: arena, booking: Booking(.common, .activations))
  }
}
