import DenseKernels
import Foundation
import Models
import Testing

@testable import Benchmarking

/// A model of a few thousand parameters.
private var tinyModel: BenchmarkModel {
  var model = BenchmarkModel()
  model.name = "tiny"
  var configuration = BenchmarkModel.standardConfiguration
  configuration.attentionHeadCount = 2
  configuration.attentionHeadWidth = 16
  configuration.ropeAxesWidths = [4, 6, 6]
  configuration.doubleBlockCount = 1
  configuration.singleBlockCount = 1
  configuration.textEmbeddingWidth = 12
  configuration.pooledProjectionWidth = 10
  model.configuration = configuration
  (model.latentFrames, model.latentHeight, model.latentWidth) = (2, 4, 6)
  model.textTokenCount = 3
  return model
}

/// The report as `w2svd bench --json` prints it.
private func json(_ report: some Encodable) throws -> [String: Any] {
  let encoder = JSONEncoder()
  encoder.keyEncodingStrategy = .convertToSnakeCase
  return try #require(
    JSONSerialization.jsonObject(with: encoder.encode(report)) as? [String: Any])
}

@Test(arguments: StepMode.allCases, [1, 2])
func `a step's report has the keys that the comparison reads`(
  mode: StepMode, rankCount: Int
) throws {
  var benchmark = StepBenchmark(model: try tinyModel.checked(), mode: mode)
  benchmark.repeatCount = 2
  benchmark.rankCount = rankCount
  let report = try benchmark.run()
  let found = try json(report)
  let strings = ["benchmark": "step", "implementation": "w2svd", "model": "tiny", "dtype": "fp32"]
  for (key, value) in strings { #expect(found[key] as? String == value) }
  #expect(found["mode"] as? String == mode.rawValue)
  for key in [
    "median_s", "min_s", "max_s", "model_flop", "gflop_per_s", "fma_peak_gflop_per_s",
    "peak_share", "tokens_per_s", "peak_bytes", "peak_rss_bytes",
  ] {
    let number = try #require(found[key] as? Double, "\(key) of \(found.keys.sorted())")
    #expect(number > 0 && number.isFinite, "\(key)")
  }
  #expect(found["repeats"] as? Int == 2 && found["threads"] as? Int == 1)
  #expect(found["ranks"] as? Int == rankCount && found["batch"] as? Int == rankCount)
  #expect(found["video_tokens"] as? Int == 12 && found["text_tokens"] as? Int == 3)
  #expect(found["parameters"] as? Int == tinyModel.configuration.parameterCount)
  #expect((found["loss"] as? Double)?.isFinite == (mode == .forward ? nil : true))
  let accounts = try #require(found["accounts"] as? [[String: Any]])
  #expect(accounts.allSatisfy { $0["role"] is String && ($0["peak_bytes"] as? Int ?? 0) > 0 })
  let categories = Set(accounts.compactMap { $0["category"] as? String })
  #expect(categories.contains("optimizer") == (mode != .forward))
  let machine = try #require(found["machine"] as? [String: Any])
  #expect((machine["versions"] as? [String: Any])?["openblas"] is String)
}

@Test func `rates follow from seconds, operations and the peak`() throws {
  var benchmark = StepBenchmark(model: try tinyModel.checked(), mode: .forward)
  benchmark.repeatCount = 1
  let report = try benchmark.run()
  #expect(report.modelFlop == OperationCount(tinyModel).forward)
  #expect(report.gigaflopsPerSecond == report.modelFlop / report.timing.median / 1e9)
  #expect(report.peakShare == report.gigaflopsPerSecond / report.peakGigaflops)
}

@Test func `a run trains: the second loss of equal noise would be another`() throws {
  // Times and noise differ by step, so only that each run has a loss of its own is certain.
  var benchmark = StepBenchmark(model: try tinyModel.checked(), mode: .iteration)
  benchmark.repeatCount = 1
  let first = try benchmark.run().loss
  benchmark.repeatCount = 2
  #expect(try benchmark.run().loss != first)
  benchmark.repeatCount = 1
  #expect(try benchmark.run().loss == first)
}

@Test func `kernel rows have operations or bytes and a share of their limit`() throws {
  var options = KernelBenchmark.Options()
  options.repeatCount = 1
  options.lengths = [40]
  options.headWidths = [64]
  let report = KernelBenchmark.attention.run(options)
  let found = try json(report)
  let rows = try #require(found["rows"] as? [[String: Any]])
  #expect(
    rows.compactMap { $0["name"] as? String }
      == ["attention forward", "attention forward+backward"] + [
        "attention forward", "attention forward+backward",
      ])
  #expect(rows.compactMap { $0["dtype"] as? String } == ["fp32", "fp32", "bf16", "bf16"])
  for row in rows {
    #expect(row["sizes"] as? [String: Int] == ["tokens": 40, "head": 64])
    let (flop, seconds) = (row["flop"] as? Double ?? 0, row["median_s"] as? Double ?? 0)
    let rate = try #require(row["gflop_per_s"] as? Double)
    // Two numbers went through decimal text, and a division rounds once.
    #expect(seconds > 0 && abs(rate * seconds * 1e9 - flop) <= 1e-12 * flop)
    #expect((row["share"] as? Double ?? 0) > 0 && row["gb_per_s"] == nil)
  }
  // 4 L² D with D = 384, three times that with the way back.
  #expect(
    rows.compactMap { $0["flop"] as? Double } == [2_457_600, 7_372_800, 2_457_600, 7_372_800])
}

@Test func `a model that cannot be trained on its inputs is refused with every reason`() {
  var model = BenchmarkModel()
  var configuration = BenchmarkModel.standardConfiguration
  configuration.inChannels = 20
  model.configuration = configuration
  model.latentHeight = 33
  model.textTokenCount = 0
  let error = #expect(throws: ModelError.self) { try model.checked() }
  for part in ["in_channels is 20", "33 rows", "0 text tokens"] {
    #expect(error?.message.contains(part) == true, "\(part)")
  }
}
