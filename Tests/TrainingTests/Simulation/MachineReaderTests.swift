import Evaluation
import Exchange
import Foundation
import MeshLayout
import Planning
import TestSupport
import Testing

@testable import Training

struct MachineReaderTests {
  /// Writes texts to files of a temporary folder and reads a machine from them.
  private func read(
    file: String? = nil, links: String? = nil, overrides: [String] = []
  ) throws -> MachineModel {
    try withTemporaryFolder { folder in
      func path(_ name: String, _ text: String?) throws -> String? {
        guard let text else { return nil }
        let url = folder.appending(path: name)
        try text.write(to: url, atomically: true, encoding: .utf8)
        return url.path
      }
      return try MachineReader.read(
        file: path("machine.yaml", file), links: path("links.json", links), overrides: overrides)
    }
  }

  @Test func `a file is YAML or JSON, links and overrides are stronger`() throws {
    let yaml = "bandwidthBetween: 25e9\nranksPerNode: 8\nlatencyInside: 1e-6\n"
    let links = """
      2 ranks
      {"benchmark":"collectives","machine":{"latencyInside":3e-06,"bandwidthInside":2e9},"ranks":2}
      """
    let machine = try read(file: yaml, links: links, overrides: ["ranksPerNode=4"])
    #expect(machine.bandwidthBetween == 25e9 && machine.largestRankCountOfNode == 4)
    #expect(machine.latencyInside == 3e-6 && machine.bandwidthInside == 2e9)
    #expect(machine.memoryBandwidth == MachineModel().memoryBandwidth)
    let json = try read(file: "{\"ranksPerNode\": 2}")
    #expect(json.largestRankCountOfNode == 2)
  }

  @Test func `all problems are told at once`() {
    let error = #expect(throws: JobError.self) {
      try read(
        file: "ranksPerNode: 2.5\nspeed: 3\nlatencyInside: [1, 2]\n",
        overrides: ["memoryPerNode", "bandwidthInside=fast", "stepEfficiency=2"])
    }
    #expect(error?.exitCode == .configuration)
    for part in [
      "6 problems", "ranksPerNode: is 2.5, it must be a whole number", "speed: there is no such",
      "latencyInside: expected a number, found a list", "memoryPerNode: write it as key=value",
      "found 'fast'", "stepEfficiency: is 2.0, it must be 0.01 to 1.0",
    ] { #expect(error?.message.contains(part) == true, "\(part): \(error?.message ?? "")") }
  }

  @Test func `a simulation keeps every axis and placement that a configuration fixes`() throws {
    var configuration = RunConfiguration()
    let sizes = try WorkloadSizes(configuration)
    func rules() -> LayoutRules { configuration.layoutRules(sizes) }
    #expect(rules().fixed == [:] && rules().fixedZeroStage == nil && rules().overlaps)
    #expect(rules().colocatesRoles && rules().splitsRoles && rules().generatorDegrees == [:])
    (configuration.mesh.dp, configuration.mesh.zero) = (.fixed(2), .fixed(3))
    (configuration.mesh.ring, configuration.mesh.sp) = (.fixed(5), .fixed(7))
    (configuration.mesh.tp, configuration.mesh.stages) = (.fixed(11), .fixed(1))
    configuration.mesh.zeroStage = .fixed(3)
    configuration.exchange.overlap = .off
    #expect(rules().fixed == [.dp: 2, .zero: 3, .ring: 5, .sp: 7, .tp: 11, .stages: 1])
    #expect(rules().fixedZeroStage == .parameters && !rules().overlaps)
    configuration.mesh.placement = .split
    (configuration.mesh.generatorDp, configuration.mesh.generatorRing) = (.fixed(2), .fixed(3))
    (configuration.mesh.generatorSp, configuration.mesh.generatorTp) = (.fixed(5), .fixed(7))
    (configuration.mesh.generatorStages, configuration.mesh.generatorRanks) = (.fixed(1), .fixed(4))
    configuration.mesh.generatorZeroStage = .fixed(2)
    #expect(!rules().colocatesRoles && rules().splitsRoles)
    #expect(rules().generatorDegrees == [.dp: 2, .ring: 3, .sp: 5, .tp: 7, .stages: 1])
    #expect(rules().generatorRankCount == 4 && rules().generatorZeroStage == .gradients)
    configuration.mesh.placement = .colocated
    #expect(rules().colocatesRoles && !rules().splitsRoles)
  }

