import MessagePassing
import Testing

/// What needs no mpirun; the guard against other threads is tried by `mesh-checks --wrong-thread`.
struct MPIThreadTests {
  @Test func `calling MPI before it is started traps`() async {
    await #expect(processExitsWith: .failure) { MPIThread.preconditionIsCurrent() }
  }

  @Test func `the library says its name without being started`() throws {
    #expect(try MPIEnvironment.libraryVersion().contains("MPI"))
    #expect(try !MPIEnvironment.libraryVersion().contains("\0"))
  }

  @Test func `an error names call, rank and reason`() {
    let error = MPIError(code: .callFailed(6), call: "MPI_Isend", rank: 2, message: "invalid rank")
    #expect(error.description == "MPI_Isend failed on rank 2: invalid rank")
  }
}
