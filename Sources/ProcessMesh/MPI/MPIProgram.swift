// The main function of a program whose ranks are MPI processes, and the rule for failures
// (contract 4.9): an error that leaves a rank ends the job. The rank says who it is, what happened
// and in which collective, then aborts the communicator; finalize happens on the success path only.

import Foundation
package import MessagePassing

/// Runs a program on the ranks that mpirun started.
package enum MPIProgram {
  /// Starts MPI, runs `body` on the world, ends the process with the code it returns.
  ///
  /// - Parameters:
  ///   - watchdog: a wait longer than this prints the rank's last collectives to standard error,
  ///     once. Default: 600 s. nil: never.
  ///   - exitCode: the code for an error that `body` throws. Default: 1.
  /// - Collective: over the job. All ranks should return the same code: with a non-zero one the
  ///   launcher stops the job.
  package static func run(
    watchdog: Duration? = .seconds(600),
    exitCode: (any Error) -> Int32 = { _ in 1 },
    _ body: (MPIEnvironment, any Transport) throws -> Int32
  ) -> Never {
    let environment: MPIEnvironment
    do {
      environment = try MPIEnvironment.start()
    } catch {
      report("MPI did not start: \(error)\n")
      exit(1)
    }
    let history = CollectiveHistory(worldRank: environment.world.rank, limit: watchdog)
    let transport = MPITransport(
      MPILink(environment.world, nodes: environment.nodeLeaders, history: history))
    do {
      let code = try body(environment, transport)
      try transport.barrier()
      try environment.finalize()
      exit(code)
    } catch {
      abort(error, history, code: exitCode(error))
    }
  }

  /// Says which rank failed at what and in which collective, and ends all ranks.
  static func abort(_ error: any Error, _ history: CollectiveHistory, code: Int32) -> Never {
    let place = history.recent.last.map { " (last collective: \($0))" } ?? ""
    report("rank \(history.worldRank): \(error)\(place)\n")
    MPIEnvironment.abort(code: code)
  }

  private static func report(_ text: String) {
    FileHandle.standardError.write(Foundation.Data(text.utf8))
  }
}
