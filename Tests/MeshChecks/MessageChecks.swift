// Messages between two ranks.

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
  MeshCheck("messages that were started arrive in order while other messages go on") { mesh in
    let peers = (0..<mesh.size).filter { $0 != mesh.rank }
    for count in payloadSizes {
      for peer in peers {
        var first: PendingOperation? = try mesh.startSend(
          Payload(payload(from: mesh.rank, to: peer, count: count)), to: peer, tag: 6)
        var second: PendingOperation? = try mesh.startSend(Payload([9]), to: peer, tag: 6)
        _ = try first?.advance()
        // Neighbors are visited in different orders, so that nobody waits for the other first.
        try expectEqual(
          try mesh.receive(from: peer, tag: 6), payload(from: peer, to: mesh.rank, count: count))
        try expectEqual(try mesh.receive(from: peer, tag: 6), [9])
        try expectEqual(try first.take()?.wait().count, 0)
        try expectEqual(try second.take()?.wait().count, 0)
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
