import Evaluation
import Testing

@Suite struct StructuralSimilarityTests {
  @Test func `it agrees with scikit-image`() {
    let (a, b) = (fixtureClip(5), fixtureClip(13))
    #expect(abs(StructuralSimilarity.mean(a, reference: b) - 0.23688849198659157) < 1e-10)
    #expect(
      abs(
        StructuralSimilarity.mean(a, reference: b) - StructuralSimilarity.mean(b, reference: a))
        < 1e-14)
  }

  @Test func `equal clips have one`() {
    #expect(abs(StructuralSimilarity.mean(fixtureClip(5), reference: fixtureClip(5)) - 1) < 1e-14)
  }

  @Test func `flat frames leave the term of means`() {
    let value = StructuralSimilarity.mean(
      flatClip([100], height: 11, width: 11), reference: flatClip([50], height: 11, width: 11))
    let constant: Double = 2.55 * 2.55
    let expected: Double = (10_000 + constant) / (12_500 + constant)
    // The rounding of E x² − (E x)² is small beside C2 = 58.
    #expect(abs(value - expected) < 1e-11)
  }
}
