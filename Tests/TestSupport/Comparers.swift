// Elementwise comparison with a bound that is absolute + relative, and the worst offender named.

/// The first line of what differs, or nil when every element is within
/// `absolute + relative · |expected|`. NaN never agrees with anything but NaN.
package func difference<S: BinaryFloatingPoint>(
  _ actual: [S], _ expected: [S], absolute: Double, relative: Double = 0
) -> String? {
  guard actual.count == expected.count else {
    return "\(actual.count) elements against \(expected.count)"
  }
  var worst: (index: Int, excess: Double)?
  for index in actual.indices {
    let (a, e) = (Double(actual[index]), Double(expected[index]))
    if a == e || (a.isNaN && e.isNaN) { continue }
    let excess = abs(a - e) / (absolute + relative * abs(e))
    if !(excess <= 1), excess.isNaN || excess > (worst?.excess ?? 0) { worst = (index, excess) }
  }
  return worst.map {
    "element \($0.index): \(actual[$0.index]) against \(expected[$0.index]), \($0.excess) times the bound"
  }
}

/// Largest magnitude, for bounds that are stated relative to a tensor's scale.
package func largestMagnitude<S: BinaryFloatingPoint>(_ values: [S]) -> Double {
  values.reduce(0) { max($0, abs(Double($1))) }
}
