// Model FLOPs in closed form: matrix products and attention, a multiply-add counted as two. Norms,
// activations, masks that hide keys and recomputation count nothing.
//
// With B samples, L video and T text tokens, D width, M width of the MLP, E and P widths of text and
// pooled text, V elements of a patch (all channels), 256 the sinusoids, r the adapter's rank:
//   products / 2B = L V_in D + L D V_out + 2DD                                      patch, output
//     + (256 D + DD) (1 + guidance) + P D + DD                                      embeddings
//     + 256 D + DD + E D + DD + T E D + refiner blocks · (T (4DD + 8DD) + 2DD)      text
//     + double · (12 DD + (L + T) (4DD + 2DM))                                      two streams
//     + single · (3 DD + (L + T) (3DD + DM + (D + M) D))                            one stream
//   attention / 4B = refiner blocks · T² D + (double + single) · (L + T)² D
//   adapter / 2Br = double · (L + T) (8D + 2 (D + M)) + single · (L + T) (6D + (D + M) + (D + M + D))
// Of Vchitect-2.0, with F frames of S image and T text tokens, b blocks, i and j square linears of an image and
// of a text token (10 and 6; 6 and 5 for one frame; 4 and 4 in form v1):
//   products / 2B = F S V_in D + F S D V_out + 2DD + 256 D + DD + P D + DD + T E D            ends
//     + (6b + 6 (b − 1) + 2) DD                                                       modulation
//     + F (b S (i DD + 2DM) + (b − 1) T (j DD + 2DM) + 2 T DD)                       the last text: k, v
//   attention / 4B = F (b S + (b − 1) T) (S + T, and F beyond one frame, and T in form v2) D
//   adapter / 2Br = the last line of the products with D + D for DD, 2 (D + M) for 2DM
// A trained pass is counted as three forward passes; through frozen weights the products' way back is
// one (input gradients only), attention's and the adapter's two.

import Models

/// Operations of one forward pass by kind.
package struct OperationCount: Equatable, Sendable {
  /// Products with weights.
  package var linear = 0.0
  /// q kᵀ and p v.
  package var attention = 0.0
  /// Low-rank updates, where an adapter runs.
  package var adapter = 0.0

  package init(linear: Double, attention: Double, adapter: Double) {
    self.linear = linear
    self.attention = attention
    self.adapter = adapter
  }

  /// - Parameter adapterRank: 0 where none runs; all linears of the blocks are adapted.
  package init(_ model: BenchmarkModel, adapterRank: Int = 0) {
    switch model.configuration.blockStructure {
    case .doubleAndSingleStream(let double, let single, let refiner):
      self.init(
        model, adapterRank: adapterRank, double: Double(double), single: Double(single),
        refiner: Double(refiner))
    case .multimodal(let count, let variant, _):
      self.init(model, adapterRank: adapterRank, multimodal: Double(count), variant)
    }
  }

  /// Of HunyuanVideo, by numbers of its blocks.
  private init(
    _ model: BenchmarkModel, adapterRank: Int, double: Double, single: Double, refiner: Double
  ) {
    let sizes = model.configuration
    let batch = Double(model.sampleCount)
    let (d, m) = (Double(sizes.width), Double(sizes.mlpWidth))
    let (l, t) = (Double(model.videoTokenCount), Double(model.textTokenCount))
    let (e, p) = (Double(sizes.textEmbeddingWidth), Double(sizes.pooledProjectionWidth))
    let patch = Double(sizes.patchVolume)
    let sinusoid = 256 * d + d * d

    let ends =
      l * patch * Double(sizes.inChannels) * d + l * d * patch * Double(sizes.outChannels)
      + 2 * d * d
    let embeddings = sinusoid * (sizes.guidanceEmbeds ? 2 : 1) + p * d + d * d
    let text = sinusoid + e * d + d * d + t * e * d + refiner * (t * 12 * d * d + 2 * d * d)
    let twoStreams = double * (12 * d * d + (l + t) * (4 * d * d + 2 * d * m))
    let oneStream = single * (3 * d * d + (l + t) * (3 * d * d + d * m + (d + m) * d))
    linear = 2 * batch * (ends + embeddings + text + twoStreams + oneStream)
    attention =
      4 * batch * (refiner * t * t * d + (double + single) * (l + t) * (l + t) * d)
    adapter =
      2 * batch * Double(adapterRank) * (l + t)
      * (double * (8 * d + 2 * (d + m)) + single * (6 * d + (d + m) + (2 * d + m)))
  }

  /// Of Vchitect-2.0, by the number of its blocks.
  private init(
    _ model: BenchmarkModel, adapterRank: Int, multimodal blocks: Double,
    _ variant: VchitectConfiguration.BlockVariant
  ) {
    let sizes = model.configuration
    let batch = Double(model.sampleCount)
    let (d, m) = (Double(sizes.width), Double(sizes.mlpWidth))
    let (l, t) = (Double(model.videoTokenCount), Double(model.textTokenCount))
    let frames = Double(model.latentFrames)
    let s = l / frames
    let isVideo = model.latentFrames > 1
    let patch = Double(sizes.patchVolume)
    let (e, p) = (Double(sizes.textEmbeddingWidth), Double(sizes.pooledProjectionWidth))
    // The last block's text gives keys and values alone.
    let squares: (image: Double, text: Double) =
      switch (variant, isVideo) {
      case (.v1, _): (4, 4)
      case (.v2, true): (10, 6)
      case (.v2, false): (6, 5)
      }
    let squareRows =
      frames * (blocks * s * squares.image + (blocks - 1) * t * squares.text + 2 * t)
    let mlpRows = frames * (blocks * s + (blocks - 1) * t)
    let ends =
      l * patch * (Double(sizes.inChannels) + Double(sizes.outChannels)) * d + 2 * d * d
      + 256 * d + d * d + p * d + d * d + t * e * d
    let modulation = (blocks * 6 + (blocks - 1) * 6 + 2) * d * d
    let queryRows = frames * (blocks * s + (blocks - 1) * t)
    let keyCount = (s + t) + (isVideo ? frames : 0) + (variant == .v2 ? t : 0)
    self.init(
      linear: 2 * batch * (ends + modulation + squareRows * d * d + mlpRows * 2 * d * m),
      attention: 4 * batch * queryRows * keyCount * d,
      adapter: 2 * batch * Double(adapterRank)
        * (squareRows * 2 * d + mlpRows * 2 * (d + m)))
  }

  /// One forward pass.
  package var forward: Double { linear + attention + adapter }
  /// Forward and backward, all weights trained.
  package var trained: Double { 3 * forward }
  /// Forward and backward, the adapter trained and the weights frozen.
  package var adapterTrained: Double { forward + linear + 2 * attention + 2 * adapter }

  /// What one run of a mode counts.
  package static func total(_ mode: StepMode, _ model: BenchmarkModel) -> Double {
    let plain = OperationCount(model)
    let adapted = OperationCount(model, adapterRank: StepRun.adapterRank)
    switch mode {
    case .forward: return plain.forward
    case .train: return plain.trained
    // Generator; two real scores and one fake; the critic's step.
    case .iteration: return plain.trained + 3 * adapted.forward + adapted.adapterTrained
    }
  }
}
