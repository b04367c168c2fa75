import Basics

/// What the world can do wrong to the files that a run writes about itself.
package struct MetricsError: Error, CustomStringConvertible {
  package enum Code: Hashable, Sendable {
    case cannotOpen
    case cannotRead
    case cannotWrite
  }

  /// What to do about a file that cannot be written.
  static let advice = "free some space or check the permissions, then start again"

  package let code: Code
  /// What is wrong and what to do about it.
  package let message: String
  package let cause: (any Error)?

  init(code: Code, message: String, cause: (any Error)? = nil) {
    self.code = code
    self.message = message
    self.cause = cause
  }

  package var description: String {
    cause.map { "\(message) (\(words(of: $0)))" } ?? message
  }
}
