import Autodiff
import Checkpoints
import Diffusion
import Exchange
import Foundation
import MeshLayout
import Models
import Planning
import ProcessMesh
import Tensors
import TestSupport
import Testing
import VideoData

@testable import Training

/// A case of the comparison between the plan and the ledger.
struct PlannedCase: Sendable, CustomTestStringConvertible {
  let testDescription: String
  let rankCount: Int
  let configuration: RunConfiguration

  init(
    _ name: String, ranks rankCount: Int = 1, _ change: (inout RunConfiguration) -> Void = { _ in }
  ) {
    var configuration = RunConfiguration()
    configuration.data.frameCount = 9
    configuration.data.size = 32
    configuration.data.shortSide = 32
    configuration.model.heads = 2
    configuration.model.headWidth = 16
    configuration.model.doubleBlocks = 2
    configuration.model.singleBlocks = 2
    configuration.model.textTokens = 3
    configuration.model.textWidth = 24
    configuration.model.pooledWidth = 16
    configuration.batch.microbatches = 4
    configuration.teach.steps = 2
    configuration.distill.steps = 3
    configuration.distill.criticRatio = 2
    configuration.distill.loraRank = 4
    configuration.distill.discriminatorWidth = 32
    change(&configuration)
    testDescription = "\(name), \(rankCount) ranks"
    self.rankCount = rankCount
    self.configuration = configuration
  }

  /// Blocks enough, and tokens enough for their inputs to go.
  private static func offload(_ configuration: inout RunConfiguration) {
    configuration.model.recompute = true
    configuration.model.offload = true
    configuration.model.singleBlocks = 7
    (configuration.data.size, configuration.data.shortSide) = (64, 64)
    configuration.batch.samples = 3
  }

