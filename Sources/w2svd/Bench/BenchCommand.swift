// `w2svd bench`: how fast this machine trains.

import ArgumentParser
import Benchmarking
import DenseKernels
import Foundation

struct BenchCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "bench",
    abstract: "Times training steps and their parts; without a subcommand, one table of all.",
    discussion: """
      Times are medians with half of their spread. Operations are counted in closed form, a multiply-add \
      as two; their share is of the peak of Float32 fused multiply-adds, also for bf16, whose dot \
      instruction has twice that peak. Bytes count each operand once; their share is of the triad \
      z = x + a y. Both limits are measured in the same process. Run it on an idle machine.
      """,
    subcommands: [
      StepBenchCommand.self, AttentionBenchCommand.self, GemmBenchCommand.self,
      OptimizerBenchCommand.self, ElementwiseBenchCommand.self,
    ])

  /// Every kind of row at sizes that take about a minute.
  func run() throws {
    for mode in StepMode.allCases {
      for precision in ProductPrecision.allCases {
        var benchmark = StepBenchmark(model: BenchmarkModel(), mode: mode)
        benchmark.precision = precision
        benchmark.repeatCount = 3
        let report = try benchmark.run()
        if mode == .forward && precision == .float32 { print(report.heading) }
        print(report.line)
      }
    }
    var options = KernelBenchmark.Options()
    options.lengths = [1_024, 4_096]
    options.repeatCount = 3
    for benchmark in KernelBenchmark.allCases {
      print(benchmark.run(options).rows.map(\.line).joined(separator: "\n"))
    }
  }
}

extension ProductPrecision: ExpressibleByArgument {}
extension StepMode: ExpressibleByArgument {}

/// What all benchmarks take.
struct BenchArguments: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "Threads of a product and of an attention. Default: 1. Effect: they share rows, columns or "
        + "heads; other loops run on one thread.", valueName: "n"))
  var threads = 1

  @Option(help: ArgumentHelp("Least number of timed runs. Default: 5.", valueName: "n"))
  var repeats = 5

  @Flag(help: "Prints the result as one JSON object on the last line. Default: off.")
  var json = false

  func validate() throws {
    let cores = ProcessInfo.processInfo.activeProcessorCount
    if !(1...cores).contains(threads) {
      throw ValidationError("--threads is \(threads); this machine has 1 to \(cores).")
    }
    if repeats < 1 { throw ValidationError("--repeats is \(repeats); give at least 1.") }
  }
}
