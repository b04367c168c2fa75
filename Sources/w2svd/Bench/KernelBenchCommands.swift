// `w2svd bench attention|gemm|optimizer|elementwise`: the parts of a step alone.

import ArgumentParser
import Benchmarking
import DenseKernels

struct AttentionBenchCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "attention",
    abstract: "Times attention of width 384, forward and forward with backward.")

  @OptionGroup var shared: BenchArguments
  @OptionGroup var products: ProductArguments

  @Option(
    parsing: .upToNextOption,
    help: ArgumentHelp("Tokens. Default: 512 1024 2048 4096 8192.", valueName: "n"))
  var lengths: [Int] = []

  @Option(
    parsing: .upToNextOption,
    help: ArgumentHelp("Widths of a head. Default: 64 128.", valueName: "n"))
  var headWidths: [Int] = []

  func validate() throws {
    for length in lengths where !(1...1 << 20).contains(length) {
      throw ValidationError("--lengths has \(length); give 1 to 1048576.")
    }
    for width in headWidths where !(1...512).contains(width) {
      throw ValidationError("--head-widths has \(width); give 1 to 512.")
    }
  }

  func run() throws {
    var options = shared.options(products)
    if !lengths.isEmpty { options.lengths = lengths }
    if !headWidths.isEmpty { options.headWidths = headWidths }
    try shared.report(.attention, options)
  }
}

struct GemmBenchCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "gemm",
    abstract: "Times matrix products in the shapes of bench-s.")

  @OptionGroup var shared: BenchArguments
  @OptionGroup var products: ProductArguments

  func run() throws { try shared.report(.gemm, shared.options(products)) }
}

struct OptimizerBenchCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "optimizer",
    abstract: "Times AdamW with and without average over 42.9 M parameters.")

  @OptionGroup var shared: BenchArguments

  func run() throws { try shared.report(.optimizer, shared.options()) }
}

struct ElementwiseBenchCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "elementwise",
    abstract: "Times the kernels between the products in the shapes of bench-s.")

  @OptionGroup var shared: BenchArguments

  func run() throws { try shared.report(.elementwise, shared.options()) }
}

/// The precisions of a benchmark of products.
struct ProductArguments: ParsableArguments {
  @Option(help: "Operands of products: fp32 or bf16. Default: both.")
  var dtype: ProductPrecision?
}

extension BenchArguments {
  func options(_ products: ProductArguments? = nil) -> KernelBenchmark.Options {
    var options = KernelBenchmark.Options()
    options.threadCount = threads
    options.repeatCount = repeats
    if let dtype = products?.dtype { options.precisions = [dtype] }
    return options
  }

  func report(_ benchmark: KernelBenchmark, _ options: KernelBenchmark.Options) throws {
    let report = benchmark.run(options)
    if json { try printJSON(report) } else { print(report.text) }
  }
}