  static let all = [
    PlannedCase("stored"),
    PlannedCase("stored", ranks: 2),
    PlannedCase("stored", ranks: 4),
    PlannedCase("recomputed") { $0.model.recompute = true },
    PlannedCase("recomputed", ranks: 2) { $0.model.recompute = true },
    PlannedCase("half of the blocks recomputed") {
      $0.model.recompute = true
      $0.model.recomputedShare = 0.5
    },
    PlannedCase("many text tokens, three samples") {
      $0.model.textTokens = 37
      $0.batch.samples = 3
    },
    PlannedCase("uneven shares", ranks: 3) { $0.batch.microbatches = 8 },
    PlannedCase("all terms", ranks: 2) {
      $0.distill.rollout = .data
      $0.distill.lambdaGroundTruth = 0.5
      $0.distill.lambdaAdversarial = 0.1
      $0.distill.guidance = 3
      $0.model.guidanceEmbedding = true
    },
    PlannedCase("all terms, recomputed") {
      $0.distill.lambdaAdversarial = 0.1
      $0.model.recompute = true
      $0.model.doubleBlocks = 1
      $0.model.singleBlocks = 4
    },
    PlannedCase("wide and short") {
      $0.model.heads = 4
      $0.model.headWidth = 32
      $0.data.frameCount = 5
      $0.batch.samples = 1
    },
    PlannedCase("inputs of blocks in a file") { offload(&$0) },
    PlannedCase("inputs of blocks in a file, shared tokens", ranks: 4) {
      offload(&$0)
      $0.mesh.sp = .fixed(2)
      $0.distill.guidance = 3
    },
    PlannedCase("inputs of half of the blocks in a file, stage 3", ranks: 2) {
      offload(&$0)
      $0.model.recomputedShare = 0.5
      $0.mesh.zeroStage = .fixed(3)
      $0.distill.lambdaAdversarial = 0.1
    },
    PlannedCase("weights not packed", ranks: 2) { $0.compute.packedWeights = .off },
    PlannedCase("DMD2") { $0.distill.method = .dmd2 },
    PlannedCase("LCM", ranks: 2) { $0.distill.method = .lcm },
    PlannedCase("shared tokens", ranks: 2) { $0.mesh.sp = .fixed(2) },
    PlannedCase("shared tokens", ranks: 4) { $0.mesh.sp = .fixed(2) },
    PlannedCase("shared tokens, recomputed", ranks: 4) {
      $0.mesh.sp = .fixed(2)
      $0.model.recompute = true
      $0.distill.guidance = 3
    },
    PlannedCase("more parts than text tokens", ranks: 4) {
      $0.model.heads = 4
      $0.mesh.sp = .fixed(4)
      $0.model.textTokens = 2
      $0.batch.samples = 1
    },
    PlannedCase("stage 2", ranks: 2) { $0.mesh.zeroStage = .fixed(2) },
    PlannedCase("stage 2, all terms, recomputed", ranks: 4) {
      $0.mesh.zeroStage = .fixed(2)
      $0.distill.lambdaAdversarial = 0.1
      $0.distill.guidance = 3
      $0.model.recompute = true
    },
    PlannedCase("stage 3", ranks: 2) { $0.mesh.zeroStage = .fixed(3) },
    PlannedCase("stage 3, recomputed", ranks: 4) {
      $0.mesh.zeroStage = .fixed(3)
      $0.model.recompute = true
    },
    PlannedCase("stage 3, all terms", ranks: 4) {
      $0.mesh.zeroStage = .fixed(3)
      $0.distill.lambdaAdversarial = 0.1
      $0.distill.guidance = 3
      $0.distill.alphaWeak = 0
    },
    PlannedCase("replicas", ranks: 4) { $0.mesh.dp = .fixed(4) },
    PlannedCase("replicas of shards", ranks: 4) {
      $0.mesh.dp = .fixed(2)
      $0.distill.lambdaAdversarial = 0.1
    },
    PlannedCase("replicas at stage 3", ranks: 4) {
      $0.mesh.dp = .fixed(2)
      $0.mesh.zeroStage = .fixed(3)
    },
    PlannedCase("stage 3 with LCM", ranks: 2) {
      $0.mesh.zeroStage = .fixed(3)
      $0.distill.method = .lcm
    },
    PlannedCase("stage 3 with shared tokens", ranks: 4) {
      $0.mesh.zeroStage = .fixed(3)
      $0.mesh.sp = .fixed(2)
    },
    PlannedCase("a ring", ranks: 2) { $0.mesh.ring = .fixed(2) },
    PlannedCase("a ring of three, uneven", ranks: 3) {
      $0.mesh.ring = .fixed(3)
      $0.batch.samples = 3
    },
    PlannedCase("a ring, recomputed", ranks: 4) {
      $0.mesh.ring = .fixed(2)
      $0.model.recompute = true
      $0.distill.guidance = 3
    },
    PlannedCase("a ring of groups", ranks: 4) {
      $0.mesh.ring = .fixed(2)
      $0.mesh.sp = .fixed(2)
    },
    PlannedCase("a ring of groups, twice", ranks: 8) {
      $0.mesh.ring = .fixed(2)
      $0.mesh.sp = .fixed(2)
      $0.model.textTokens = 5
    },
    PlannedCase("cut weights", ranks: 2) { $0.mesh.tp = .fixed(2) },
    PlannedCase("cut weights", ranks: 4) { $0.mesh.tp = .fixed(2) },
    PlannedCase("cut weights, recomputed, many samples", ranks: 4) {
      $0.mesh.tp = .fixed(2)
      $0.model.recompute = true
      $0.distill.guidance = 3
      $0.batch.samples = 3
    },
    PlannedCase("cut weights of replicas", ranks: 4) {
      $0.mesh.tp = .fixed(2)
      $0.mesh.dp = .fixed(2)
      $0.distill.alphaWeak = 0
    },
    PlannedCase("weights cut in four, fewer text tokens", ranks: 4) {
      $0.model.heads = 4
      $0.model.textTokens = 2
      $0.mesh.tp = .fixed(4)
    },
    PlannedCase("weights cut in three", ranks: 6) {
      $0.model.heads = 3
      $0.mesh.tp = .fixed(3)
      $0.batch.samples = 1
    },
    PlannedCase("cut weights of one block", ranks: 4) {
      $0.model.doubleBlocks = 1
      $0.model.singleBlocks = 0
      $0.mesh.tp = .fixed(2)
    },
    PlannedCase("cut weights inside a ring of groups", ranks: 8) {
      $0.model.heads = 4
      $0.mesh.tp = .fixed(2)
      $0.mesh.ring = .fixed(2)
      $0.mesh.sp = .fixed(2)
    },
    PlannedCase("LCM with cut weights", ranks: 4) {
      $0.distill.method = .lcm
      $0.mesh.tp = .fixed(2)
    },
    PlannedCase("LCM with a ring", ranks: 2) {
      $0.distill.method = .lcm
      $0.mesh.ring = .fixed(2)
    },
    PlannedCase("LCM with shared tokens", ranks: 2) {
      $0.distill.method = .lcm
      $0.mesh.sp = .fixed(2)
    },
  ]

