import MeshChecks
import ProcessMesh
import Testing

/// The battery that a transport must pass, on threads; `mesh-checks` runs it on MPI.
struct MeshCheckTests {
  @Test(arguments: allMeshChecks, 1...4)
  func `the in-process transport passes`(_ check: MeshCheck, size: Int) throws {
    _ = try InProcessMesh.run(size: size) { try check.body($0) }
  }

  @Test(arguments: allMeshChecks)
  func `the recording transport passes`(_ check: MeshCheck) throws {
    _ = try InProcessMesh.run(size: 3, nodes: [0, 0, 1]) {
      try check.body(RecordingTransport($0))
    }
  }
}
