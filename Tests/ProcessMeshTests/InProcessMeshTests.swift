import ProcessMesh
import Synchronization
import Testing

struct InProcessMeshTests {
  private struct Problem: Error, Equatable {
    let rank: Int
  }

  @Test func `results come back by rank`() throws {
    #expect(try InProcessMesh.run(size: 4) { $0.rank * 10 + $0.size } == [4, 14, 24, 34])
  }

  @Test(.timeLimit(.minutes(1)), arguments: 2...4)
  func `when a rank throws, waiting ranks end and its error is rethrown`(size: Int) throws {
    for failing in 0..<size {
      let seen = Mutex<[Int: Int]>([:])
      #expect(throws: Problem(rank: failing)) {
        try InProcessMesh.run(size: size) { mesh in
          if mesh.rank == failing { throw Problem(rank: failing) }
          do {
            try mesh.barrier()
            _ = try mesh.allGather([1])
          } catch let error as PeerError {
            seen.withLock { $0[mesh.rank] = error.rank }
            throw error
          }
        }
      }
      let expected = (0..<size).filter { $0 != failing }.map { ($0, failing) }
      let inWaiting = seen.withLock(\.self)
      #expect(inWaiting == Dictionary(uniqueKeysWithValues: expected))
    }
  }

  @Test(.timeLimit(.minutes(1)))
  func `a peer's failure ends a rank that has a collective on its way, without a trap`() throws {
    #expect(throws: Problem(rank: 1)) {
      try InProcessMesh.run(size: 2) { mesh in
        if mesh.rank == 1 { throw Problem(rank: 1) }
        let operation = try mesh.startAllGather([1])
        try mesh.barrier()
        _ = try operation.wait()
      }
    }
  }

  @Test(.timeLimit(.minutes(1)))
  func `waiting for a rank that has ended is an error, not a hang`() throws {
    let error = #expect(throws: PeerError.self) {
      try InProcessMesh.run(size: 2) { mesh in
        if mesh.rank == 1 { _ = try mesh.receive(from: 0, tag: 0) }
      }
    }
    #expect(error?.rank == 0)
    #expect(error?.message.contains("ended") == true)
  }

  @Test func `what a rank sent before it ended is still received`() throws {
    let received = try InProcessMesh.run(size: 2) { mesh -> [UInt8] in
      if mesh.rank == 0 {
        try mesh.send([1, 2], to: 1, tag: 0)
        return []
      }
      return try mesh.receive(from: 0, tag: 0)
    }
    #expect(received == [[], [1, 2]])
  }

  @Test func `threads have room for deep recursion`() throws {
    // Half a kilobyte stays alive across each call, so 30000 levels need more than 8 MiB.
    @Sendable func depth(_ count: Int) -> Int {
      let scratch = InlineArray<64, Int>(repeating: count)
      if count == 0 { return 0 }
      let below = depth(count - 1)
      return below + (scratch[below % 64] == count ? 1 : 0)
    }
    #expect(try InProcessMesh.run(size: 1) { _ in depth(30_000) } == [30_000])
  }

  @Test func `nodes are as given`() throws {
    let same = try InProcessMesh.run(size: 3, nodes: [0, 1, 0]) { mesh in
      [mesh.isSameNode(0), mesh.isSameNode(1), mesh.isOneNode]
    }
    #expect(same == [[true, false, false], [false, true, false], [true, false, false]])
    let halves = try InProcessMesh.run(size: 4, nodes: [0, 0, 1, 1]) { mesh in
      try mesh.split(color: mesh.rank / 2, key: 0).isOneNode
    }
    #expect(halves == [true, true, true, true])
  }
}
