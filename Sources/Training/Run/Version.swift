// The version that programs print and runs record.

package enum Version {
  package static let text = "0.1.0"
}
