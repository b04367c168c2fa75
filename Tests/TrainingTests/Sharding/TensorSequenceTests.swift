// Blocks whose weights are cut compute what whole ones do; runs with them follow the run of one rank, have the same
// bits for one degree, and go on where others stopped.

import Checkpoints
import DenseKernels
import Foundation
import MeshLayout
import TestSupport
import Testing

@testable import Training

struct TensorSequenceTests {
  /// Uneven tokens, fewer of the text than ranks, hidden ones, an adapter.
  @Test(arguments: [1, 2, 3, 6], [false, true])
  func `outputs and gradients are those of whole weights`(degree: Int, recompute: Bool) throws {
    for (sampleCount, textCount, masked, adapted) in [
      (1, 7, true, true), (2, 4, false, false), (2, 3, true, true), (1, 2, true, true),
    ] {
      try SharedTokensExample(
        sampleCount: sampleCount, textCount: textCount, masked: masked, recompute: recompute,
        adapted: adapted
      ).expectAgreement(ring: 1, sp: 1, tp: degree)
    }
  }

  @Test(arguments: [2, 4])
  func `four and eight heads may be cut in four`(perRank: Int) throws {
    try SharedTokensExample(
      sampleCount: 2, textCount: 5, masked: true, recompute: false, adapted: true,
      heads: 2 * perRank
    ).expectAgreement(ring: 1, sp: 1, tp: 4)
  }

  /// The group's tokens are a piece of what Ulysses and the ring cut, its heads a part of all.
  @Test(arguments: [(2, 1, 2), (3, 1, 3), (1, 3, 2), (1, 2, 3), (2, 3, 2)])
  func `cut weights go with a ring and with exchanged heads`(
    degrees: (ring: Int, sp: Int, tp: Int)
  ) throws {
    for recompute in [false, true] {
      try SharedTokensExample(
        sampleCount: 2, textCount: 3, masked: true, recompute: recompute, adapted: true
      ).expectAgreement(ring: degrees.ring, sp: degrees.sp, tp: degrees.tp)
    }
  }

  /// Whole training steps in fp32: the weights of one rank up to rounding.
  @Test(arguments: [(2, 1, 1, 2), (4, 1, 1, 2), (4, 1, 1, 4), (8, 1, 2, 2), (8, 2, 1, 2)])
  func `a run with cut weights follows the run of one rank`(
    ranks: Int, ring: Int, sp: Int, tp: Int
  ) throws {
    try TrainedRun(ranks: ranks, ring: ring, sp: sp, tp: tp)
      .expectAgreement(with: TrainedRun(ranks: 1))
  }

  @Test func `replicas and shards do not change a bit of a run with cut weights`() throws {
    for method in [RunConfiguration.Method.w2s, .lcm] {
      let runs = try [(2, 1), (4, 1), (4, 2), (8, 1), (8, 2), (8, 4)].map { ranks, dp in
        try TrainedRun(ranks: ranks, tp: 2) {
          $0.mesh.dp = .fixed(dp)
          $0.distill.method = method
          $0.distill.generatorSteps = 3
          $0.model.recompute = dp == 2
        }
      }
      for run in runs {
        #expect(run.weights[0] == runs[0].weights[0] && run.readings == runs[0].readings)
      }
    }
  }

  /// Sums within a group are made first, so that the degree need not be a power of two.
  @Test func `shards do not change a bit of a run with weights cut in three`() throws {
    let runs = try [(3, 1), (6, 1), (12, 2)].map { ranks, dp in
      try TrainedRun(ranks: ranks, tp: 3) {
        $0.model.heads = 3
        $0.mesh.dp = .fixed(dp)
      }
    }
    for run in runs {
      #expect(run.weights[0] == runs[0].weights[0] && run.readings == runs[0].readings)
    }
  }
}

/// Whole jobs.
struct TensorParallelJobTests {
  private func configuration(
    tp: Int, dp: Int = 1, sums: RunConfiguration.SumOrder = .fast
  ) -> RunConfiguration {
    TinyRun.configuration {
      $0.model.heads = 4
      $0.mesh.tp = .fixed(tp)
      $0.mesh.dp = .fixed(dp)
      $0.mesh.sums = sums
      $0.compute.precision = .fp32
    }
  }

  /// Elements of all final weights, by file and tensor.
  private func weights(in folder: URL) throws -> [String: [Float]] {
    var weights: [String: [Float]] = [:]
    let final = folder.appending(path: "final")
    for name in try FileManager.default.subpathsOfDirectory(atPath: final.path)
    where name.hasSuffix(".safetensors") {
      let reader = try SafetensorsReader(opening: final.appending(path: name))
      for tensor in reader.tensors {
        weights["\(name) \(tensor.name)"] = try reader.floats(tensor.name)
      }
    }
    return weights
  }

