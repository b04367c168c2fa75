import TestSupport
import Testing

@testable import Evaluation

private func diagonal(_ values: [Double]) -> [Double] {
  var result = [Double](repeating: 0, count: values.count * values.count)
  for (index, value) in values.enumerated() { result[index * values.count + index] = value }
  return result
}

/// The integers of `lattice` in Tests/Fixtures/generate/evaluation.py.
private func lattice(_ count: Int, _ dimension: Int, _ multiplier: Int, _ modulus: Int)
  -> [[Double]]
{
  (0..<count).map { sample in
    (0..<dimension).map { feature in
      let index = sample * dimension + feature
      return Double((index * index * multiplier + 17 * index) % modulus) / Double(modulus)
    }
  }
}

private func moments(_ samples: [[Double]]) -> FeatureMoments {
  var result = FeatureMoments(featureCount: samples[0].count)
  for sample in samples { result.add(sample) }
  return result
}

@Suite struct FrechetDistanceTests {
  @Test func `diagonal Gaussians have their closed form`() throws {
    let (a, b) = ([4.0, 9, 0.25, 0], [1.0, 16, 0.25, 4])
    let mean: [Double] = [1, 2, 3, 4]
    let distance = try FrechetDistance.between(
      FeatureMoments(count: 10, mean: mean, covariance: diagonal(a)),
      FeatureMoments(count: 20, mean: mean.map { $0 + 0.5 }, covariance: diagonal(b)))
    // 4 · 0.5² + (2−1)² + (3−4)² + 0 + (0−2)²
    #expect(abs(distance - 7) < 1e-13)
  }

  @Test func `a set is at distance zero from itself, and a shift adds its square`() throws {
    let set = moments(lattice(40, 6, 7, 251))
    #expect(try FrechetDistance.between(set, set) < 1e-13)
    let shifted = moments(lattice(40, 6, 7, 251).map { $0.map { $0 + 2 } })
    #expect(abs(try FrechetDistance.between(set, shifted) - 24) < 1e-11)
  }

  @Test func `general Gaussians agree with scipy`() throws {
    let a = FeatureMoments(
      count: 9, mean: [1, -2, 0.5], covariance: [4, 1, -0.5, 1, 3, 0.25, -0.5, 0.25, 2])
    let b = FeatureMoments(
      count: 5, mean: [0.25, -1, 0], covariance: [1.5, -0.5, 0.25, -0.5, 2.5, 0.75, 0.25, 0.75, 5])
    #expect(abs(try FrechetDistance.between(a, b) - 3.664473829188441) < 1e-12)
    #expect(abs(try FrechetDistance.between(b, a) - 3.664473829188441) < 1e-12)
  }

  @Test func `sets of samples agree with scipy, standardized or not`() throws {
    let x = moments(lattice(40, 6, 7, 251))
    let y = moments(lattice(50, 6, 11, 257).map { $0.map { $0 * 1.5 + 0.1 } })
    #expect(abs(try FrechetDistance.between(x, y) - 0.7961273931204916) < 1e-12)
    #expect(abs(try FrechetDistance.standardized(y, real: x) - 9.23304824174265) < 1e-11)
  }

  @Test func `covariances without full rank are no trouble`() throws {
    let few = moments(lattice(3, 6, 7, 251))
    let other = moments(lattice(3, 6, 11, 257))
    let distance = try FrechetDistance.between(few, other)
    #expect(distance.isFinite && distance > 0)
    // A zero eigenvalue comes out as some 1e-17, its root as some 1e-9.
    #expect(abs(try FrechetDistance.between(few, few)) < 1e-7)
  }

  @Test func `one sample is an error that says so`() throws {
    let error = #expect(throws: EvaluationError.self) {
      try FrechetDistance.between(moments([[1, 2]]), moments([[1, 2], [3, 4]]))
    }
    #expect(error?.code == .tooFewSamples)
  }
}
