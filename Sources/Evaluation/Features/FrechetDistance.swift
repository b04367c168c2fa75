// The Fréchet (2-Wasserstein) distance between Gaussians fitted to two sets of features:
//
//   d² = |μa − μb|² + tr A + tr B − 2 tr (A^½ B A^½)^½
//
// The symmetric form of the last term is real and its argument positive semidefinite, so that two
// symmetric eigendecompositions give it; eigenvalues that rounding made negative count as 0.
//
// Finite samples bias it upwards: E d²_N ≈ d² + c/N with c depending on the set, so that two draws
// of one set are not at 0. Compare only at equal N, beside the value of real against real.
// - Source: Dowson, Landau 1982; Heusel et al. 2017 (1706.08500); bias: Chong, Forsyth 2019
//   (1911.07023). Covariances are divided by n − 1, as in pytorch-fid.

import Basics
import DenseKernels

package enum FrechetDistance {
  /// d² of the Gaussians of two sets, in Float64.
  ///
  /// - Throws: `tooFewSamples` if a set has fewer than two samples, `notFinite`.
  package static func between(_ a: FeatureMoments, _ b: FeatureMoments) throws -> Double {
    let count = a.featureCount
    require(b.featureCount == count, "\(count) features against \(b.featureCount)")
    let covarianceA = try a.covariance()
    let covarianceB = try b.covariance()
    var result = 0.0
    for index in 0..<count {
      let shift = a.mean[index] - b.mean[index]
      result += shift * shift
      result += covarianceA[index * count + index] + covarianceB[index * count + index]
    }
    let root = try squareRoot(covarianceA, count)
    let product = multiplied(multiplied(root, covarianceB, count), root, count)
    let crossTrace = try symmetricEigen(symmetrized(product, count), order: count).values
      .reduce(0) { $0 + max($1, 0).squareRoot() }
    return max(result - 2 * crossTrace, 0)
  }

  /// d² after both sets are standardized by the mean and deviation of each feature of the real set.
  ///
  /// This is the reported random-feature Fréchet distance; it is not symmetric.
  /// - Throws: as `between`.
  package static func standardized(_ set: FeatureMoments, real: FeatureMoments) throws -> Double {
    let scales = try real.scales()
    return try between(
      set.rescaled(origin: real.mean, scales: scales),
      real.rescaled(origin: real.mean, scales: scales))
  }

  /// V diag(√max(λ, 0)) Vᵀ.
  private static func squareRoot(_ matrix: [Double], _ count: Int) throws -> [Double] {
    let eigen = try symmetricEigen(matrix, order: count)
    var scaled = eigen.vectors
    var transposed = scaled
    for index in 0..<count {
      let root = max(eigen.values[index], 0).squareRoot()
      for column in 0..<count {
        scaled[index * count + column] *= root
        transposed[column * count + index] = eigen.vectors[index * count + column]
      }
    }
    return multiplied(transposed, scaled, count)
  }

  private static func multiplied(_ a: [Double], _ b: [Double], _ count: Int) -> [Double] {
    var result = [Double](repeating: 0, count: count * count)
    for row in 0..<count {
      for inner in 0..<count {
        let factor = a[row * count + inner]
        for column in 0..<count {
          result[row * count + column] += factor * b[inner * count + column]
        }
      }
    }
    return result
  }

  private static func symmetrized(_ a: [Double], _ count: Int) -> [Double] {
    var result = a
    for row in 0..<count {
      for column in 0..<count {
        result[row * count + column] = (a[row * count + column] + a[column * count + row]) / 2
      }
    }
    return result
  }
}