  /// Numbers of metrics by phase, step and name.
  private func metrics(_ folder: URL) throws -> [String: Double] {
    let text = try String(contentsOf: folder.appending(path: "metrics.jsonl"), encoding: .utf8)
    var numbers: [String: Double] = [:]
    for line in text.split(separator: "\n") {
      let object = try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any]
      let fields = try #require(object)
      for (name, value) in fields where name.hasSuffix("loss") || name.hasSuffix("gradient_norm") {
        let place = "\(fields["phase"] ?? "") \(fields["step"] ?? "") \(name)"
        numbers[place] = (value as? NSNumber)?.doubleValue
      }
    }
    return numbers
  }

  @Test func `losses and norms of gradients are those of one rank`() throws {
    let alone = try withTemporaryFolder { folder in
      _ = try TinyRun.start(configuration(tp: 1), in: folder, ranks: 1)
      return try metrics(folder)
    }
    #expect(alone.count { $0.key.hasSuffix("gradient_norm") } >= 8 && alone.count >= 16)
    for (ranks, tp, dp) in [(2, 2, 1), (4, 4, 1), (4, 2, 2)] {
      let found = try withTemporaryFolder { folder in
        let ended = try TinyRun.start(configuration(tp: tp, dp: dp), in: folder, ranks: ranks)
        #expect(try ended.outcome.get() == .resumeMe, "\(ended.words)")
        return try metrics(folder)
      }
      #expect(found.keys == alone.keys)
      for (name, value) in alone {
        let other = try #require(found[name])
        // While the adapter is zero the two scores differ by rounding only, at some 1e-11.
        #expect(abs(other - value) <= 1e-5 * max(abs(value), 1e-6), "\(name), tp \(tp), dp \(dp)")
      }
    }
  }

  /// The weights that a job ends with that is stopped in its seventh poll and goes on elsewhere.
  private func weights(
    from before: (ranks: Int, tp: Int, dp: Int), to after: (ranks: Int, tp: Int, dp: Int),
    sums: RunConfiguration.SumOrder = .fast
  ) throws -> [String: [Float]] {
    try withTemporaryFolder { folder in
      let stopped = try TinyRun.start(
        configuration(tp: before.tp, dp: before.dp, sums: sums), in: folder, ranks: before.ranks,
        stopAt: 7)
      #expect(try stopped.outcome.get() == .resumeMe, "\(stopped.words)")
      let ended = try TinyRun.start(
        configuration(tp: after.tp, dp: after.dp, sums: sums), in: folder, ranks: after.ranks)
      #expect((try? ended.outcome.get()) != nil, "\(ended)")
      return try weights(in: folder)
    }
  }

  /// At rest the state is the same whatever the degree: any layout goes on where any other stopped.
  @Test func `jobs are resumed with another degree`() throws {
    let alone = try weights(from: (1, 1, 1), to: (1, 1, 1))
    let scale = alone.values.joined().reduce(0) { max($0, abs($1)) }
    #expect(alone.count > 50 && scale > 0)
    for (before, after) in [((2, 2, 1), (1, 1, 1)), ((2, 1, 1), (2, 2, 1)), ((4, 4, 1), (4, 2, 2))]
    {
      let found = try weights(from: before, to: after)
      #expect(found.keys == alone.keys)
      for (name, values) in alone {
        let worst = zip(values, found[name] ?? []).reduce(0) { max($0, abs($1.0 - $1.1)) }
        #expect(
          found[name]?.count == values.count && worst <= 1e-5 * scale,
          "\(name) differs by \(worst) of \(scale), \(before) then \(after)")
      }
    }
  }

  @Test func `jobs of one degree have the same bits on any number of ranks, also resumed`() throws {
    let expected = try weights(from: (2, 2, 1), to: (2, 2, 1))
    for (before, after) in [((2, 2, 1), (4, 2, 1)), ((8, 2, 1), (4, 2, 2))] {
      #expect(try weights(from: before, to: after) == expected, "\(before) then \(after)")
    }
  }

  @Test(.enabled(if: BLASRuntime.hasAVX512))
  func `with canonical sums jobs have the bits of one rank, also resumed with another degree`()
    throws
  {
    let expected = try weights(from: (1, 1, 1), to: (1, 1, 1), sums: .canonical)
    for (before, after) in [((2, 2, 1), (1, 1, 1)), ((4, 4, 1), (4, 2, 2))] {
      let areSame = try weights(from: before, to: after, sums: .canonical) == expected
      #expect(areSame, "\(before) then \(after)")
    }
  }

  /// Samples and tables load whole blocks, behind steps that load parts.
  @Test func `a job with cut weights runs to its end`() throws {
    try withTemporaryFolder { folder in
      let ended = try TinyRun.start(configuration(tp: 2), in: folder, ranks: 4, stopAt: 0)
      #expect(try ended.outcome.get() == .done, "\(ended.words)")
      for name in ["teacher-2-of-2.json", "student-2-of-2.json"] {
        let file = folder.appending(path: "evaluation/\(name)")
        #expect(FileManager.default.fileExists(atPath: file.path), "\(name)")
      }
    }
  }
}