  @Test func `a simulation has the layouts that the worker takes with the configuration`() throws {
    func layouts(
      _ change: (inout RunConfiguration) -> Void = { _ in }
    ) throws -> [SimulatedLayout] {
      var configuration = RunConfiguration()
      (configuration.model.heads, configuration.batch.microbatches) = (8, 4)
      change(&configuration)
      #expect(configuration.validate().isEmpty)
      let sizes = try WorkloadSizes(configuration)
      return SimulatedRun(sizes, machine: MachineModel())
        .layouts(
          rankCount: 4, microbatchCount: configuration.batch.microbatches,
          configuration.layoutRules(sizes))
    }
    let all = try layouts()
    for axis in [Axis.dp, .zero, .ring, .sp, .tp, .stages] {
      #expect(all.contains { $0.shape[axis] > 1 }, "\(axis)")
    }
    #expect(all.contains { $0.schedule == .gPipe })
    // Sums in fixed blocks go round no ring.
    let canonical = try layouts { $0.mesh.sums = .canonical }
    #expect(canonical.allSatisfy { $0.shape[.ring] == 1 })
    #expect(canonical.contains { $0.shape[.tp] > 1 && $0.shape[.sp] > 1 })
    // GPipe keeps all microbatches in flight, so that there may not be too many.
    let many = try layouts { $0.batch.microbatches = 2_048 }
    #expect(many.contains { $0.stageCount > 1 })
    #expect(many.allSatisfy { $0.schedule != .gPipe })
    // A method with one trained network has no roles to split.
    #expect(all.contains { $0.shape.generatorRanks != nil })
    #expect(try layouts { $0.distill.method = .lcm }.allSatisfy { $0.shape.generatorRanks == nil })
  }

  @Test func `a file that is not there is the user's to mend`() {
    let error = #expect(throws: JobError.self) {
      try MachineReader.read(file: "/nowhere.yaml", links: "/nowhere.json")
    }
    #expect(error?.message.contains("--machine: /nowhere.yaml cannot be read") == true)
    #expect(error?.message.contains("--links: /nowhere.json cannot be read") == true)
  }

  @Test func `the preset has the sizes of the specification`() {
    let run = SimulatedRun(
      SimulationPreset.hunyuanVideo13B.sizes, machine: MachineModel(), state: .mixed,
      precision: .bf16)
    // specs/w2svd.md, §4: 12.82e9 parameters, 67,320 and 256 tokens, 4.29 PFLOP a forward pass.
    #expect(abs(run.work.model.parameterCount - 12.82e9) < 0.01e9)
    #expect(run.work.model.tokenCount == 67_576)
    #expect(abs(run.work.model.forwardOperationCount - 4.29e15) < 0.01e15)
    // Block inputs alone: 24.9 GB a sample.
    let kept = 60 * run.work.model.hiddenElementCount * 2
    #expect(abs(kept - 24.9e9) < 0.05e9)
    // A generator turn costs 7 forward passes (4 with recomputation, a fake and two real ones), a critic turn a
    // rollout, where it does not follow one, and 3.8: attention's way back is two, products' one.
    let passes = run.operationCount(microbatchCount: 1) / run.work.model.forwardOperationCount
    #expect(abs(passes - (7 + 3.8 + 4 * 4.8) / 5) < 0.1)
  }

  @Test func `a report holds every number with its origin and a picture of three panels`() throws {
    let study = ScalingStudy(
      SimulatedRun(try WorkloadSizes(RunConfiguration()), machine: MachineModel()),
      rankCounts: [1, 8], nodeMemories: [1e9])
    let report = SimulationReport(study, model: "a <model>", origins: ["latencyInside": "here"])
    #expect(report.machine.count == MachineOption.all.count)
    #expect(report.machine["latencyInside"]?.origin == "here")
    #expect(report.curves.count == 2 && report.curves[0].points.map(\.rankCount) == [1, 8])
    #expect(report.text.contains("strong scaling, 8 microbatches a step"))
    let svg = report.chart.svg
    #expect(svg.hasPrefix("<svg ") && svg.contains("a &lt;model&gt;"))
    #expect(svg.components(separatedBy: "<g ").count == 4 && !svg.contains("nan"))
    #expect(
      svg.components(separatedBy: "<text").count
        == svg.components(separatedBy: "</text>").count)
  }
}
