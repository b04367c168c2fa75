// What can go wrong with stored tensors. Each message names the file, and the tensor and slice
// where there is one, and says what to do.

import DenseKernels

/// A failure of the world or of the user's files, never of the calling code.
package struct CheckpointError: Error, CustomStringConvertible {
  package enum Code: String, Sendable {
    /// A file, folder or tensor is not there.
    case notFound
    /// Bytes are not what was written: torn, flipped, or not this format at all.
    case damaged
    /// Whole, but of another model: names, shapes or fingerprint differ.
    case wrongModel
    /// An element type or format version that this program cannot read.
    case unsupported
    /// The pieces given to a commit do not cover each element exactly once.
    case incompleteCoverage
    case diskFull
    /// Another run holds the folder.
    case folderInUse
    /// Any other failure of the operating system.
    case inputOutput
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

  /// Turns a failed system call into advice; other errors pass through unchanged.
  /// - Parameter bytesNeeded: what the whole file wants, for the message of a full disk.
  static func explaining(
    _ error: any Error, whileWriting path: String? = nil, bytesNeeded: Int? = nil
  ) -> any Error {
    guard let failure = error as? SystemCallError else { return error }
    if failure.isOutOfSpace {
      let need = bytesNeeded.map { " (it needs \($0) bytes)" } ?? ""
      return CheckpointError(
        .diskFull,
        "the disk is full: \(path ?? failure.path) could not be written\(need); free some space or "
          + "keep fewer checkpoints, then start again; checkpoints written before are untouched",
        cause: failure)
    }
    if failure.isMissing {
      return CheckpointError(
        .notFound, "\(failure.path) is not there; check the path", cause: failure)
    }
    if failure.code == 0 {
      return CheckpointError(
        .damaged, "\(failure.path) is cut short; use another copy of it", cause: failure)
    }
    return CheckpointError(
      .inputOutput, "\(failure); check the disk and the permissions", cause: failure)
  }
}

/// Runs `body` and turns what it throws into a `CheckpointError` with advice.
func explainingFailures<Result>(
  whileWriting path: String? = nil, bytesNeeded: Int? = nil, _ body: () throws -> Result
) throws -> Result {
  do { return try body() } catch {
    throw CheckpointError.explaining(error, whileWriting: path, bytesNeeded: bytesNeeded)
  }
}
