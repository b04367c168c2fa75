import Checkpoints
import Exchange
import Foundation
import MeshLayout
import Models
import Planning
import TestSupport
import Testing

@testable import Training

@Suite struct CoordinatorTests {
  @Test(arguments: Architecture.allCases)
  func `every legal layout is listed where that is asked for, and the same one taken`(
    architecture: Architecture
  ) throws {
    let table = TableLayout.all(architecture, ranks: 4)
    var open = table[0].configuration
    open.mesh = RunConfiguration().mesh
    let usual = try Coordinator.plan(open, rankCount: 4)
    let plan = try Coordinator.plan(open, rankCount: 4, listsAll: true)
    #expect(plan.shape == usual.shape && plan.reason == usual.reason)
    let shapes = plan.candidates.map(\.shape)
    #expect(Set(shapes).count == shapes.count)
    // Those that somebody asks for by their keys; the table has some of the numbers of generator ranks.
    let asked = Set(table.flatMap(\.shapes))
    #expect(asked.isSubset(of: shapes))
    #expect(Set(shapes.filter { $0.generatorRanks == nil }).isSubset(of: asked))
    for candidate in plan.candidates {
      #expect(candidate.accounts.contains { $0.role == .generator && $0.peakByteCount > 0 })
      #expect(Set(candidate.sentByteCountPerStep.keys) == ["teach", "distill"])
    }
  }

  @Test func `a plan says whether the memory suffices`() throws {
    var configuration = PlannedCase("stored") {
      $0.mesh.zeroStage = .fixed(1)
      // One layout, so that none is looked for that takes less.
      ($0.mesh.sp, $0.mesh.ring, $0.mesh.stages) = (.fixed(1), .fixed(1), .fixed(1))
      $0.mesh.placement = .colocated
    }.configuration
    let peak = try #require(
      try Coordinator.leastByteCounts(of: configuration, rankCount: 2)[MeshShape([.zero: 2])])
    configuration.mesh.memoryPerRank = peak
    let enough = try Coordinator.plan(configuration, rankCount: 2)
    configuration.mesh.memoryPerRank = peak - 1
    let short = try Coordinator.plan(configuration, rankCount: 2)
    #expect(enough.fits && !short.fits)
    #expect(short.text.contains("does not fit"))
  }

  @Test func `of the layouts the first that keeps within the limit is taken`() throws {
    var configuration = PlannedCase("wide") {
      $0.model.singleBlocks = 6
      // A block more in memory is much of a network of seven.
      $0.exchange.overlap = .off
    }.configuration
    let free = try Coordinator.plan(configuration, rankCount: 4)
    #expect(free.shape == MeshShape([.zero: 4]) && free.problem == nil)
    let stages = free.candidates.filter { $0.shape[.sp] == 1 }
    let least = try Coordinator.leastByteCounts(of: configuration, rankCount: 4)
    let peaks = stages.map { least[$0.shape] ?? 0 }
    #expect(stages.map(\.shape.zeroStage) == ZeroStage.allCases)
    #expect(peaks[0] > peaks[1] && peaks[1] > peaks[2])
    for (stage, peak) in zip(ZeroStage.allCases, peaks) {
      configuration.mesh.memoryPerRank = peak
      let plan = try Coordinator.plan(configuration, rankCount: 4)
      #expect(plan.shape == MeshShape([.zero: 4], zeroStage: stage) && plan.fits)
    }
    configuration.mesh.memoryPerRank = 1_000
    let plan = try Coordinator.plan(configuration, rankCount: 4)
    #expect(plan.problem?.contains("mesh.memoryPerRank is 1000, but the leanest layout") == true)
  }

  @Test func `a plan of the 13 B model allocates nothing and needs tens of gigabytes`() throws {
    var configuration = RunConfiguration()
    configuration.model.heads = 24
    configuration.model.headWidth = 128
    configuration.model.doubleBlocks = 20
    configuration.model.singleBlocks = 40
    configuration.model.refinerBlocks = 2
    configuration.model.recompute = true
    let sizes = try WorkloadSizes(configuration)
    #expect(sizes.networkElementCount > 12_000_000_000)
    let plan = try Coordinator.plan(configuration, rankCount: 8)
    #expect(plan.costs.peakByteCountPerRank > 2 * 4 * sizes.networkElementCount)
    let leanest = plan.candidates.map(\.peakByteCountPerRank).min() ?? 0
    #expect(leanest < 4 * sizes.networkElementCount)
  }

  @Test func `a plan survives JSON`() throws {
    let plan = try Coordinator.plan(PlannedCase("stored").configuration, rankCount: 3)
    let decoded = try JSONDecoder().decode(RunPlan.self, from: JSONEncoder().encode(plan))
    #expect(decoded.costs == plan.costs && decoded.shape == plan.shape)
    #expect(decoded.text == plan.text)
  }

  /// The keys of the problems that a plan of a changed configuration ends with.
  private func problems(_ change: (inout RunConfiguration) -> Void) throws -> [String] {
    var configuration = PlannedCase("stored").configuration
    change(&configuration)
    do {
      _ = try Coordinator.plan(configuration, rankCount: 1)
      return []
    } catch let error as ConfigurationError {
      return error.problems.map(\.key)
    }
  }

  @Test func `a plan of sizes that cannot be read is refused`() throws {
    try withTemporaryFolder { folder in
      #expect(try problems { $0.model.checkpoint = folder.path } == ["model.checkpoint"])
      #expect(try problems { $0.model.checkpoint = "/nowhere" } == ["model.checkpoint"])
      #expect(try problems { $0.data.text = "/nowhere.safetensors" } == ["data.text"])
      let file = folder.appending(path: "texts.safetensors")
      try Data("no tensors".utf8).write(to: file)
      #expect(try problems { $0.data.text = file.path } == ["data.text"])
    }
  }

  @Test func `the texts of a file count in the plan, and must have the widths of the model`() throws
  {
    try withTemporaryFolder { folder in
      let file = folder.appending(path: "texts.safetensors")
      let tensors = [("encoder_hidden_states", [2, 7, 24]), ("pooled_projections", [2, 16])]
      let writer = try SafetensorsWriter(
        creating: file, tensors: tensors.map { TensorDeclaration($0, .float32, shape: $1) })
      for (name, shape) in tensors {
        try writer.append([Float](repeating: 1, count: shape.reduce(1, *)), to: name)
      }
      _ = try writer.finish()
      var configuration = PlannedCase("stored").configuration
      configuration.data.text = file.path
      let sizes = try WorkloadSizes(configuration)
      #expect(sizes.network.textTokenCount == 7)
      #expect(sizes.storedTextElementCounts == [7 * 24, 16, 7 * 24, 16])
      #expect(
        try problems {
          $0.data.text = file.path
          $0.model.textWidth = 25
        } == ["data.text"])
    }
  }
}
