// An error that names a legal layout names one that every rule allows, once it is set as it is written.

import Basics
import Models
import Testing

@testable import Training

struct NamedLayoutTests {
  /// A configuration and a number of ranks, drawn.
  private struct Draw {
    private let stream: RandomStream
    private var next = 0

    init(_ number: Int) { stream = RandomStream(seed: 5, purpose: .tests, step: number) }

    mutating func one<Choice>(of choices: [Choice]) -> Choice {
      defer { next += 1 }
      return choices[stream.integer(below: choices.count, at: next)]
    }

    /// Mostly what a user leaves alone.
    mutating func degree(_ choices: [Int]) -> RunConfiguration.Degree {
      one(of: [false, false, true]) ? .fixed(one(of: choices)) : .auto
    }

    mutating func configuration() -> RunConfiguration {
      var configuration = RunConfiguration()
      configuration.model.architecture = one(of: Architecture.allCases)
      configuration.model.variant = one(of: VchitectConfiguration.BlockVariant.allCases)
      configuration.model.heads = one(of: [1, 2, 3, 4, 6, 8, 12])
      // 19 hidden units a head of HunyuanVideo, or twice its width.
      (configuration.model.headWidth, configuration.model.mlpRatio) = (64, one(of: [0.3, 2]))
      configuration.model.doubleBlocks = one(of: [1, 2, 4])
      configuration.model.singleBlocks = one(of: [0, 2])
      configuration.batch.microbatches = one(of: [1, 2, 3, 4, 8, 1_032])
      configuration.distill.loraRank = 4
      configuration.model.offload = one(of: [false, true])
      configuration.model.recompute = configuration.model.offload
      configuration.mesh = mesh()
      return configuration
    }

    private mutating func mesh() -> RunConfiguration.Mesh {
      var mesh = RunConfiguration.Mesh()
      let degrees = [1, 2, 3, 4, 5, 8]
      (mesh.dp, mesh.zero, mesh.ring) = (degree(degrees), degree(degrees), degree(degrees))
      (mesh.sp, mesh.tp, mesh.stages) = (degree(degrees), degree(degrees), degree(degrees))
      mesh.zeroStage = degree([1, 2, 3])
      mesh.sums = one(of: RunConfiguration.SumOrder.allCases)
      mesh.sequencePlan = one(of: SequencePlan.allCases)
      mesh.schedule = one(of: RunConfiguration.PipelineOrder.allCases)
      guard one(of: [false, false, true]) else { return mesh }
      mesh.placement = .split
      (mesh.generatorRanks, mesh.generatorZeroStage) = (degree(degrees), degree([1, 2, 3]))
      (mesh.generatorDp, mesh.generatorRing) = (degree(degrees), degree(degrees))
      (mesh.generatorSp, mesh.generatorTp) = (degree(degrees), degree(degrees))
      mesh.generatorStages = degree(degrees)
      return mesh
    }
  }

  private func problems(
    of configuration: RunConfiguration, ranks: Int
  ) -> [ConfigurationProblem] {
    configuration.validate() + configuration.validate(rankCount: ranks)
  }

  /// The settings that a message names as legal, and of how many ranks.
  private func named(
    by message: String, ranks: Int
  ) throws -> (settings: [(key: String, degree: Int)], ranks: Int)? {
    let ranges = message.ranges(of: "; legal here: ")
    if let range = ranges.first {
      #expect(ranges.count == 1, "\(message)")
      return (try settings(message[range.upperBound...]), ranks)
    }
    guard let smaller = message.firstRange(of: "the next smaller number of ranks with a layout is ")
    else { return nil }
    let words = message[smaller.upperBound...].split(separator: "(")
    return (
      try settings(words[1].dropLast()),
      try #require(Int(words[0].split(separator: " ")[0]), "\(message)")
    )
  }

  private func settings(_ words: Substring) throws -> [(key: String, degree: Int)] {
    try words.split(separator: ", ").map { setting in
      let parts = setting.split(separator: " ")
      return (String(parts[0]), try #require(Int(parts[1]), "\(words)"))
    }
  }

  @Test func `a layout that an error names passes every rule`() throws {
    var counts: [String: Int] = [:]
    for number in 0..<6_000 {
      var draw = Draw(number)
      let configuration = draw.configuration()
      let ranks = draw.one(of: [1, 2, 3, 4, 5, 6, 8, 12])
      for problem in configuration.validate(rankCount: ranks) {
        guard let named = try named(by: problem.message, ranks: ranks) else { continue }
        var entered = configuration
        for (key, degree) in named.settings {
          let option = try #require(RunConfiguration.options.first { $0.key == key }, "\(key)")
          #expect(option.set(&entered, .scalar("\(degree)")) == nil, "\(problem)")
        }
        let left = problems(of: entered, ranks: named.ranks)
        #expect(
          left.isEmpty, "\(ranks) ranks, \(configuration.model), \(configuration.mesh): \(problem)")
        let kinds = [
          configuration.model.architecture.rawValue, configuration.mesh.sums.rawValue,
          configuration.mesh.placement.rawValue, named.ranks < ranks ? "fewer ranks" : "all ranks",
        ]
        for kind in kinds { counts[kind, default: 0] += 1 }
      }
    }
    // Every kind of them was there, or nothing was shown.
    for kind in ["hunyuan-video", "vchitect", "fast", "canonical", "auto", "split", "all ranks"] {
      #expect(counts[kind, default: 0] > 300, "\(counts)")
    }
    #expect(counts["fewer ranks", default: 0] > 30, "\(counts)")
  }

  /// The layout of the fault that this suite was written for.
  @Test func `what canonical sums do not go with is not named`() {
    var configuration = RunConfiguration()
    (configuration.model.architecture, configuration.model.heads) = (.vchitect, 4)
    (configuration.mesh.sums, configuration.batch.microbatches) = (.canonical, 1)
    (configuration.mesh.sp, configuration.mesh.ring) = (.fixed(1), .fixed(2))
    func message() -> String {
      problems(of: configuration, ranks: 4).map(\.message).joined()
    }
    // The plan of tokens is spatial, so the four ranks cannot share the one microbatch.
    #expect(!message().contains("mesh.sp 4"), "\(message())")
    configuration.mesh.sequencePlan = .all
    #expect(message().contains("legal here: mesh.zero 1, mesh.ring 1, mesh.sp 4"), "\(message())")
  }
}
