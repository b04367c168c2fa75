// The linear codec: principal components of the first frame's 4×4 patches, and of 4×4×4 patches of
// the frames after it in groups of four; 16 of each, each scaled to unit variance over the data.
//
// With row vector x the pixels of a patch in [-1, 1], m the mean, V the components (orthonormal
// rows), σ the deviations: z = (x − m) Vᵀ / σ, and back x ≈ m + (z σ) V.
// Each latent frame is one matrix product of its own, so equal frames give equal bits whatever
// surrounds them.
//
// Letters: C channels, P numbers of a patch, H and W of the latent grid.

import Basics
import DenseKernels

package struct LinearCausalCodec: LatentCodec, Hashable {
  /// Components of one kind of patch.
  package struct Components: Hashable, Sendable {
    /// Frames of a patch.
    package let depth: Int
    /// P values.
    package let mean: [Float]
    /// C×P, orthonormal rows, by falling variance; in each row the largest entry is positive.
    package let basis: [Float]
    /// C standard deviations of the projections.
    package let deviations: [Float]

    package init(depth: Int, mean: [Float], basis: [Float], deviations: [Float]) {
      require(
        mean.count == depth * 48 && basis.count == mean.count * deviations.count,
        "\(mean.count) means, \(basis.count) basis numbers, \(deviations.count) deviations, "
          + "depth \(depth)")
      self.depth = depth
      self.mean = mean
      self.basis = basis
      self.deviations = deviations
    }

    var geometry: PatchGeometry { PatchGeometry(depth: depth, side: 4) }
  }

  package let first: Components
  package let group: Components

  package var channelCount: Int { first.deviations.count }
  package var temporalStride: Int { 4 }
  package var spatialStride: Int { 4 }

  /// - Precondition: both kinds have as many channels, depths are 1 and 4.
  package init(first: Components, group: Components) {
    require(
      first.deviations.count == group.deviations.count && first.depth == 1 && group.depth == 4,
      "first \(first.deviations.count) channels of depth \(first.depth), "
        + "group \(group.deviations.count) of depth \(group.depth)")
    self.first = first
    self.group = group
  }

  // MARK: Coding

  package func encode(_ clip: Video) -> Latents {
    let shape = latentShape(frameCount: clip.frameCount, height: clip.height, width: clip.width)
    let (frameCount, height, width) = (shape[1], shape[2], shape[3])
    let patchCount = height * width
    let latents = Buffer<Float>(zeroed: shape.reduce(1, *))
    let frames = Buffer(clip.values)
    let rows = Buffer<Float>(zeroed: patchCount * group.mean.count)
    for frame in 0..<frameCount {
      let components = frame == 0 ? first : group
      let patchWidth = components.mean.count
      components.geometry.cut(
        frames, frame: frame == 0 ? 0 : 4 * frame - 3, height: clip.height, width: clip.width,
        into: rows)
      Float.addBias(
        Buffer(components.mean.map { -$0 }), toRowsOf: rows[0..<patchCount * patchWidth],
        rowCount: patchCount)
      Float.multiply(
        Matrix(Buffer(components.analysis), rows: channelCount, columns: patchWidth),
        Matrix(rows, rows: patchCount, columns: patchWidth).transposed, scale: 1,
        accumulating: false,
        into: matrix(latents, frame: frame, frameCount: frameCount, patchCount: patchCount))
    }
    return Latents(
      channelCount: channelCount, frameCount: frameCount, height: height, width: width,
      values: latents.array)
  }

  package func decodeValues(_ latents: Latents) -> [Float] {
    require(
      latents.channelCount == channelCount,
      "latents have \(latents.channelCount) channels, the codec has \(channelCount)")
    let (height, width) = (latents.height * 4, latents.width * 4)
    let patchCount = latents.height * latents.width
    let source = Buffer(latents.values)
    let rows = Buffer<Float>(zeroed: patchCount * group.mean.count)
    let clipFrameCount = 1 + (latents.frameCount - 1) * 4
    let frames = Buffer<Float>(zeroed: clipFrameCount * height * width * 3)
    for frame in 0..<latents.frameCount {
      let components = frame == 0 ? first : group
      let patchWidth = components.mean.count
      Float.multiply(
        matrix(
          source, frame: frame, frameCount: latents.frameCount, patchCount: patchCount
        ).transposed,
        Matrix(Buffer(components.synthesis), rows: channelCount, columns: patchWidth),
        scale: 1,
        accumulating: false, into: Matrix(rows, rows: patchCount, columns: patchWidth))
      Float.addBias(
        Buffer(components.mean), toRowsOf: rows[0..<patchCount * patchWidth],
        rowCount: patchCount)
      components.geometry.join(
        rows, into: frames, frame: frame == 0 ? 0 : 4 * frame - 3, height: height, width: width)
    }
    return frames.array
  }

  /// One latent frame, C × H·W, inside C×F×H×W.
  private func matrix(
    _ latents: Buffer<Float>, frame: Int, frameCount: Int, patchCount: Int
  ) -> Matrix<Float> {
    Matrix(
      latents[frame * patchCount..<latents.count], rows: channelCount, columns: patchCount,
      stride: frameCount * patchCount)
  }
}

extension LinearCausalCodec.Components {
  /// V / σ, C×P.
  fileprivate var analysis: [Float] {
    basis.indices.map { basis[$0] / deviations[$0 / mean.count] }
  }

  /// σ V, C×P.
  fileprivate var synthesis: [Float] {
    basis.indices.map { basis[$0] * deviations[$0 / mean.count] }
  }
}
