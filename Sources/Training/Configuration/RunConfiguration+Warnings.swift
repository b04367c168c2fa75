// Settings that are legal but change nothing, so that nobody waits for their effect.

import DenseKernels
import Models

extension RunConfiguration {
  /// Options that differ from their defaults without effect, a line for each reason.
  ///
  /// Asked before `adoptModelFolder`, which replaces what the user said of the model.
  package var warnings: [String] {
    var lines: [String] = []
    let defaults = RunConfiguration()
    func idle(_ keys: [String], because reason: String) {
      let changed = Self.options.filter { option in
        keys.contains(option.key) && option.text(self) != option.text(defaults)
      }
      guard !changed.isEmpty else { return }
      lines.append("without effect, since \(reason): \(changed.map(\.key).joined(separator: ", "))")
    }
    func distillation(_ names: String...) -> [String] { names.map { "distill.\($0)" } }

    switch distill.method {
    case .euler:
      let used = distillation("method", "generatorSteps", "flowShift")
      idle(
        Self.options.map(\.key).filter { $0.hasPrefix("distill.") && !used.contains($0) }
          + ["sample.rule"], because: "distill.method is euler")
    case .lcm:
      idle(
        distillation(
          "criticRatio", "alphaWeak", "alphaStrong", "rollout", "depths", "scoreShift",
          "scoreMinimum", "scoreMaximum", "lambdaGroundTruth", "groundTruthTerm",
          "lambdaAdversarial", "lambdaDiscriminator", "discriminatorWidth", "loraRank", "loraAlpha",
          "criticLearningRate"), because: "distill.method is lcm")
    case .dmd2, .w2s:
      if distill.method == .dmd2 {
        idle(distillation("alphaWeak"), because: "distill.method is dmd2")
      }
      idle(distillation("consistencyEMA"), because: "distill.method is not lcm")
      if distill.lambdaAdversarial == 0 {
        idle(
          distillation("lambdaDiscriminator", "discriminatorWidth"),
          because: "distill.lambdaAdversarial is 0")
      } else if distill.lambdaDiscriminator == 0 {
        lines.append("distill.lambdaDiscriminator is 0, so the discriminator never learns")
      }
      if distill.lambdaGroundTruth == 0 {
        idle(distillation("groundTruthTerm"), because: "distill.lambdaGroundTruth is 0")
      }
    }
    if distill.generatorSteps == 1 && distill.method != .euler {
      idle(["distill.depths", "sample.rule"], because: "distill.generatorSteps is 1")
    }
    if model.checkpoint.isEmpty {
      switch model.architecture {
      case .hunyuanVideo:
        idle(
          ["model.variant", "model.spatialGain", "mesh.sequencePlan"],
          because: "model.architecture is hunyuan-video")
      case .vchitect:
        idle(
          ["singleBlocks", "refinerBlocks", "mlpRatio", "guidanceEmbedding"].map {
            "model.\($0)"
          }, because: "model.architecture is vchitect")
      }
    } else {
      idle(
        [
          "architecture", "variant", "spatialGain", "heads", "headWidth", "doubleBlocks",
          "singleBlocks", "refinerBlocks", "mlpRatio",
          "textWidth", "pooledWidth", "guidanceEmbedding",
        ].map { "model.\($0)" }, because: "model.checkpoint brings its own sizes")
    }
    if mesh.sums == .canonical && !BLASRuntime.hasAVX512 {
      lines.append(
        "mesh.sums is canonical, but without AVX-512 products of parts may differ from those of the whole, so "
          + "layouts may still differ in their last bits")
    }
    if mesh.placement == .colocated || !canSplitRoles {
      idle(
        ["Ranks", "ZeroStage", "Dp", "Ring", "Sp", "Tp", "Stages"].map { "mesh.generator\($0)" },
        because: mesh.placement == .colocated
          ? "mesh.placement is colocated" : "distill.method is \(distill.method.rawValue)")
    }
    if !data.paths.isEmpty {
      idle(["data.folder", "data.proceduralPeople"], because: "data.paths names the videos")
    }
    return lines
  }
}
