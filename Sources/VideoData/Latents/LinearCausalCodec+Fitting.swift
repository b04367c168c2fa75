// Fitting the linear codec: covariance of the training patches, then its eigenvectors by LAPACK.
//
// Every video counts equally, as the sampler draws them. Clips are also trained on mirrored and
// backward, so the moments are averaged over these turns (exactly: a turn only permutes the pixels
// of a patch). All sums before the eigenvectors are exact, and signs are fixed: a fit repeats.

import Basics
import DenseKernels

extension LinearCausalCodec {
  /// A video to fit on, of which only the first `frameCount` frames may be seen.
  package struct TrainingVideo: Sendable {
    fileprivate let frameCount: Int
    /// Those frames.
    fileprivate let read: @Sendable () throws -> Video

    package init(_ video: Video, frameCount: Int) {
      self.frameCount = frameCount
      read = { video.frames(0..<frameCount) }
    }

    init(_ frames: StoredFrames, frameCount: Int) {
      self.frameCount = frameCount
      read = { try frames.read(0..<frameCount) }
    }
  }

  /// Fits both kinds of patches.
  /// - Parameters:
  ///   - cropSize: side of the crops that training will see.
  ///   - patchLimit: patches looked at per video and kind, about. Default 20,000.
  ///   - mirrors, reverses: clips are also seen mirrored, backward.
  /// - Precondition: at least one video; at least 4 frames and 4×4 pixels each.
  /// - Throws: what reading frames and the eigenvalue solver throw.
  package init(
    fittedOn videos: [TrainingVideo], cropSize: Int, channelCount: Int = 16, mirrors: Bool = true,
    reverses: Bool = true, patchLimit: Int = 20_000
  ) throws {
    require(!videos.isEmpty, "fitting a codec on no videos")
    require(channelCount >= 1 && channelCount <= 48, "\(channelCount) of at most 48 channels")
    func components(depth: Int) throws -> Components {
      let geometry = PatchGeometry(depth: depth, side: 4)
      let moments = try videos.map { training in
        var moments = PatchMoments(geometry)
        moments.add(
          try training.read(), frameCount: training.frameCount, cropSize: cropSize,
          limit: patchLimit)
        return moments.normalized
      }
      return try Components(
        geometry, moments: moments, channelCount: channelCount, mirrors: mirrors,
        reverses: reverses)
    }
    self.init(first: try components(depth: 1), group: try components(depth: 4))
  }
}

extension LinearCausalCodec.Components {
  /// Deviations are at least this (in units where pixels span [-1, 1]), so that a component that
  /// the data does not use divides by no zero.
  private static var smallestDeviation: Double { 1e-4 }

  fileprivate init(
    _ geometry: PatchGeometry, moments: [(mean: [Double], secondMoment: [Double])],
    channelCount: Int, mirrors: Bool, reverses: Bool
  ) throws {
    let width = geometry.width
    var turns = [geometry.permutation(mirrored: false, reversed: false)]
    if mirrors { turns.append(geometry.permutation(mirrored: true, reversed: false)) }
    if reverses { turns.append(geometry.permutation(mirrored: false, reversed: true)) }
    if mirrors && reverses { turns.append(geometry.permutation(mirrored: true, reversed: true)) }

    let share = 1 / Double(moments.count * turns.count)
    var mean = [Double](repeating: 0, count: width)
    var covariance = [Double](repeating: 0, count: width * width)
    for moment in moments {
      for turn in turns {
        for row in 0..<width {
          mean[row] += moment.mean[turn[row]] * share
          for column in 0..<width {
            covariance[row * width + column] +=
              moment.secondMoment[turn[row] * width + turn[column]] * share
          }
        }
      }
    }
    for row in 0..<width {
      for column in 0..<width {
        let index = row * width + column
        covariance[index] = (covariance[index] - mean[row] * mean[column]) / (127.5 * 127.5)
      }
    }

    let (values, vectors) = try symmetricEigen(covariance, order: width)
    var basis: [Float] = []
    var deviations: [Float] = []
    for channel in 0..<channelCount {
      // Values ascend, vector i is row i.
      let row = width - 1 - channel
      let vector = Array(vectors[row * width..<(row + 1) * width])
      let sign = Self.sign(of: vector)
      basis.append(contentsOf: vector.map { Float(sign * $0) })
      deviations.append(Float(max(max(values[row], 0).squareRoot(), Self.smallestDeviation)))
    }
    self.init(
      depth: geometry.depth, mean: mean.map { Float($0 / 127.5 - 1) }, basis: basis,
      deviations: deviations)
  }

  /// The sign that makes the entry of largest magnitude positive; among entries equal up to
  /// rounding (mirrored patches have such pairs) the first one decides.
  private static func sign(of vector: [Double]) -> Double {
    let largest = vector.reduce(0) { max($0, abs($1)) }
    let first = vector.first { abs($0) > largest * 0.999_999 } ?? 1
    return first < 0 ? -1 : 1
  }
}
