// What MPI reports, with the call and the rank that saw it.

/// A failed MPI call.
package struct MPIError: Error, CustomStringConvertible, Sendable {
  package enum Code: Equatable, Sendable {
    /// A call returned this MPI error code.
    case callFailed(Int32)
    /// The library cannot do what the program needs.
    case unsupported
    /// A message does not have the form that peers of this program send.
    case malformedMessage
  }

  package let code: Code
  /// The C function, such as `MPI_Isend`.
  package let call: String
  /// The world rank; -1 before MPI knows it.
  package let rank: Int
  package let message: String
  package var cause: (any Error)? { nil }

  package init(code: Code, call: String, rank: Int, message: String) {
    self.code = code
    self.call = call
    self.rank = rank
    self.message = message
  }

  package var description: String { "\(call) failed on rank \(rank): \(message)" }
}
