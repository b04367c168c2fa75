// The model that a step benchmark runs and the sizes of its inputs.

import Basics
package import Foundation
package import Models

/// A transformer with one batch size. Defaults are those of `bench-s`.
package struct BenchmarkModel: Sendable {
  /// The name that selects the built-in model.
  package static let standardName = "bench-s"

  /// How reports call it.
  package var name = Self.standardName
  package var configuration: any TransformerConfiguration = Self.standardConfiguration
  /// Where its weights lie; nil: random weights.
  package var folder: URL?
  package var latentFrames = 5
  package var latentHeight = 32
  package var latentWidth = 32
  package var textTokenCount = 32
  package var sampleCount = 1

  package init() {}

  /// The model of a folder.
  /// - Throws: `ModelError`, `CheckpointError`.
  package init(opening folder: URL) throws {
    configuration = try Architecture.openFolder(folder).configuration
    name = folder.lastPathComponent
    self.folder = folder
  }

  /// 6 heads of 64, 4 double, 8 single, 1 refiner block, text and pooled text 384 wide, embedded
  /// guidance as in diffusers' defaults: 42.9 M parameters.
  package static var standardConfiguration: HunyuanVideoConfiguration {
    var configuration = HunyuanVideoConfiguration()
    configuration.attentionHeadCount = 6
    configuration.attentionHeadWidth = 64
    configuration.doubleBlockCount = 4
    configuration.singleBlockCount = 8
    configuration.refinerBlockCount = 1
    configuration.textEmbeddingWidth = 384
    configuration.pooledProjectionWidth = 384
    configuration.ropeAxesWidths = [16, 24, 24]
    return configuration
  }

  /// Video tokens of one sample.
  package var videoTokenCount: Int {
    configuration.tokenCount(frames: latentFrames, height: latentHeight, width: latentWidth)
  }

  /// C, F, H, W of a latent as the model predicts it.
  package var latentShape: [Int] {
    [configuration.outChannels, latentFrames, latentHeight, latentWidth]
  }

  /// - Throws: `ModelError` with everything that keeps the model from being trained on these inputs.
  package func checked() throws -> Self {
    var problems = configuration.validate()
    let channels = (configuration.inChannels, configuration.outChannels)
    if channels.0 != channels.1 && channels.0 != 2 * channels.1 + 1 {
      problems.append(
        "in_channels is \(channels.0), out_channels \(channels.1); a model that is trained here has "
          + "equal ones, or 2 · out_channels + 1 with a first frame")
    }
    let patches = [
      ("frames", latentFrames, configuration.patch[0]),
      ("rows", latentHeight, configuration.patch[1]),
      ("columns", latentWidth, configuration.patch[2]),
    ]
    for (name, count, patch) in patches where count < 1 || count % max(patch, 1) != 0 {
      problems.append("latents have \(count) \(name); give a multiple of the patch, \(patch)")
    }
    if let side = configuration.largestLatentSide, max(latentHeight, latentWidth) > side {
      problems.append(
        "latents have \(latentHeight) rows and \(latentWidth) columns; positions of this model reach to "
          + "\(side)")
    }
    if textTokenCount < 1 { problems.append("\(textTokenCount) text tokens; give at least 1") }
    if sampleCount < 1 { problems.append("a batch of \(sampleCount); give at least 1") }
    guard problems.isEmpty else {
      throw ModelError(.invalidConfiguration, problems.joined(separator: "\n"))
    }
    return self
  }
}
