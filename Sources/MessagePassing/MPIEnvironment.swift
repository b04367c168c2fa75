// The life of MPI in a process: started once, finalized on the success path only (never in a
// deinit: a failing rank would wait in finalize for peers that wait in a collective), aborted on
// failure.

import COpenMPI
import Foundation

/// MPI, started.
package struct MPIEnvironment {
  /// All ranks of the job, in a communicator of our own.
  package let world: Communicator
  /// For every world rank, the lowest world rank on its node.
  package let nodeLeaders: [Int]

  /// Starts MPI on the calling thread, which alone may call it until another adopts it.
  /// - Collective: over the job; once per process.
  package static func start() throws(MPIError) -> MPIEnvironment {
    try Checked.initialize()
    MPIThread.adoptCurrent()
    let raw = unsafe w2svd_mpi_comm_world()
    guard let raw = unsafe raw else { preconditionFailure("MPI_COMM_WORLD is null") }
    try unsafe Checked.returnErrors(on: raw)
    let world = try unsafe Communicator(Checked.duplicate(raw), progress: Progress())
    let node = try world.splitByNode()
    let leader = try node.allGather(world.rank).min() ?? world.rank
    try node.free()
    return MPIEnvironment(world: world, nodeLeaders: try world.allGather(leader))
  }

  /// On how many nodes the job runs.
  package var nodeCount: Int { Set(nodeLeaders).count }

  /// Ends MPI. Call it on the success path only, when nothing is under way.
  /// - Collective: over the job.
  package func finalize() throws(MPIError) { try Checked.finalize() }

  /// Ends all ranks of the job at once with `code`.
  package static func abort(code: Int32) -> Never {
    unsafe MPI_Abort(w2svd_mpi_comm_world(), code)
    // MPI_Abort does not return; if a library's did, the launcher still sees the code.
    exit(code)
  }

  /// The library's own words, such as "Open MPI v4.1.4, …". Works before `start()`.
  package static func libraryVersion() throws(MPIError) -> String { try Checked.libraryVersion() }
}
