// Runs the mesh checks on MPI: `mpirun -np N mesh-checks`, N from 1 to 4 or more.
//
// One line per check on rank 0, then "N passed, N failed". A failure on any rank ends the job with
// exit code 1, naming rank and check. With `--throw-on RANK` the rank throws while its peers wait
// in a collective, with `--stall-on RANK` it comes five seconds late, with `--wrong-thread RANK` it
// enters MPI from another thread: for trying the failure rule and the guards by hand and in CI.

import Foundation
import MeshChecks
import MessagePassing
import ProcessMesh

struct Usage: Error, CustomStringConvertible {
  let description = "usage: mesh-checks [--throw-on RANK | --stall-on RANK | --wrong-thread RANK]"
}

/// The check that a rank failed in, and how many went well before.
struct FailedCheck: Error, CustomStringConvertible {
  let name: String
  let passedCount: Int
  let cause: any Error

  var description: String { "FAILED \(name): \(cause)\n\(passedCount) passed, 1 failed" }
}

let arguments = Array(CommandLine.arguments.dropFirst())

MPIProgram.run(watchdog: arguments.first == "--stall-on" ? .seconds(1) : .seconds(60)) {
  environment, world in
  func say(_ line: String) {
    if world.isRoot { FileHandle.standardOutput.write(Foundation.Data((line + "\n").utf8)) }
  }
  if let mode = arguments.first {
    guard arguments.count == 2, let rank = Int(arguments[1]) else { throw Usage() }
    switch mode {
    case "--throw-on":
      if world.rank == rank { throw CheckFailure(description: "thrown on purpose") }
    case "--stall-on":
      if world.rank == rank { Thread.sleep(forTimeInterval: 5) }
    case "--wrong-thread":
      if world.rank == rank {
        Thread.detachNewThread { MPIThread.preconditionIsCurrent() }
        Thread.sleep(forTimeInterval: 60)
      }
    default: throw Usage()
    }
    try world.barrier()
    return 0
  }

  say("\(try MPIEnvironment.libraryVersion())")
  say("\(world.size) ranks on \(environment.nodeCount) nodes")
  // Once as it is, once with parts so short that every long message travels in many.
  let short = try environment.world.duplicate()
  short.partByteCount = 70_001
  let inParts = MPITransport(
    MPILink(
      short, nodes: environment.nodeLeaders,
      history: CollectiveHistory(worldRank: world.rank, limit: .seconds(60))))
  var passedCount = 0
  for (transport, remark) in [(world, ""), (inParts as any Transport, ", in short parts")] {
    for check in allMeshChecks {
      let start = ContinuousClock.now
      do {
        try check.body(transport)
      } catch {
        throw FailedCheck(name: check.name + remark, passedCount: passedCount, cause: error)
      }
      try world.barrier()
      passedCount += 1
      let milliseconds = (ContinuousClock.now - start) / .milliseconds(1)
      say("ok \(check.name)\(remark) (\(Int(milliseconds)) ms)")
    }
  }
  say("\(passedCount) passed, 0 failed")
  return 0
}