  /// The same of Vchitect-2.0, in both forms of its block and by both plans of sharing tokens.
  static let vchitect: [PlannedCase] = {
    func planned(
      _ name: String, ranks: Int = 1, sp: Int = 1, _ plan: SequencePlan = .spatial,
      _ change: (inout RunConfiguration) -> Void = { _ in }
    ) -> PlannedCase {
      PlannedCase("Vchitect, \(name)", ranks: ranks) {
        $0.model.architecture = .vchitect
        $0.model.heads = 4
        $0.mesh.sp = .fixed(sp)
        $0.mesh.sequencePlan = plan
        change(&$0)
      }
    }
    let whole = [
      planned("stored"),
      planned("stored", ranks: 2),
      planned("form v1") { $0.model.variant = .v1 },
      planned("a spatial gain, three samples, many text tokens") {
        $0.model.spatialGain = 1.1
        $0.batch.samples = 3
        $0.model.textTokens = 37
      },
      planned("half recomputed, all terms", ranks: 2) {
        $0.model.recompute = true
        $0.model.recomputedShare = 0.5
        $0.distill.lambdaAdversarial = 0.1
        $0.distill.guidance = 3
      },
      planned("LCM, form v1", ranks: 2) {
        $0.distill.method = .lcm
        $0.model.variant = .v1
      },
      planned("stage 2, recomputed", ranks: 4) {
        $0.mesh.zeroStage = .fixed(2)
        $0.model.recompute = true
      },
      planned("inputs of blocks in a file", ranks: 2) {
        offload(&$0)
        $0.model.doubleBlocks = 7
      },
      planned("weights not packed") { $0.compute.packedWeights = .off },
      planned("stage 3", ranks: 2) { $0.mesh.zeroStage = .fixed(3) },
      planned("stage 3, all terms", ranks: 4) {
        $0.mesh.zeroStage = .fixed(3)
        $0.distill.lambdaAdversarial = 0.1
        $0.distill.guidance = 3
      },
      planned("replicas at stage 3", ranks: 4) {
        $0.mesh.dp = .fixed(2)
        $0.mesh.zeroStage = .fixed(3)
      },
    ]
    let shared = SequencePlan.allCases.flatMap { plan in
      [
        planned("shared tokens, \(plan)", ranks: 2, sp: 2, plan),
        planned("shared tokens, \(plan)", ranks: 4, sp: 2, plan) { $0.distill.guidance = 3 },
        planned("shared tokens, \(plan), form v1, recomputed", ranks: 4, sp: 2, plan) {
          $0.model.variant = .v1
          $0.model.recompute = true
        },
        planned("shared tokens, \(plan), more parts than text tokens", ranks: 8, sp: 4, plan) {
          $0.model.textTokens = 2
          $0.batch.samples = 1
        },
        planned("shared tokens, \(plan), of three, uneven", ranks: 6, sp: 3, plan) {
          $0.model.heads = 3
          $0.model.textTokens = 5
          $0.model.spatialGain = 1.1
        },
        planned("shared tokens, \(plan), at stage 3", ranks: 4, sp: 2, plan) {
          $0.mesh.zeroStage = .fixed(3)
        },
        planned("shared tokens, \(plan), LCM", ranks: 4, sp: 2, plan) {
          $0.distill.method = .lcm
        },
      ]
    }
    return whole + shared
  }()
}

/// The peaks of one rank's ledger after a phase.
private struct MeasuredPhase: Sendable {
  let entries: [MemoryLedger.Entry]
  let total: Int
  /// What the rank sent to those it shares tokens with.
  let activationByteCount: Int
  init(_ context: RunContext, _ log: TrafficLog) {
    entries = context.arena.ledger.entries
    total = context.arena.ledger.totalPeakByteCount
    // All other operations are of the whole mesh.
    activationByteCount = log.entries.filter { $0.groupSize < context.shape.rankCount }
      .reduce(0) { $0 + $1.sentByteCount }
    log.removeAll()
  }

  func peak(_ role: PlannedRole, _ category: PlannedCategory) -> Int {
    entries.first {
      $0.role.rawValue == role.rawValue && $0.category.rawValue == category.rawValue
    }?.peakByteCount ?? 0
  }
}

/// Runs teach and distill as the main job does.
private func measure(
  _ configuration: RunConfiguration, _ prepared: PreparedSet, on base: any Transport,
  in folder: String
) throws -> [MeasuredPhase] {
  let transport = RecordingTransport(base)
  let runFolder = RunFolder(folder)
  let reporter =
    transport.isRoot
    ? Reporter(style: .plain(interval: 1e9), output: { _ in }) : Reporter()
  try FileManager.default.createDirectory(at: runFolder.url, withIntermediateDirectories: true)
  try reporter.open(runFolder, resumingAt: nil)
  let plan = try Coordinator.plan(configuration, rankCount: transport.size)
  let context = try RunContext(
    configuration: configuration, folder: runFolder, transport: transport, shape: plan.shape,
    keepsPackedWeights: plan.keepsPackedWeights, reporter: reporter, isStopRequested: { false })
  let networks = Networks(
    configuration.transformer, nullTokenCount: configuration.model.textTokens,
    makeParameters: context.parameters)
  networks.configuration.initialize(networks.base.parameters, seed: 1)
  try context.openActivationStore()
  let batches = TrainingBatches(prepared, context: context, texts: nil, firstCounter: 0)
  func teach() throws {
    try TeachPhase(context: context, networks: networks, batches: batches)
      .run(from: 0) { _, _ in }
  }
  func distill() throws {
    if configuration.distill.method == .lcm {
      try ConsistencyPhase(context: context, networks: networks, batches: batches)
        .run(from: 0) { _, _ in }
    } else {
      try DistillPhase(context: context, networks: networks, batches: batches)
        .run(from: 0) { _, _ in }
    }
  }
  try teach()
  let taught = MeasuredPhase(context, transport.log)
  context.arena.resetPeaks()
  try distill()
  return [taught, MeasuredPhase(context, transport.log)]
}

