// Whole jobs with Vchitect-2.0's transformer: what they leave, how they go on, and what they refuse.

import Autodiff
import Checkpoints
import DenseKernels
import Diffusion
import Foundation
import Models
import Tensors
import TestSupport
import Testing

@testable import Training

@Suite struct VchitectJobTests {
  private func configuration(
    _ change: (inout RunConfiguration) -> Void = { _ in }
  ) -> RunConfiguration {
    TinyRun.configuration {
      $0.model.architecture = .vchitect
      $0.model.doubleBlocks = 2
      change(&$0)
    }
  }

  @Test(arguments: VchitectConfiguration.BlockVariant.allCases)
  func `a job that is stopped and resumed on other ranks ends with the same bits`(
    variant: VchitectConfiguration.BlockVariant
  ) throws {
    func variantOf(_ stage: Int) -> RunConfiguration {
      configuration {
        $0.model.variant = variant
        $0.distill.guidance = 2
        $0.mesh.zeroStage = .fixed(stage)
      }
    }
    try withTemporaryFolder { folder in
      let reference = try MainJobTests.Reference(variantOf(1), in: folder)
      let place = folder.appending(path: "stopped")
      for (stop, ranks, stage) in [(3, 4, 3), (6, 2, 1), (nil, 4, 2)] {
        let end = try TinyRun.start(variantOf(stage), in: place, ranks: ranks, stopAt: stop)
        #expect(try end.outcome.get() == .resumeMe)
      }
      try reference.expectEqual(place, "\(variant), stopped twice")
    }
  }

