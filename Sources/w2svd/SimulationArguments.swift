// `w2svd plan --simulate`: steps of thousands of ranks by an event simulation.

import ArgumentParser
import Benchmarking
import Evaluation
import Foundation
import MeshLayout
import Models
import Planning
import Training

/// Options of a plan that simulates.
struct SimulationArguments: ParsableArguments {
  @Flag(
    help: ArgumentHelp(
      "Simulates steps of 8 to 4,096 ranks, or of --ranks. Default: off. Effect: scaling tables of the best "
        + "layout that fits nodes of each size, with exposed communication and bubble."))
  var simulate = false

  @Option(
    help: ArgumentHelp(
      "A model in place of the configuration's: hunyuanvideo-13b. Default: none.",
      valueName: "preset"))
  var model: SimulationPreset?

  @Option(
    help: ArgumentHelp(
      "Numbers of the machine, YAML or JSON. Default: none; the table that --simulate prints names every number "
        + "with unit and origin. Without --simulate links count, and a product rate in place of measuring.",
      valueName: "file"))
  var machine: String?

  @Option(
    help: ArgumentHelp(
      "Overrides a number of the machine; may be repeated. Stronger than --machine, --links and "
        + "--calibrate. Goes without --simulate as --machine does.", valueName: "key=value"))
  var machineSet: [String] = []

  @Option(
    help: ArgumentHelp(
      "What `w2svd-worker bench collectives --json` printed. Default: none. Effect: latencies and "
        + "bandwidths of links, what ranks lose at an exchange and what its bytes take, also without --simulate.",
      valueName: "file"))
  var links: String?

  @Flag(
    help: "Measures rates of products and memory and a step's efficiency here (10 s). Default: off."
  )
  var calibrate = false

  @Option(
    help: "Operands of products: fp32 or bf16. Default: compute.precision, where auto is bf16.")
  var dtype: SimulatedPrecision?

  @Option(
    help: ArgumentHelp(
      "Bytes of a parameter: fp32 (4 + gradient 4 + optimizer 8) or mixed (2 + 2 + 12; activations of "
        + "2 bytes). Default: fp32, as the worker holds it; mixed for --model.",
      valueName: "fp32|mixed"))
  var state: StateChoice?

  @Option(
    parsing: .upToNextOption,
    help: ArgumentHelp(
      "Memory of a node; several give a table each. Default: 64GiB 128GiB 256GiB.",
      valueName: "bytes"))
  var nodeMemory: [ByteCount] = []

  @Flag(
    help:
      "Lets no communication of blocks run beside computing. Default: off; exchange.overlap off does the same."
  )
  var noOverlap = false

  @Flag(
    help:
      "Looks at stages with two chunks of blocks each as well, which the worker does not have. Default: off."
  )
  var interleaved = false

  @Flag(
    help: ArgumentHelp(
      "Stages are local blocks, whose gradients stop at their borders; the worker does not have them. Default: "
        + "pipelines."))
  var localBlocks = false

  @Option(
    help: ArgumentHelp(
      "Writes scaling.svg and simulation.json there. Default: nowhere.", valueName: "folder"))
  var output: String?

  enum StateChoice: String, ExpressibleByArgument { case fp32, mixed }

  func validate() throws {
    let needless: [(String, Bool)] = [
      ("--model", model != nil), ("--calibrate", calibrate), ("--dtype", dtype != nil),
      ("--state", state != nil),
      ("--node-memory", !nodeMemory.isEmpty), ("--interleaved", interleaved),
      ("--no-overlap", noOverlap), ("--local-blocks", localBlocks), ("--output", output != nil),
    ]
    let given = needless.filter(\.1).map(\.0)
    if !simulate && !given.isEmpty {
      throw ValidationError(
        "\(given.joined(separator: ", ")): without effect, give --simulate as well.")
    }
  }

  /// Prints and writes what was asked for.
  func run(_ source: ConfigurationArguments, rankCount: Int?, json: Bool) throws {
    let configuration = try source.read()
    let sizes = try model?.sizes ?? WorkloadSizes(configuration)
    let precision = dtype ?? (model == nil ? configuration.simulatedPrecision : .bf16)
    let state = state ?? (model == nil ? .fp32 : .mixed)
    // Read first, so that wrong numbers are told before anything is measured.
    var numbers = try readMachine(MachineModel())
    if calibrate {
      numbers = try readMachine(
        MachineCalibration.measure(MachineReader.read(file: machine), precision: precision),
        withFile: false)
    }
    var study = ScalingStudy(
      SimulatedRun(
        sizes, machine: numbers, state: state == .fp32 ? .float32 : .mixed,
        precision: precision),
      rankCounts: rankCount.map { [$0] } ?? ScalingStudy.standardRankCounts,
      nodeMemories: nodeMemory.isEmpty
        ? [64, 128, 256].map { $0 * 1_073_741_824 } : nodeMemory.map { Double($0.value) })
    // A preset has no configuration.
    study.rules = (model == nil ? configuration : RunConfiguration()).layoutRules(sizes)
    if noOverlap { study.rules.overlaps = false }
    (study.rules.interleaves, study.rules.usesLocalBlocks) = (interleaved, localBlocks)
    let report = SimulationReport(
      study, model: model?.name ?? "the configuration's model", origins: origins)
    if report.curves.allSatisfy(\.points.isEmpty) {
      print(report.text, terminator: "")
      throw JobError(
        exitCode: .configuration,
        "no layout fits; give --node-memory, more --ranks, a larger batch.microbatches or a "
          + "smaller model")
    }
    if let output { try write(report, to: URL(filePath: output)) }
    if json { try printJSON(report) } else { print(report.text, terminator: "") }
  }

  func readMachine(
    _ start: MachineModel = MachineModel(), withFile: Bool = true
  ) throws -> MachineModel {
    try MachineReader.read(
      start, file: withFile ? machine : nil, links: links, overrides: machineSet)
  }

  /// Whether --machine or --machine-set give a product rate of this precision, so that nothing need be measured.
  func namesRates(of precision: SimulatedPrecision) -> Bool {
    let key = precision == .fp32 ? "productRateFloat32" : "productRateBFloat16"
    return origins[key] != nil
  }

  /// Of the numbers that are not defaults.
  private var origins: [String: String] {
    var origins = calibrate ? MachineCalibration.origins : [:]
    let places = [machine.map { ("--machine \($0)", $0) }, links.map { ("--links \($0)", $0) }]
    for (origin, file) in places.compactMap(\.self) {
      let text = (try? String(contentsOfFile: file, encoding: .utf8)) ?? ""
      for option in MachineOption.all where text.contains(option.key) {
        if calibrate && MachineCalibration.origins[option.key] != nil { continue }
        origins[option.key] = origin
      }
    }
    for override in machineSet {
      origins[String(override.prefix { $0 != "=" })] = "--machine-set"
    }
    return origins
  }

  private func write(_ report: SimulationReport, to folder: URL) throws {
    do {
      try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
      let encoder = JSONEncoder()
      encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes, .prettyPrinted]
      encoder.keyEncodingStrategy = .convertToSnakeCase
      try encoder.encode(report).write(to: folder.appending(path: "simulation.json"))
      try Data(report.chart.svg.utf8).write(to: folder.appending(path: "scaling.svg"))
    } catch {
      throw JobError(
        exitCode: .configuration,
        "--output: \(folder.path) cannot be written: \(error.localizedDescription)")
    }
  }
}

extension SimulationPreset: ExpressibleByArgument {}
extension SimulatedPrecision: ExpressibleByArgument {}