/// Gradients and parameters that all ranks sent in each step of a phase, before coding.
private func updateByteCounts(of phase: String, in metrics: URL) throws -> [Int] {
  try String(contentsOf: metrics, encoding: .utf8).split(separator: "\n").compactMap { line in
    let object = try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any]
    guard let object, object["phase"] as? String == phase,
      let gradients = object["gradients_raw_bytes"] as? Int,
      let parameters = object["parameters_raw_bytes"] as? Int
    else { return nil }
    return gradients + parameters
  }
}

@Suite struct CoordinatorTests {
  @Test(arguments: PlannedCase.all + PlannedCase.vchitect)
  func `the plan tells what the ledger books`(_ planned: PlannedCase) throws {
    let configuration = planned.configuration
    let (measured, sentByStep) = try withTemporaryFolder { folder in
      var options = configuration.preparationOptions
      options.proceduralPeople = 1
      options.proceduralFrames = 24
      let prepared = try PreparedSet.prepare(
        from: .procedural, options: options, in: folder.appending(path: "prepared"))
      let runFolder = folder.path + "/run/"
      let measured = try InProcessMesh.run(size: planned.rankCount) { transport in
        try measure(configuration, prepared, on: transport, in: runFolder)
      }
      return (measured, try updateByteCounts(of: "teach", in: RunFolder(runFolder).metrics))
    }
    let plan = try Coordinator.plan(configuration, rankCount: planned.rankCount)
    for rank in 0..<planned.rankCount {
      for (phase, found) in zip(plan.costs.phases, measured[rank]) {
        let expected = phase.memory[rank]
        for role in PlannedRole.allCases {
          for category in [.parameters, .gradients, .optimizer, .ema] as [PlannedCategory] {
            #expect(
              expected.peakByteCount(role, category) == found.peak(role, category),
              "\(phase.name), rank \(rank), \(role.rawValue) \(category.rawValue)")
          }
        }
        // Contract 4.5: lifetimes of temporaries are the compiler's, the rest is exact.
        #expect(
          abs(expected.totalPeakByteCount - found.total) * 20 <= found.total,
          "\(phase.name), rank \(rank): planned \(expected), booked \(found)")
      }
    }
    // Every teach step is alike; the depth of rollouts makes those of distill differ.
    let teach = plan.costs.phases[0]
    #expect(sentByStep == Array(repeating: teach.updateByteCountPerStep, count: teach.stepCount))
    let degrees = [plan.shape[.ring], plan.shape[.sp], plan.shape[.tp]]
    guard degrees.contains(where: { $0 > 1 }), !degrees.contains(planned.rankCount),
      plan.shape[.dp] == 1
    else { return }
    let sent = measured.map { $0.map(\.activationByteCount) }
    #expect(sent.reduce(0) { $0 + $1[0] } == teach.stepCount * teach.activationByteCountPerStep)
    #expect(sent.allSatisfy { $0[1] > 0 })
  }

  @Test func `a plan says whether the memory suffices`() throws {
    let configuration = PlannedCase("stored") { $0.mesh.zeroStage = .fixed(1) }.configuration
    let peak = try Coordinator.plan(configuration, rankCount: 2).costs.peakByteCountPerRank
    let enough = try Coordinator.plan(configuration, rankCount: 2, memoryPerRank: peak)
    let short = try Coordinator.plan(configuration, rankCount: 2, memoryPerRank: peak - 1)
    #expect(enough.fits && !short.fits)
    #expect(short.text.contains("does not fit"))
  }

  @Test func `of the layouts the first that keeps within the limit is taken`() throws {
    var configuration = PlannedCase("wide") { $0.model.singleBlocks = 6 }.configuration
    let free = try Coordinator.plan(configuration, rankCount: 4)
    #expect(free.shape == MeshShape([.zero: 4]) && free.problem == nil)
    let stages = free.candidates.filter { $0.shape[.sp] == 1 }
    let peaks = stages.map(\.peakByteCountPerRank)
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
