// Pipelines of more stages than the models of LayoutTableTests have blocks: four and eight, also of ranks that share
// tokens or cut weights, bit for bit as without stages.

import Models
import Testing

@testable import Training

@Suite struct DeepPipelineTests {
  typealias Tokens = CombinedAxesTests.Tokens

  @Test(arguments: Architecture.allCases)
  func `four and eight stages of eight blocks do not change a bit`(architecture: Architecture)
    throws
  {
    func run(
      _ groups: Int, _ tokens: Tokens = Tokens(),
      _ change: (inout RunConfiguration) -> Void = { _ in }
    ) throws -> TrainedRun {
      try tokens.run(groups) {
        $0.model.architecture = architecture
        $0.model.doubleBlocks = architecture == .vchitect ? 8 : 3
        $0.model.singleBlocks = 5
        ($0.teach.steps, $0.distill.steps) = (1, 2)
        change(&$0)
      }
    }
    let alone = try run(1)
    for schedule in RunConfiguration.PipelineOrder.allCases {
      expect(
        try run(8) {
          ($0.mesh.stages, $0.mesh.schedule) = (.fixed(8), schedule)
        }, toEqual: alone, "eight stages, \(schedule)")
    }
    for replicas in [1, 2] {
      expect(
        try run(8) { ($0.mesh.stages, $0.mesh.dp) = (.fixed(4), .fixed(replicas)) }, toEqual: alone,
        "four stages, \(replicas) replicas")
    }
    for tokens in [Tokens(sp: 2), Tokens(ring: 2), Tokens(tp: 2)] {
      expect(
        try run(4, tokens) { $0.mesh.stages = .fixed(4) }, toEqual: try run(1, tokens),
        "four stages, \(tokens.testDescription)")
    }
  }
}
