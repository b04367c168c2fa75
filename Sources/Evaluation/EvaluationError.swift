import Basics

/// What the world can do wrong to an evaluation. Wrong sizes of our own making trap instead.
package struct EvaluationError: Error, CustomStringConvertible {
  package enum Code: Hashable, Sendable {
    /// A covariance was asked of fewer than two samples.
    case tooFewSamples
    /// A feature, mean or covariance is NaN or infinite.
    case notFinite
    /// A file could not be read.
    case unreadable
  }

  package let code: Code
  /// What is wrong and what to do about it.
  package let message: String
  package let cause: (any Error)?

  package init(code: Code, message: String, cause: (any Error)? = nil) {
    self.code = code
    self.message = message
    self.cause = cause
  }

  package var description: String {
    cause.map { "\(message) (\(words(of: $0)))" } ?? message
  }
}
