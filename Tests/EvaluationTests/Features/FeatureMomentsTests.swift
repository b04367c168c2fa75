import TestSupport
import Testing

@testable import Evaluation

private let samples: [[Float]] = (0..<23).map { (sample: Int) -> [Float] in
  (0..<4).map { (feature: Int) -> Float in
    let integer: Int = sample * sample * 7 + feature * 13 + sample * feature
    return Float(integer % 41) / 8
  }
}

@Suite struct FeatureMomentsTests {
  @Test func `mean and covariance are those of the definition`() throws {
    let moments = FeatureMoments(of: samples)
    let means = (0..<4).map { index in samples.reduce(0) { $0 + Double($1[index]) } / 23 }
    var covariance: [Double] = []
    for i in 0..<4 {
      for j in 0..<4 {
        let sum = samples.reduce(0) { $0 + (Double($1[i]) - means[i]) * (Double($1[j]) - means[j]) }
        covariance.append(sum / 22)
      }
    }
    #expect(moments.count == 23)
    #expect(difference(moments.mean, means, absolute: 1e-14) == nil)
    #expect(difference(try moments.covariance(), covariance, absolute: 1e-13) == nil)
  }

  @Test func `fewer than two samples have no covariance`() throws {
    for count in 0..<2 {
      var moments = FeatureMoments(featureCount: 4)
      for sample in samples[..<count] { moments.add(sample) }
      let error = #expect(throws: EvaluationError.self) { try moments.covariance() }
      #expect(error?.code == .tooFewSamples)
      #expect(error?.message.contains("there are \(count)") == true)
    }
  }

  @Test func `a feature that is not a number is an error`() throws {
    let moments = FeatureMoments(of: [[1, 2], [.nan, 2], [3, 4]])
    let error = #expect(throws: EvaluationError.self) { try moments.covariance() }
    #expect(error?.code == .notFinite)
  }

  @Test func `a feature that does not vary has scale one`() throws {
    let scales = try FeatureMoments(of: [[0.1, 1], [0.1, 3], [0.1, 5]]).scales()
    #expect(scales[0] == 1)
    #expect(scales[1] == 2)
  }
}
