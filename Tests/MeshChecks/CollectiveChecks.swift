// Barrier, broadcast, gather, all-gather, all-to-all, shift: every root, sizes that differ by rank.

import Foundation
import MessagePassing
import ProcessMesh

let collectiveChecks: [MeshCheck] = [
  MeshCheck("a barrier lets no rank through before all have come") { mesh in
    for late in 0..<mesh.size {
      if mesh.rank == late { Thread.sleep(forTimeInterval: 0.01) }
      // The monotonic clock is one for all processes of a machine.
      let arrival = monotonicSeconds()
      try mesh.barrier()
      let departure = monotonicSeconds()
      let arrivals = try mesh.allReduce(max: [arrival])[0]
      try expect(departure >= arrivals, "left at \(departure), the last came at \(arrivals)")
    }
  },
  MeshCheck("a broadcast brings the root's bytes to every rank, for every root and size") { mesh in
    for root in 0..<mesh.size {
      for count in payloadSizes {
        let expected = payload(from: root, to: 0, count: count)
        let got = try mesh.broadcast(mesh.rank == root ? expected : poison, root: root)
        try expectEqual(got, expected, "root \(root), \(count) bytes")
      }
    }
  },
  MeshCheck("a gather brings every rank's bytes to the root and to no other") { mesh in
    for root in 0..<mesh.size {
      for (index, _) in payloadSizes.enumerated() {
        func size(_ rank: Int) -> Int { payloadSizes[(index + rank) % payloadSizes.count] }
        let own = payload(from: mesh.rank, to: root, count: size(mesh.rank))
        let got = try mesh.gather(own, root: root)
        let expected =
          mesh.rank == root
          ? (0..<mesh.size).map { payload(from: $0, to: root, count: size($0)) } : nil
        try expectEqual(got, expected, "root \(root), sizes from \(index)")
      }
    }
  },
  MeshCheck("an all-gather brings every rank's bytes to every rank, sizes differing") { mesh in
    for (index, _) in payloadSizes.enumerated() {
      func size(_ rank: Int) -> Int { payloadSizes[(index + rank) % payloadSizes.count] }
      let got = try mesh.allGather(payload(from: mesh.rank, to: 0, count: size(mesh.rank)))
      let expected = (0..<mesh.size).map { payload(from: $0, to: 0, count: size($0)) }
      try expectEqual(got, expected, "sizes from \(index)")
    }
  },
  MeshCheck("an all-to-all is a transposition of payloads, sizes differing by pair") { mesh in
    for (index, _) in payloadSizes.enumerated() {
      func size(_ source: Int, _ destination: Int) -> Int {
        payloadSizes[(index + source + 3 * destination) % payloadSizes.count]
      }
      let got = try mesh.allToAll(
        (0..<mesh.size).map {
          payload(from: mesh.rank, to: $0, count: size(mesh.rank, $0))
        })
      let expected = (0..<mesh.size).map {
        payload(from: $0, to: mesh.rank, count: size($0, mesh.rank))
      }
      try expectEqual(got, expected, "sizes from \(index)")
    }
  },
  MeshCheck("a shift brings the bytes of the rank so far before, for every distance and size") {
    mesh in
    for distance in -mesh.size...mesh.size + 1 {
      for (index, _) in payloadSizes.enumerated() {
        func size(_ rank: Int) -> Int { payloadSizes[(index + rank) % payloadSizes.count] }
        let got = try mesh.startShift(
          Payload(payload(from: mesh.rank, to: 0, salt: distance, count: size(mesh.rank))),
          by: distance
        ).waitForArrays()
        let source = mesh.ringNeighbor(-distance)
        try expectEqual(
          got, [payload(from: source, to: 0, salt: distance, count: size(source))],
          "distance \(distance), sizes from \(index)")
      }
    }
  },
  MeshCheck("what a shift brought is sent on as it is, until it is home") { mesh in
    for count in payloadSizes {
      var travelling = Payload(payload(from: mesh.rank, to: 0, count: count))
      for step in 1...mesh.size {
        let operation = try mesh.startShift(travelling, by: 1)
        let between = try mesh.allGather([UInt8(mesh.rank)])
        travelling = try operation.wait()[0]
        try expectEqual(between.count, mesh.size)
        try expectEqual(
          travelling.array, payload(from: mesh.ringNeighbor(-step), to: 0, count: count),
          "step \(step), \(count) bytes")
      }
    }
  },
  MeshCheck("started collectives may overlap and be waited for in another order on each rank") {
    mesh in
    for count in [1, 5_000, 1_000_000] {
      let first = try mesh.startAllToAll(
        (0..<mesh.size).map { payload(from: mesh.rank, to: $0, salt: 1, count: count) })
      let second = try mesh.startAllGather(
        payload(from: mesh.rank, to: 0, salt: 2, count: count))
      let between = try mesh.allGather([UInt8(mesh.rank)])
      let results: ([[UInt8]], [[UInt8]])
      if mesh.rank.isMultiple(of: 2) {
        results.0 = try first.waitForArrays()
        results.1 = try second.waitForArrays()
      } else {
        results.1 = try second.waitForArrays()
        results.0 = try first.waitForArrays()
      }
      let ranks = 0..<mesh.size
      try expectEqual(between, ranks.map { [UInt8($0)] })
      try expectEqual(
        results.0, ranks.map { payload(from: $0, to: mesh.rank, salt: 1, count: count) })
      try expectEqual(results.1, ranks.map { payload(from: $0, to: 0, salt: 2, count: count) })
    }
  },
  MeshCheck("advancing alone completes a started collective") { mesh in
    let operation = try mesh.startAllGather(payload(from: mesh.rank, to: 0, count: 100_000))
    let deadline = monotonicSeconds() + 20
    while try !operation.advance() {
      if monotonicSeconds() > deadline {
        operation.abandon()
        throw CheckFailure(description: "advance() never became true")
      }
      Thread.sleep(forTimeInterval: 0.000_05)
    }
    let got = try operation.waitForArrays()
    try expectEqual(got, (0..<mesh.size).map { payload(from: $0, to: 0, count: 100_000) })
  },
  MeshCheck("a thousand collectives in a row keep their order") { mesh in
    for round in 0..<1_000 {
      let got = try mesh.allGather([UInt8(truncatingIfNeeded: round + mesh.rank)])
      try expectEqual(
        got, (0..<mesh.size).map { [UInt8(truncatingIfNeeded: round + $0)] }, "round \(round)")
    }
  },
]

/// Seconds of a clock that all processes of a machine share.
func monotonicSeconds() -> Double { ProcessInfo.processInfo.systemUptime }
