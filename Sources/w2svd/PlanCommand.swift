// `w2svd plan`: what a run will take, before it is started.

import ArgumentParser
import Evaluation
import Foundation
import MeshLayout
import Planning
import Training

struct PlanCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "plan",
    abstract: "Tells layouts, memory, operations and traffic of a run; allocates nothing.",
    discussion: """
      Bytes are the tensors of one rank by role and category at their peaks, as the ledger of the run \
      will book them, and their sum at the fullest moment; then what the process takes. Times come from what kernels reach here at the \
      run's sizes (half a second, one process alone) and from the machine's numbers for links and for what ranks lose at \
      exchanges, which one process cannot find: --links gives what `w2svd-worker bench collectives` found. The layout with \
      the least time that fits is taken.

      With --simulate, steps of up to thousands of ranks instead, on a machine given by its numbers: which \
      layouts fit, how long a step takes, what of it waits. Layouts are those that the worker runs, with what the \
      configuration fixes of them; bytes are closed forms then.
      """)

  @OptionGroup var source: ConfigurationArguments

  @Option(
    help: "Ranks that will be started. Default: 1; with --simulate 8 to 4,096 in powers of two.")
  var ranks: Int?

  @Option(
    help: ArgumentHelp(
      "What a rank may take, in bytes or as 512MiB, 16GiB. Default: what mesh.memoryPerRank says. Effect: in "
        + "place of that; takes the fastest layout that keeps within it and says whether there is one; exit code 2 "
        + "if not.",
      valueName: "bytes"))
  var memoryPerRank: ByteCount?

  @Option(
    help: ArgumentHelp(
      "Rate of a rank in GFLOP/s, in steps of training. Default: kernels are measured here. Effect: in "
        + "place of that.", valueName: "gflops"))
  var gigaflops: Double?

  @Flag(
    help: ArgumentHelp(
      "Lists every legal layout. Default: off, those of zero and sp, and others where these do not fit, or leave ranks "
        + "idle. Effect: all axes and placements that the configuration leaves open; takes up to a second for each "
        + "layout of a large network, and does not change which is taken."))
  var all = false

  @Flag(help: "Prints the plan as one JSON object on the last line. Default: off.")
  var json = false

  @OptionGroup(title: "Simulation") var simulation: SimulationArguments

  func validate() throws {
    if let ranks, ranks < 1 { throw ValidationError("--ranks is \(ranks); give at least 1.") }
    if let gigaflops, !(gigaflops > 0) {
      throw ValidationError("--gigaflops is \(gigaflops); give a positive rate.")
    }
    guard simulation.simulate else { return }
    if let ranks, ranks > 65_536 {
      throw ValidationError("--ranks is \(ranks); --simulate takes at most 65536.")
    }
    if all {
      throw ValidationError("--all does not go with --simulate, which looks at all layouts.")
    }
    if gigaflops != nil || memoryPerRank != nil {
      throw ValidationError(
        "--gigaflops and --memory-per-rank do not go with --simulate; give --machine-set "
          + "productRateFloat32=… and --node-memory.")
    }
  }

  func run() throws {
    if simulation.simulate {
      return try simulation.run(source, rankCount: ranks, json: json)
    }
    let ranks = ranks ?? 1
    var configuration = try source.read(rankCount: ranks)
    if let memoryPerRank { configuration.mesh.memoryPerRank = memoryPerRank.value }
    let plan = try Coordinator.plan(
      configuration, rankCount: ranks, rates: rates(configuration, rankCount: ranks), listsAll: all)
    if json { try printJSON(Summary(plan)) } else { print(plan.text, terminator: "") }
    if !plan.fits {
      throw JobError(
        exitCode: .configuration,
        "a rank needs \(ReportText.bytes(plan.processByteCountPerRank)), more than it may take")
    }
  }

  /// What ranks do in a second: by --gigaflops, by numbers of a machine that were given, else measured here.
  private func rates(
    _ configuration: RunConfiguration, rankCount: Int
  ) throws -> StepRates {
    let machine = try simulation.readMachine()
    let precision = configuration.probedPrecision
    if let gigaflops {
      var rates = StepRates(machine, precision.simulated, rankCount: rankCount)
      (rates.productRate, rates.attentionRate) = (1e9 * gigaflops, 1e9 * gigaflops)
      return rates
    }
    if simulation.namesRates(of: precision.simulated) {
      return StepRates(machine, precision.simulated, rankCount: rankCount)
    }
    return try StepProbe.measure(
      ProbedSizes(try WorkloadSizes(configuration), precision: precision), links: machine,
      rankCount: rankCount)
  }

  /// The plan as a program wants it.
  private struct Summary: Encodable {
    struct Phase: Encodable {
      let name: String
      let stepCount: Int
      let peakBytesPerRank: Int
      let operationsPerStep: Double
      let sentBytesPerStep: Int
      let secondsPerStep: Double?
      /// What the seconds are made of.
      let time: StepTime?
      /// Which ranks do what, where roles are split.
      let roles: [RoleShare]?
    }
    let mesh: String
    let reason: String
    let ranks: Int
    let fits: Bool
    let peakBytesPerRank: Int
    let peakBytesTotal: Int
    /// What the processes of the ranks will take, in order.
    let processBytes: [Int]
    /// Of the fullest rank.
    let accounts: [PlannedAccount]
    let phases: [Phase]
    /// The layouts that were looked at, the preferred first; with --all every other legal one after them.
    let candidates: [Layout]
    let rates: StepRates?

    struct Layout: Encodable {
      let mesh: String
      let zeroStage: Int
      let stages: Int
      let dp: Int
      let zero: Int
      let ring: Int
      let sp: Int
      let tp: Int
      /// Ranks that hold the generator alone; 0: roles are colocated.
      let generatorRanks: Int
      let peakBytesPerRank: Int
      let processBytesPerRank: Int
      /// Of the fullest rank.
      let accounts: [PlannedAccount]
      let operationsOfBusiestRank: Double
      /// By phase.
      let sentBytesPerStep: [String: Int]
      let secondsPerStep: [String: Double]?
      /// Of all training steps.
      let seconds: Double?

      init(_ candidate: LayoutCandidate) {
        let shape = candidate.shape
        mesh = shape.description
        (zeroStage, stages, dp) = (shape.zeroStage.rawValue, shape[.stages], shape[.dp])
        (zero, ring, sp, tp) = (shape[.zero], shape[.ring], shape[.sp], shape[.tp])
        generatorRanks = shape.generatorRanks?.count ?? 0
        peakBytesPerRank = candidate.peakByteCountPerRank
        processBytesPerRank = candidate.processByteCountPerRank
        accounts = candidate.accounts
        operationsOfBusiestRank = candidate.operationCount
        sentBytesPerStep = candidate.sentByteCountPerStep
        (secondsPerStep, seconds) = (candidate.secondsPerStep, candidate.seconds)
      }
    }

    init(_ plan: RunPlan) {
      let memory = plan.costs.memory
      mesh = plan.shape.description
      reason = plan.reason
      rates = plan.rates
      ranks = memory.count
      fits = plan.fits
      peakBytesPerRank = plan.costs.peakByteCountPerRank
      peakBytesTotal = plan.costs.totalPeakByteCount
      processBytes = plan.processes.map(\.byteCount)
      accounts = plan.costs.fullest?.accounts ?? []
      candidates = plan.candidates.map(Layout.init)
      phases = plan.costs.phases.enumerated().map { index, phase in
        let time = plan.times.indices.contains(index) ? plan.times[index] : nil
        return Phase(
          name: phase.name, stepCount: phase.stepCount,
          peakBytesPerRank: phase.memory.map(\.totalPeakByteCount).max() ?? 0,
          operationsPerStep: phase.operationsPerStep.reduce(0, +),
          sentBytesPerStep: phase.exchangeByteCountPerStep,
          secondsPerStep: time?.seconds, time: time,
          roles: phase.roles == nil ? nil : plan.roleShares(of: phase))
      }
    }
  }
}

/// A number of bytes, perhaps with a binary unit.
struct ByteCount: ExpressibleByArgument {
  let value: Int

  init?(argument: String) {
    let units = ["KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40, "B": 1]
    let unit = ["KiB", "MiB", "GiB", "TiB", "B"].first { argument.hasSuffix($0) }
    guard let number = Double(argument.dropLast(unit?.count ?? 0)), number > 0 else { return nil }
    let bytes = number * Double(unit.flatMap { units[$0] } ?? 1)
    guard 1..<1e18 ~= bytes else { return nil }
    value = Int(bytes)
  }
}
