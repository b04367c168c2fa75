// Recorded traffic against closed forms: p ranks, n bytes per payload.

import MessagePassing
import ProcessMesh

let trafficChecks: [MeshCheck] = [
  MeshCheck("recorded traffic equals the formulas") { mesh in
    let recorder = RecordingTransport(mesh)
    let (p, n) = (mesh.size, 1_000)
    let bytes = [UInt8](repeating: 1, count: n)

    /// Bytes that all ranks together send in `body`.
    func total(_ body: () throws -> Void) throws -> Int {
      recorder.log.removeAll()
      try body()
      return try mesh.allGather(value: recorder.log.sentByteCount).reduce(0, +)
    }
    try expectEqual(total { try recorder.barrier() }, 0)
    for root in 0..<p {
      try expectEqual(
        total { _ = try recorder.broadcast(mesh.rank == root ? bytes : [], root: root) },
        (p - 1) * n, "broadcast")
      try expectEqual(
        total { _ = try recorder.gather(bytes, root: root) }, (p - 1) * n, "gather")
    }
    try expectEqual(total { _ = try recorder.allGather(bytes) }, p * (p - 1) * n, "allGather")
    try expectEqual(
      total { _ = try recorder.allToAll(Array(repeating: bytes, count: p)) }, p * (p - 1) * n,
      "allToAll")
    try expectEqual(
      total { _ = try recorder.startShift(Payload(bytes), by: 1).wait() }, p > 1 ? p * n : 0,
      "shift")
    try expectEqual(
      total { _ = try recorder.allReduce(sum: [1, 2, 3]) }, p * (p - 1) * 24, "allReduce")
  },
  MeshCheck("the log holds name, bytes and peers of this rank, groups included") { mesh in
    let recorder = RecordingTransport(mesh)
    let others = (0..<mesh.size).filter { $0 != mesh.rank }
    let payloads = (0..<mesh.size).map { [UInt8](repeating: 0, count: 10 + $0) }
    _ = try recorder.startAllToAll(payloads).wait()
    let alone = try recorder.split(color: mesh.rank, key: 0)
    _ = try alone.allGather([1, 2, 3])
    let sent = others.reduce(0) { $0 + 10 + $1 }
    let crossing = others.filter { !mesh.isSameNode($0) }.reduce(0) { $0 + 10 + $1 }
    try expectEqual(
      recorder.log.entries,
      [
        .init(
          name: "allToAll", groupSize: mesh.size, sentByteCount: sent,
          crossNodeByteCount: crossing, peers: others),
        .init(
          name: "split", groupSize: mesh.size, sentByteCount: 0, crossNodeByteCount: 0, peers: []),
        .init(name: "allGather", groupSize: 1, sentByteCount: 0, crossNodeByteCount: 0, peers: []),
      ])
    try expectEqual(recorder.log.totals["allToAll"]?.sentByteCount, sent)
    try expectEqual(recorder.log.totals["allToAll"]?.callCount, 1)
  },
]
