// What an operation of the tape takes beside its kernels: the program around them, memory of the arena, gradients that
// change hands. Passes there and back of a network that is so small that its kernels take next to nothing, over the operations
// that the planner's twins count in one.

import Autodiff
import Basics
import DenseKernels
import Diffusion
import MeshLayout
import Models
import Planning
import Tensors

struct TapeProbe {
  /// Operations of a pass there and back.
  let operationCount: Double
  private let networks: Networks
  private let condition: Condition<Float>
  private let latents: Tensor<Float>
  private let arena: Arena

  /// Two blocks of either kind, eight tokens.
  private static var configuration: RunConfiguration {
    var configuration = RunConfiguration()
    (configuration.data.frameCount, configuration.data.size) = (5, 16)
    (configuration.model.heads, configuration.model.headWidth) = (1, 16)
    (configuration.model.doubleBlocks, configuration.model.singleBlocks) = (2, 2)
    (configuration.model.textTokens, configuration.model.textWidth) = (2, 8)
    configuration.model.pooledWidth = 8
    (configuration.batch.microbatches, configuration.batch.samples) = (1, 1)
    (configuration.teach.steps, configuration.distill.method) = (1, .euler)
    return configuration
  }

  /// - Throws: what the cost model throws.
  init() throws {
    let configuration = Self.configuration
    let costs = try CostModel.costs(of: WorkloadSizes(configuration), shape: MeshShape())
    operationCount = costs.phases[0].work[0].tapeOperationCount
    let arena = Arena()
    self.arena = arena
    networks = Networks(
      configuration.transformer, nullTokenCount: configuration.model.textTokens, arena: arena)
    networks.configuration.initialize(networks.base.parameters, seed: 0)
    let (model, booking) = (configuration.model, Booking(.common, .activations))
    func zeros(_ shape: [Int]) -> Tensor<Float> {
      Tensor(shape: shape, in: arena, booking: booking, zeroed: true)
    }
    condition = Condition(
      text: TextCondition(
        embeddings: zeros([model.textTokens, model.textWidth]), pooled: zeros([model.pooledWidth])))
    latents = zeros([1] + configuration.latentShape)
  }

  /// One pass there and back.
  func run() {
    _ = MicrobatchSum.gradients(
      of: [GradientTarget(networks.base.parameters)], over: 0..<1, arena: arena
    ) { _ in
      let tape = Tape<Float>(arena: arena, role: .base)
      let velocity = BoundDenoiser(networks.base, conditions: [condition])
        .velocity(of: Value(constant: latents), times: [0.5], on: tape)
      let term = FlowMatchingObjective().evaluate(
        prediction: velocity, clean: latents, noise: latents, on: tape)
      ObjectiveTerm.backward([(1, term)], on: tape)
    }
  }
}
