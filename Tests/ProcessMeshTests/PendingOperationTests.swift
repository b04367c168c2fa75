import ProcessMesh
import Testing

struct PendingOperationTests {
  @Test func `dropping a started collective without waiting traps`() async {
    await #expect(processExitsWith: .failure) {
      _ = try InProcessMesh.run(size: 1) { mesh in
        let operation = try mesh.startAllGather([1])
        _ = try operation.advance()
      }
    }
  }

  @Test func `an abandoned collective does not trap`() async {
    await #expect(processExitsWith: .success) {
      _ = try InProcessMesh.run(size: 2) { mesh in
        if mesh.rank == 0 { try mesh.startAllGather([1]).abandon() }
      }
    }
  }

  @Test func `a payload too few for an all-to-all traps`() async {
    await #expect(processExitsWith: .failure) {
      _ = try InProcessMesh.run(size: 2) { _ = try $0.allToAll([[1]]) }
    }
  }

  @Test func `a message to oneself traps`() async {
    await #expect(processExitsWith: .failure) {
      _ = try InProcessMesh.run(size: 1) { try $0.send([1], to: 0, tag: 0) }
    }
  }
}
