// How a job ends, and the error that all ranks agree on (contract 4.9).

import Checkpoints
import MeshLayout
import Models
package import ProcessMesh
import VideoData

/// The documented exit codes.
package enum ExitCode: Int32, Codable, Sendable {
  case done = 0
  case other = 1
  case configuration = 2
  /// Saved on a signal; start again to go on.
  case resumeMe = 75
}

/// A failure that every rank knows of: rank 0 prints it, all end with its code.
package struct JobError: Error, Codable, Sendable, CustomStringConvertible {
  package let exitCode: ExitCode
  package let message: String
  /// Whether it may be only what another rank's failure led to, such as a file that is gone.
  let isConsequence: Bool

  package init(exitCode: ExitCode, _ message: String) {
    self.init(exitCode: exitCode, message, isConsequence: false)
  }

  private init(exitCode: ExitCode, _ message: String, isConsequence: Bool) {
    self.exitCode = exitCode
    self.message = message
    self.isConsequence = isConsequence
  }

  /// What the user can mend in files or options is a configuration error; the rest is not.
  package init(_ error: any Error) {
    switch error {
    case let error as JobError: self = error
    case let error as ConfigurationError: self.init(exitCode: .configuration, "\(error)")
    case let error as MeshLayoutError: self.init(exitCode: .configuration, "\(error)")
    case let error as ModelError: self.init(exitCode: .configuration, "\(error)")
    case let error as VideoError:
      let isUsersFile = ![.toolMissing, .toolFailed, .unwritable, .damagedSet]
        .contains(error.code)
      self.init(exitCode: isUsersFile ? .configuration : .other, "\(error)")
    case let error as CheckpointError:
      self.init(
        exitCode: error.code == .wrongModel ? .configuration : .other, "\(error)",
        isConsequence: error.code == .notFound)
    default: self.init(exitCode: .other, "\(error)")
    }
  }

  package var description: String { message }
}

/// A value or the failure, as it travels from the root to the others.
private enum Outcome<Value: Codable>: Codable {
  case success(Value)
  case failure(JobError)
}

/// Runs `body`; a bad file that an option names is a problem of that option.
func blaming<Value>(_ key: String, _ body: () throws -> Value) throws -> Value {
  func problem(_ error: any Error) -> ConfigurationError {
    ConfigurationError([ConfigurationProblem(key, "\(error)")])
  }
  do {
    return try body()
  } catch let error as CheckpointError {
    throw problem(error)
  } catch let error as ModelError {
    throw problem(error)
  }
}

extension Transport {
  /// Rank 0 does the work; every rank gets its result, or throws its error as a `JobError`.
  /// - Collective: over the group; `body` must not call collectives.
  package func onRoot<Value: Codable>(_ body: () throws -> Value) throws -> Value {
    var outcome: Outcome<Value>?
    if rank == 0 {
      do { outcome = .success(try body()) } catch { outcome = .failure(JobError(error)) }
    }
    switch try broadcast(value: outcome, root: 0) {
    case .success(let value): return value
    case .failure(let error): throw error
    }
  }

  /// Rank 0 does the work; the others wait for it, and throw its error.
  /// - Collective: over the group; `body` must not call collectives.
  package func onRoot(_ body: () throws -> Void) throws {
    let _: Bool = try onRoot {
      try body()
      return true
    }
  }

  /// Every rank does the work; if it fails anywhere, all throw the first failing rank's error,
  /// or the first that is not the consequence of another's.
  /// - Collective: over the group; `body` must not call collectives.
  package func onEveryRank<Value>(_ body: () throws -> Value) throws -> Value {
    let outcome = Result { try body() }
    var failure: JobError?
    if case .failure(let error) = outcome { failure = JobError(error) }
    let failures = try allGather(value: failure).compactMap(\.self)
    if let cause = failures.first(where: { !$0.isConsequence }) ?? failures.first { throw cause }
    return try outcome.get()
  }
}
