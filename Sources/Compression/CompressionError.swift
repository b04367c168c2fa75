// The error of this module: a message that cannot be decoded.

/// Why a message was refused.
package struct CompressionError: Error, CustomStringConvertible {
  package enum Code: Sendable {
    /// The bytes end before the message does, or go on after it.
    case truncated
    /// The header is not one of ours, or was damaged.
    case badHeader
    /// The message is of another codec, word format or length than the receiver expects.
    case unexpectedFormat
    /// The message is a difference to a base that the receiver does not hold.
    case baseMismatch
    /// A coded plane does not decode.
    case badPlane
    /// The decoded words are not those that were encoded.
    case checksumMismatch
  }

  package let code: Code
  package let message: String
  package let cause: (any Error)?

  package init(_ code: Code, _ message: String, cause: (any Error)? = nil) {
    self.code = code
    self.message = message
    self.cause = cause
  }

  package var description: String { "compressed message refused (\(code)): \(message)" }
}
