// Messages between two ranks.

import Basics
import MessagePassing
import ProcessMesh

let messageChecks: [MeshCheck] = [
  MeshCheck("a message of any size arrives whole, between every pair") { mesh in
    for source in 0..<mesh.size {
      for destination in 0..<mesh.size where source != destination {
        guard mesh.rank == source || mesh.rank == destination else { continue }
        for count in payloadSizes {
          let expected = payload(from: source, to: destination, count: count)
          if mesh.rank == source { try mesh.send(expected, to: destination, tag: 5) }
          if mesh.rank == destination {
            try expectEqual(
              mesh.receive(from: source, tag: 5), expected,
              "\(source) to \(destination), \(count) bytes")
          }
        }
      }
    }
  },
  MeshCheck("messages of one tag keep their order, tags do not mix") { mesh in
    guard mesh.size > 1 else { return }
    let last = mesh.size - 1
    for round in 0..<20 {
      // Short messages, which leave without waiting for the receiver.
      if mesh.rank == 0 {
        try mesh.send([1, UInt8(round)], to: last, tag: 1)
        try mesh.send([2, UInt8(round)], to: last, tag: 2)
        try mesh.send([1, UInt8(round), 9], to: last, tag: 1)
      }
      if mesh.rank == last {
        try expectEqual(mesh.receive(from: 0, tag: 2), [2, UInt8(round)])
        try expectEqual(mesh.receive(from: 0, tag: 1), [1, UInt8(round)])
        try expectEqual(mesh.receive(from: 0, tag: 1), [1, UInt8(round), 9])
      }
    }
  },
  MeshCheck("posted messages of one tag arrive whole and in order, both ways at once") { mesh in
    guard mesh.size > 1 else { return }
    let (next, previous) = (mesh.ringNeighbor(1), mesh.ringNeighbor(-1))
    // All are under way before any is asked for.
    for count in payloadSizes {
      for (peer, tag) in [(next, 3), (previous, 4)] {
        let bytes = payload(from: mesh.rank, to: peer, count: count)
        try mesh.post(Payload(bytes), to: peer, tag: tag)
      }
    }
    for count in payloadSizes {
      for (peer, tag) in [(previous, 3), (next, 4)] {
        try expectEqual(
          mesh.receivePayload(from: peer, tag: tag).array,
          payload(from: peer, to: mesh.rank, count: count), "\(count) bytes of \(peer)")
      }
    }
    try mesh.barrier()
  },
  MeshCheck("a thread that has adopted the endpoint uses it, and gives it back") { mesh in
    var sums: [Double] = []
    var failure: (any Error)?
    var body: PausableBody?
    body = PausableBody(adopt: { mesh.adoptThread() }) {
      do {
        sums.append(try mesh.allReduce(sum: 1))
        body?.pause()
        sums.append(try mesh.allReduce(sum: 3))
      } catch {
        failure = error
      }
    }
    body?.resume()
    sums.append(try mesh.allReduce(sum: 2))
    body?.resume()
    if let failure { throw failure }
    try expectEqual(sums, [1, 2, 3].map { $0 * Double(mesh.size) })
    body = nil
  },
  MeshCheck("messages and collectives in between do not mix") { mesh in
    guard mesh.size > 1 else { return }
    let next = (mesh.rank + 1) % mesh.size
    let previous = (mesh.rank + mesh.size - 1) % mesh.size
    for round in 0..<10 {
      let started = try mesh.startAllGather([UInt8(mesh.rank), UInt8(round)])
      if mesh.rank.isMultiple(of: 2) && !(mesh.rank == mesh.size - 1) {
        try mesh.send([UInt8(mesh.rank)], to: next, tag: 0)
      } else if !mesh.rank.isMultiple(of: 2) {
        try expectEqual(mesh.receive(from: previous, tag: 0), [UInt8(previous)])
      }
      try expectEqual(
        try started.waitForArrays(), (0..<mesh.size).map { [UInt8($0), UInt8(round)] })
    }
  },
  MeshCheck("the probe of links tells rates where there are peers, the same on every rank") {
    mesh in
    let probe = try LinkProbe.measure(on: mesh, repeatCount: 2)
    try expectEqual(probe.rankCount, mesh.size)
    try expectEqual(probe.inside == nil, mesh.size == probe.nodeCount)
    try expectEqual(probe.between == nil, probe.nodeCount == 1)
    for rates in [probe.inside, probe.between].compactMap(\.self) {
      try expect(rates.latency > 0 && rates.bandwidth > 0, "\(rates)")
    }
    let onAll = try mesh.allGather(value: probe)
    try expect(onAll.allSatisfy { $0 == onAll[0] }, "ranks disagree")
  },
]
