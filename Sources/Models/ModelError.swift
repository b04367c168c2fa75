// What can be wrong with a user's model, adapter or inputs.

/// A configuration, folder or input file that does not fit. The message says what to do.
package struct ModelError: Error, CustomStringConvertible {
  package enum Code: String, Sendable {
    /// A configuration contradicts itself.
    case invalidConfiguration
    /// A model or adapter of a kind that this program does not run.
    case unsupported
    /// Files that belong to another model.
    case wrongModel
    /// An input tensor is missing or has another shape than the model takes.
    case wrongInput
  }

  package let code: Code
  package let message: String
  package let cause: (any Error)?

  package init(_ code: Code, _ message: String, cause: (any Error)? = nil) {
    self.code = code
    self.message = message
    self.cause = cause
  }

  package var description: String { message }
}