  @Test func `its folders have the released names, and tools open them and its checkpoints`()
    throws
  {
    try withTemporaryFolder { folder in
      let end = try TinyRun.start(configuration(), in: folder, ranks: 2, stopAt: 0)
      #expect(try end.outcome.get() == .done, "\(end.words)")
      let real = try VchitectFolder(opening: folder.appending(path: "final/real"))
      #expect(real.configuration.blockCount == 2 && real.configuration.inChannels == 33)
      #expect(real.nullTokenCount == 2)
      let stored = try SafetensorsReader(
        opening: folder.appending(path: "final/generator/diffusion_pytorch_model.safetensors"))
      let names = real.configuration.parameterSpecifications.map(\.name) + ["pos_embed.pos_embed"]
      #expect(Set(stored.tensors.map(\.name)) == Set(names))

      let arena = Arena()
      let final = try StoredRun(folder.path).network(.generator, in: arena)
      #expect(final.configuration as? VchitectConfiguration == real.configuration)
      let step = try TinyRun.newestCheckpoint(in: folder)
      let networks = try CheckpointNetworks(step)
      let saved = try networks.network(.generator, usesAverage: true, in: arena)
      #expect(saved.parameters.values.array == final.parameters.values.array)
      let adapter = try networks.adapter(in: arena)
      #expect(
        adapter.configuration.targets.contains("transformer_blocks.0.attn.to_out_context"))
      #expect(Set(adapter.parameters.values.array).count > 1)

      let exported = folder.appending(path: "exported")
      try networks.export(.generator, usesAverage: true, to: exported)
      let weights = "diffusion_pytorch_model.safetensors"
      let again = try Data(contentsOf: exported.appending(path: weights))
      let written = try Data(
        contentsOf: folder.appending(path: "final/generator/\(weights)"))
      #expect(again == written)
    }
  }

  /// How two groups of ranks share the work of a microbatch.
  struct Sharing: Sendable {
    var sp = 1
    var plan = SequencePlan.spatial
    var ring = 1
    var tp = 1

    static let all = [
      Sharing(sp: 2), Sharing(sp: 2, plan: .all), Sharing(ring: 2), Sharing(tp: 2),
    ]
  }

  /// Two layouts of the whole job, samples and table included, give the same teacher and student up to the
  /// order of sums.
  @Test(arguments: Sharing.all)
  func `a job that shares tokens or cuts weights at stage 3 runs to its end`(
    sharing: Sharing
  ) throws {
    func shared(_ sharing: Sharing, stage: Int) -> RunConfiguration {
      configuration {
        $0.model.heads = 2
        $0.compute.precision = .fp32
        $0.mesh.sp = .fixed(sharing.sp)
        $0.mesh.sequencePlan = sharing.plan
        $0.mesh.ring = .fixed(sharing.ring)
        $0.mesh.tp = .fixed(sharing.tp)
        $0.mesh.zeroStage = .fixed(stage)
        $0.evaluate.samples = 5
      }
    }
    try withTemporaryFolder { folder in
      let (alone, cut) = (folder.appending(path: "alone"), folder.appending(path: "cut"))
      for (place, sharing, ranks) in [(alone, Sharing(), 1), (cut, sharing, 4)] {
        let end = try TinyRun.start(
          shared(sharing, stage: ranks == 1 ? 1 : 3), in: place, ranks: ranks, stopAt: 0)
        #expect(try end.outcome.get() == .done, "\(end.words)")
      }
      let (expected, found) = (
        try StoredRun(alone.path).network(.generator, in: Arena()).parameters.values.array,
        try StoredRun(cut.path).network(.generator, in: Arena()).parameters.values.array
      )
      let scale = expected.reduce(0) { max($0, abs($1)) }
      let worst = zip(expected, found).reduce(0) { max($0, abs($1.0 - $1.1)) }
      // Sums in fp32 in another order, over three steps of teaching and five of distilling.
      #expect(worst <= 1e-5 * scale, "weights differ by \(worst) of \(scale)")
      #expect(expected != found)
    }
  }

  @Test func `what it is taught it learns`() throws {
    try withTemporaryFolder { folder in
      let learning = configuration {
        ($0.model.heads, $0.model.headWidth) = (2, 32)
        ($0.teach.steps, $0.teach.warmupSteps, $0.teach.learningRate) = (120, 2, 1e-2)
        $0.batch.samples = 2
        $0.checkpoint.everySteps = 1_000
      }
      _ = try TinyRun.start(learning, in: folder, ranks: 2)
      let text = try String(
        contentsOf: folder.appending(path: "metrics.jsonl"), encoding: .utf8)
      let losses = try text.split(separator: "\n").compactMap { line -> (String, Double)? in
        let fields = try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any]
        guard let phase = fields?["phase"] as? String, let loss = fields?["loss"] as? Double
        else { return nil }
        return (phase, loss)
      }
      let taught = losses.filter { $0.0 == TeachPhase.name }.map(\.1)
      let distilled = losses.filter { $0.0 == DistillPhase.name }.map(\.1)
      #expect(taught.count == 120 && distilled.count == 5)
      for loss in taught + distilled { #expect(loss.isFinite) }
      // The velocity of a fresh network is zero, so the loss starts at the variance of noise and latents.
      let (first, last) = (taught.prefix(10), taught.suffix(10))
      #expect(last.reduce(0, +) < 0.8 * first.reduce(0, +), "\(taught)")

      // What it learned has a spatial branch that can be turned up.
      var request = ClipRequest(
        run: try StoredRun(folder.path),
        sampler: NamedSampler(.teacher, steps: 4, rule: .euler, shift: 3), image: nil, count: 1)
      let clip = try request.clips(configuration: learning)[0]
      request.spatialGain = 1
      #expect(try request.clips(configuration: learning)[0] == clip)
      request.spatialGain = 2
      #expect(try request.clips(configuration: learning)[0] != clip)
      request.spatialGain = -1
      #expect(throws: ModelError.self) { try request.clips(configuration: learning) }
    }
  }

  @Test func `another architecture is refused, and a folder tells its own`() throws {
    try withTemporaryFolder { folder in
      let source = folder.appending(path: "source")
      let trained = configuration {
        $0.model.variant = .v1
        $0.model.textTokens = 3
        $0.distill.method = .euler
      }
      _ = try TinyRun.start(trained, in: source, ranks: 1)
      let error = try TinyRun.failure(
        TinyRun.configuration {
          $0.model.doubleBlocks = 2
          $0.model.textTokens = 3
          $0.distill.method = .euler
        }, in: source)
      #expect(error.exitCode == .configuration)
      #expect(error.message.contains("model.architecture: is hunyuan-video"), "\(error.message)")
      #expect(error.message.contains("was made with vchitect"))

      var adopted = TinyRun.configuration {
        $0.model.checkpoint = source.appending(path: "final/real").path
        $0.teach.steps = 0
      }
      try adopted.adoptModelFolder()
      #expect(adopted.model.architecture == .vchitect && adopted.model.variant == .v1)
      #expect(adopted.model.doubleBlocks == 2 && adopted.model.textTokens == 3)
      let place = folder.appending(path: "run")
      _ = try TinyRun.start(adopted, in: place, ranks: 2)
      let (before, after) = (try TinyRun.weights(in: source), try TinyRun.weights(in: place))
      for (name, bytes) in before { #expect(after[name] == bytes, "\(name)") }
      #expect(after.keys.contains("generator/diffusion_pytorch_model.safetensors"))

      // Rules of an architecture hold for its folders as well, which the configuration cannot know.
      var ringed = TinyRun.configuration {
        $0.model.checkpoint = source.appending(path: "final/real").path
        $0.data.size = 800
      }
      let refusal = #expect(throws: ConfigurationError.self) { try ringed.adoptModelFolder() }
      #expect(refusal?.problems.map(\.key) == ["data.size"])
    }
  }
}
