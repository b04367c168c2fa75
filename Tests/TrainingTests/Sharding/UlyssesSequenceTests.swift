// A network whose tokens are shared computes what one that has them all computes: outputs everywhere, and
// parameter gradients as a sum over the parts (checks 6 and 8 of the specification of Vchitect-2.0, §10).

import Autodiff
import Basics
import DenseKernels
import Exchange
import Foundation
import Models
import ProcessMesh
import Tensors
import TestSupport
import Testing

@testable import Training

struct UlyssesSequenceTests {
  /// A network in Float64 with gates open, its inputs, and what a loss pulls at.
  private struct Example {
    let configuration: HunyuanVideoConfiguration
    let sampleCount: Int
    let textCount: Int
    let masked: Bool
    let recompute: Bool
    /// 3 × 3 × 5 patches: no number of parts divides them.
    let latentShape = [3, 3, 6, 10]

    init(sampleCount: Int, textCount: Int, masked: Bool, recompute: Bool) {
      var configuration = HunyuanVideoConfiguration()
      (configuration.inChannels, configuration.outChannels) = (3, 3)
      (configuration.attentionHeadCount, configuration.attentionHeadWidth) = (6, 8)
      (configuration.doubleBlockCount, configuration.singleBlockCount) = (1, 2)
      configuration.refinerBlockCount = 1
      (configuration.textEmbeddingWidth, configuration.pooledProjectionWidth) = (5, 4)
      configuration.ropeAxesWidths = [2, 2, 4]
      configuration.guidanceEmbeds = false
      self.configuration = configuration
      self.sampleCount = sampleCount
      self.textCount = textCount
      self.masked = masked
      self.recompute = recompute
    }

    /// The output, and the gradient of ⟨output, seed⟩ by the flat vector of the parameters.
    func run(sequence: (any SequenceParallel<Double>)?) -> (output: [Double], gradient: [Double]) {
      let arena = Arena()
      let booking = Booking(.base, .activations)
      let parameters = ParameterSet<Double>(
        configuration.parameterSpecifications, in: arena, role: .base)
      parameters.values.copy(from: draws(1, parameters.values.count).map { 0.15 * $0 })
      let gradients = arena.allocate(
        Double.self, count: parameters.values.count, booking: Booking(.base, .gradients),
        zeroed: true)
      parameters.bindGradients(to: gradients)
      func input(_ number: Int, _ shape: [Int]) -> Value<Double> {
        Value(
          constant: Tensor(
            draws(number, shape.reduce(1, *)), shape: shape, in: arena, booking: booking))
      }
      let latents = [sampleCount] + latentShape
      var mask = [UInt8](repeating: 1, count: sampleCount * textCount)
      if masked { mask[textCount - 1] = 0 }
      let tape = Tape<Double>(arena: arena, role: .base)
      let output = HunyuanVideoTransformer(configuration, parameters: parameters).forward(
        tape: tape,
        TransformerInputs(
          hiddenStates: input(2, latents), timestep: (0..<sampleCount).map { 300 + Double($0) },
          encoderHiddenStates: input(3, [sampleCount, textCount, 5]), encoderAttentionMask: mask,
          pooledProjections: input(4, [sampleCount, 4])),
        recompute: recompute, sequence: sequence)
      tape.backward([(output, input(5, latents).tensor)])
      parameters.completeGradients()
      return (output.tensor.array, gradients.array)
    }

    private func draws(_ number: Int, _ count: Int) -> [Double] {
      RandomStream(seed: 11, purpose: .tests, step: number).normals(count: count).map(Double.init)
    }
  }

  private func distance(_ found: [Double], _ expected: [Double]) -> Double {
    let scale = expected.map(abs).max() ?? 1
    return zip(found, expected).reduce(0) { max($0, abs($1.0 - $1.1)) } / scale
  }

  @Test(arguments: [1, 2, 3, 6], [false, true])
  func `outputs and gradients are those of one rank`(degree: Int, recompute: Bool) throws {
    for (sampleCount, textCount, masked) in [(1, 7, true), (2, 4, false), (1, 2, true)] {
      let example = Example(
        sampleCount: sampleCount, textCount: textCount, masked: masked, recompute: recompute)
      let alone = example.run(sequence: nil)
      #expect(alone.gradient.contains { $0 != 0 })
      let parts = try InProcessMesh.run(size: degree) { transport in
        var failure: (any Error)?
        let sequence = UlyssesSequence<Double>(TokenExchange(transport: transport)) { body in
          do { try body() } catch { failure = error }
        }
        let result = example.run(sequence: sequence)
        if let failure { throw failure }
        return result
      }
      for part in parts { #expect(distance(part.output, alone.output) < 1e-12) }
      let sum = alone.gradient.indices.map { index in
        parts.reduce(0) { $0 + $1.gradient[index] }
      }
      #expect(distance(sum, alone.gradient) < 1e-12, "\(degree) parts of \(example)")
    }
  }

  /// Whole training steps in fp32: the losses and weights of one rank up to rounding.
  @Test(arguments: [(2, 2), (4, 2), (4, 4), (8, 2)])
  func `a run with shared tokens follows the run of one rank`(ranks: Int, degree: Int) throws {
    func run(_ ranks: Int, sp: Int) throws -> (losses: [Double], weights: [Float]) {
      let configuration = TinyRun.configuration {
        $0.model.heads = 4
        $0.mesh.sp = .fixed(sp)
        $0.compute.precision = .fp32
        $0.distill.guidance = 2
      }
      return try withTemporaryFolder { folder in
        let prepared = try TinyRun.prepared(in: folder)
        let path = folder.path + "/run"
        return try InProcessMesh.run(size: ranks) { transport in
          let context = try RunContext(
            configuration: configuration, folder: RunFolder(path), transport: transport,
            shape: try Coordinator.plan(configuration, rankCount: ranks).shape,
            reporter: Reporter(), isStopRequested: { false })
          let networks = Networks(
            configuration.transformer, nullTokenCount: configuration.model.textTokens,
            arena: context.arena)
          networks.base.parameters.initialize(seed: 1)
          let batches = TrainingBatches(prepared, context: context, texts: nil, firstCounter: 0)
          let losses = try context.agreeOnStep(losses: context.microbatches.map(Double.init)).losses
          try TeachPhase(context: context, networks: networks, batches: batches)
            .run(from: 0) { _, _ in }
          try DistillPhase(context: context, networks: networks, batches: batches)
            .run(from: 0) { _, _ in }
          let generator = try #require(networks.generator)
          return (losses, networks.base.parameters.values.array + generator.parameters.values.array)
        }[0]
      }
    }
    let alone = try run(1, sp: 1)
    let shared = try run(ranks, sp: degree)
    // One rank of each group speaks for its microbatches: each is counted once, in order.
    #expect(alone.losses == [0, 1, 2, 3] && shared.losses == alone.losses)
    let scale = alone.weights.reduce(0) { max($0, abs($1)) }
    let worst = zip(alone.weights, shared.weights).reduce(0) { max($0, abs($1.0 - $1.1)) }
    #expect(worst <= 1e-4 * scale, "weights differ by \(worst) of \(scale)")
    // Sums of other parts have other bits: the tokens were shared.
    #expect(alone.weights != shared.weights)
  }
}
