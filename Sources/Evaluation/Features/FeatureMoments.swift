// Mean and covariance of features, gathered one sample at a time in Float64.
//
// Sums run by Welford's recurrence, sets are joined by Chan's rule. Both round, so the last bits
// depend on the order of samples and joins: add in sample order and join in rank order, and equal
// runs give equal bits. Where the bits must not depend on the number of ranks, gather the features
// and add them on one rank.
// - Source: Welford 1962; Chan, Golub, LeVeque 1979.

import Basics

/// Count, mean and scatter matrix of a set of feature vectors.
package struct FeatureMoments: Hashable, Sendable {
  package private(set) var count = 0
  package private(set) var mean: [Double]
  /// Σ (x − mean)(x − mean)ᵀ, D×D, symmetric.
  package private(set) var scatter: [Double]

  package init(featureCount: Int) {
    require(featureCount > 0, "moments of \(featureCount) features")
    mean = [Double](repeating: 0, count: featureCount)
    scatter = [Double](repeating: 0, count: featureCount * featureCount)
  }

  /// The moments of samples, added in their order. With no sample there is no feature count: trap.
  package init(of samples: [[Float]]) {
    require(!samples.isEmpty, "moments of no samples")
    self.init(featureCount: samples[0].count)
    for sample in samples { add(sample) }
  }

  /// A Gaussian given by its parameters, as if estimated from `count` samples.
  package init(count: Int, mean: [Double], covariance: [Double]) {
    require(count > 1, "a covariance of \(count) samples")
    require(
      covariance.count == mean.count * mean.count,
      "\(covariance.count) covariances for \(mean.count) features")
    self.count = count
    self.mean = mean
    scatter = covariance.map { $0 * Double(count - 1) }
  }

  package var featureCount: Int { mean.count }

  package mutating func add(_ features: [Float]) { add(features.map { Double($0) }) }

  package mutating func add(_ features: [Double]) {
    require(
      features.count == featureCount, "\(features.count) features added to \(featureCount)")
    count += 1
    let before = zip(features, mean).map { $0 - $1 }
    for index in mean.indices { mean[index] += before[index] / Double(count) }
    addToScatter(before, scale: Double(count - 1) / Double(count))
  }

  /// The covariance matrix, divided by n − 1, D×D.
  ///
  /// - Throws: `tooFewSamples` below two samples, `notFinite`.
  package func covariance() throws -> [Double] {
    guard count >= 2 else {
      throw EvaluationError(
        code: .tooFewSamples,
        message: "a covariance needs at least 2 samples, there are \(count): evaluate more clips")
    }
    let result = scatter.map { $0 / Double(count - 1) }
    guard result.allSatisfy(\.isFinite), mean.allSatisfy(\.isFinite) else {
      throw EvaluationError(
        code: .notFinite,
        message: "the features of \(count) samples are not all finite: look at the clips")
    }
    return result
  }

  /// Standard deviation of each feature; 1 where the feature does not vary, so that dividing by it
  /// is harmless and a set in which it does vary still shows.
  ///
  /// - Throws: as `covariance()`.
  package func scales() throws -> [Double] {
    let covariance = try covariance()
    return mean.indices.map { index in
      let deviation = covariance[index * featureCount + index].squareRoot()
      return deviation > 1e-9 * max(abs(mean[index]), 1e-9) ? deviation : 1
    }
  }

  /// The moments of (x − origin) / scale per feature.
  package func rescaled(origin: [Double], scales: [Double]) -> Self {
    require(
      origin.count == featureCount && scales.count == featureCount,
      "\(origin.count) origins and \(scales.count) scales for \(featureCount) features")
    var result = self
    for row in 0..<featureCount {
      result.mean[row] = (mean[row] - origin[row]) / scales[row]
      for column in 0..<featureCount {
        result.scatter[row * featureCount + column] /= scales[row] * scales[column]
      }
    }
    return result
  }

  /// scatter += scale · d dᵀ.
  private mutating func addToScatter(_ d: [Double], scale: Double) {
    for row in 0..<featureCount {
      let factor = scale * d[row]
      for column in 0..<featureCount { scatter[row * featureCount + column] += factor * d[column] }
    }
  }
}
