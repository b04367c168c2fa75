/// What the world can do wrong to the files that a run writes about itself.
package struct MetricsError: Error, CustomStringConvertible {
  package enum Code: Hashable, Sendable {
    case cannotOpen
    case cannotRead
    case cannotWrite
  }

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
    cause.map { "\(message) (\($0))" } ?? message
  }
}
