// `w2svd bench step`: whole steps of a model.

import ArgumentParser
import Benchmarking
import DenseKernels
import Foundation
import Models

struct StepBenchCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "step",
    abstract: "Times inference, a training step or a whole W2SVD iteration.",
    discussion: """
      forward: one velocity without gradients. train: flow matching forward and backward, AdamW without \
      clipping or average. w2svd: the generator's turn (one sample with gradient, one fake score, two real \
      scores for guidance, AdamW) and the critic's (flow matching of a rank-32 LoRA, AdamW). Peak bytes \
      are those of the ledger.
      """)

  @Option(
    help: ArgumentHelp(
      "bench-s (6 heads of 64, 4 double, 8 single blocks, random weights) or a folder of a HunyuanVideo or "
        + "Vchitect-2.0 transformer. Default: bench-s.", valueName: "bench-s|dir"))
  var model = BenchmarkModel.standardName

  @Option(help: "What a run does: forward, train or w2svd. Default: train.")
  var mode = StepMode.train

  @Option(help: "Operands of products: fp32 or bf16. Default: fp32.")
  var dtype = ProductPrecision.float32

  @OptionGroup var shared: BenchArguments

  @Option(
    help: ArgumentHelp(
      "Ranks as threads of this process, a microbatch each. Default: 1.", valueName: "n"))
  var ranks = 1

  @Flag(help: "Recomputes each block on the way back. Default: off.")
  var recompute = false

  @Option(
    help: ArgumentHelp(
      "Frames, rows and columns of the latents. Default: 5x32x32.", valueName: "FxHxW"))
  var latent = LatentSize(frames: 5, rows: 32, columns: 32)

  @Option(help: ArgumentHelp("Text tokens. Default: 32.", valueName: "n"))
  var textTokens = 32

  @Option(help: ArgumentHelp("Samples of a microbatch. Default: 1.", valueName: "n"))
  var batch = 1

  @Option(help: ArgumentHelp("Heads of bench-s, its width over 64. Default: 6.", valueName: "n"))
  var heads: Int?

  @Option(
    help: ArgumentHelp("Double and single blocks of bench-s. Default: 4+8.", valueName: "D+S"))
  var blocks: BlockCounts?

  func validate() throws {
    if !(1...64).contains(ranks) {
      throw ValidationError("--ranks is \(ranks); give 1 to 64.")
    }
    if model != BenchmarkModel.standardName && (heads != nil || blocks != nil) {
      throw ValidationError("--heads and --blocks change bench-s; a folder says its own.")
    }
    if let heads, heads < 1 { throw ValidationError("--heads is \(heads); give at least 1.") }
  }

  func run() throws {
    var model =
      model == BenchmarkModel.standardName
      ? BenchmarkModel() : try BenchmarkModel(opening: URL(filePath: model))
    if heads != nil || blocks != nil {
      var configuration = BenchmarkModel.standardConfiguration
      if let heads { configuration.attentionHeadCount = heads }
      if let blocks {
        (configuration.doubleBlockCount, configuration.singleBlockCount) = (
          blocks.double, blocks.single
        )
      }
      model.configuration = configuration
    }
    (model.latentFrames, model.latentHeight, model.latentWidth) = (
      latent.frames, latent.rows, latent.columns
    )
    model.textTokenCount = textTokens
    model.sampleCount = batch
    var benchmark = StepBenchmark(model: try model.checked(), mode: mode)
    benchmark.precision = dtype
    benchmark.threadCount = shared.threads
    benchmark.rankCount = ranks
    benchmark.recompute = recompute
    benchmark.repeatCount = shared.repeats
    let report = try benchmark.run()
    if shared.json { try printJSON(report) } else { print(report.text) }
  }
}

/// "5x32x32".
struct LatentSize: ExpressibleByArgument, CustomStringConvertible {
  let frames: Int
  let rows: Int
  let columns: Int

  init(frames: Int, rows: Int, columns: Int) {
    self.frames = frames
    self.rows = rows
    self.columns = columns
  }

  init?(argument: String) {
    let parts = argument.split(separator: "x", omittingEmptySubsequences: false)
    let sizes = parts.compactMap { Int($0) }
    guard parts.count == 3, sizes.count == 3, sizes.allSatisfy({ (1...4096).contains($0) }) else {
      return nil
    }
    self.init(frames: sizes[0], rows: sizes[1], columns: sizes[2])
  }

  var description: String { "\(frames)x\(rows)x\(columns)" }
}

/// "4+8".
struct BlockCounts: ExpressibleByArgument {
  let double: Int
  let single: Int

  init?(argument: String) {
    let parts = argument.split(separator: "+", omittingEmptySubsequences: false)
    let counts = parts.compactMap { Int($0) }
    guard parts.count == 2, counts.count == 2, counts.allSatisfy({ (0...512).contains($0) }) else {
      return nil
    }
    (double, single) = (counts[0], counts[1])
  }
}
