// The simulation of Vchitect-2.0 against the plan of what the worker runs: parameters, operations, bytes between ranks
// and elements of a block's activations, for both forms of its block and both plans of sharing tokens.

import Autodiff
import MeshLayout
import Models
import Planning
import Testing

@testable import Training

struct VchitectSimulationTests {
  private func sizes(
    _ variant: VchitectConfiguration.BlockVariant, _ plan: SequencePlan = .spatial,
    blocks: Int = 3, frames: Int = 9
  ) throws -> WorkloadSizes {
    try WorkloadSizes(
      PlannedCase("simulated") {
        $0.model.architecture = .vchitect
        $0.model.variant = variant
        ($0.model.heads, $0.model.doubleBlocks) = (4, blocks)
        $0.model.textTokens = 8
        $0.mesh.sequencePlan = plan
        ($0.data.size, $0.data.shortSide, $0.data.frameCount) = (64, 64, frames)
      }.configuration)
  }

  @Test(arguments: VchitectConfiguration.BlockVariant.allCases)
  func `blocks have the parameters of the network`(
    variant: VchitectConfiguration.BlockVariant
  ) throws {
    let sizes = try sizes(variant)
    let model = SimulatedModel(sizes)
    var configuration = VchitectConfiguration()
    configuration.variant = variant
    (configuration.attentionHeadCount, configuration.attentionHeadWidth) = (4, 16)
    configuration.blockCount = 3
    (configuration.textEmbeddingWidth, configuration.pooledProjectionWidth) = (24, 16)
    let specifications = configuration.parameterSpecifications
    func count(_ specifications: [ParameterSpecification], _ block: Int) -> Int {
      specifications.filter { $0.block == "transformer_blocks.\(block)" }
        .reduce(0) { $0 + $1.shape.reduce(1, *) }
    }
    let factors = AdapterConfiguration(rank: 4, of: configuration)
      .parameterSpecifications(adapting: specifications)
    let adapted = (0..<3).map { Double(count(factors, $0)) }
    let all = adapted.reduce(0, +)
    #expect(model.blocks.map(\.parameterCount) == (0..<3).map { Double(count(specifications, $0)) })
    for (block, expected) in zip(model.blocks, adapted) {
      // Padding is spread over the blocks.
      let share = block.adapterCount / Double(sizes.adapterElementCount)
      #expect(abs(share - expected / all) < 1e-9)
    }
    #expect(model.parameterCount == Double(sizes.networkElementCount))
  }

  /// Tokens divide evenly. Cut weights are simulated as on paper, so they are left out.
  @Test(
    arguments: VchitectConfiguration.BlockVariant.allCases,
    [
      [.zero: 2, .sp: 2], [.sp: 4], [.zero: 2, .ring: 2], [.ring: 4], [.ring: 2, .sp: 2],
      [.ring: 2, .sp: 4],
    ] as [[Axis: Int]])
  func `bytes and operations are those of the plan`(
    variant: VchitectConfiguration.BlockVariant, degrees: [Axis: Int]
  ) throws {
    let shape = MeshShape(degrees)
    for plan in SequencePlan.allCases {
      for frames in [5, 9] {
        let sizes = try sizes(variant, plan, frames: frames)
        let costs = try CostModel.costs(of: sizes, shape: shape)
        let estimate = SimulatedRun(sizes, machine: MachineModel()).estimate(
          SimulatedLayout(shape: shape, ranksPerNode: 8), microbatchCount: sizes.microbatchCount)
        let (phase, step) = (costs.phases[0], try #require(estimate.teach))
        let activations = Double(phase.activationByteCountPerStep) / Double(shape.rankCount)
        #expect(
          abs(step.sentActivations - activations) < 1e-6 * activations,
          "\(plan), \(frames) frames: \(step.sentActivations) for \(activations)")
        let operations = phase.operationsPerStep.max() ?? 0
        let counted = step.compute * MachineModel().productRate(.fp32)
        // The optimizer's bytes are no operations.
        #expect(abs(counted - operations) < 0.15 * operations, "\(plan), \(frames) frames")
      }
    }
  }

  @Test(arguments: VchitectConfiguration.BlockVariant.allCases)
  func `a block keeps as many activations as are counted`(
    variant: VchitectConfiguration.BlockVariant
  ) throws {
    func peak(blocks: Int) throws -> Double {
      let costs = try CostModel.costs(of: sizes(variant, blocks: blocks), shape: MeshShape([:]))
      return Double(costs.phases[0].memory[0].peakByteCount(.base, .activations))
    }
    let model = SimulatedModel(try sizes(variant))
    let perBlock = (try peak(blocks: 7) - peak(blocks: 3)) / 4
    let counted = model.elementsOfBlock * model.hiddenElementCount * 4
    // Statistics of rows and heads come on top: numbers for each 16 elements here.
    #expect(perBlock > counted && perBlock < 1.1 * counted, "\(perBlock) for \(counted)")
  }
}
