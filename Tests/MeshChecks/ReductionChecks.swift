// Sums in the fixed tree. The addends cancel, so another order gives another result.

import MeshLayout
import ProcessMesh

/// Numbers whose sum depends on the order of the additions.
private func addend(_ index: Int, _ element: Int) -> Double {
  let signs = [1e16, 1.0, -1e16, 3.5, 1e-3, -7e15, 0.1, 7e15]
  return signs[(index + element) % 8] * Double(index + 1)
}

let reductionChecks: [MeshCheck] = [
  MeshCheck("a sum over ranks has the bits of the fixed tree on every rank") { mesh in
    for count in [0, 1, 9] {
      let values = (0..<count).map { addend(mesh.rank, $0) }
      let sum = try mesh.allReduce(sum: values)
      let expected = (0..<count).map { element in
        treeReduce(count: mesh.size, operand: { addend($0, element) }, combine: +)
      }
      try expectEqual(sum.map(\.bitPattern), expected.map(\.bitPattern))
    }
  },
  MeshCheck("maxima over ranks, of integers and of numbers with NaN") { mesh in
    let last = mesh.size - 1
    try expectEqual(
      mesh.allReduce(max: [mesh.rank, -mesh.rank, .min, mesh.rank == 0 ? .max : 0]),
      [last, 0, .min, .max])
    let maxima = try mesh.allReduce(
      max: [Double(mesh.rank), mesh.rank == last ? .nan : 1, -.infinity])
    try expectEqual(maxima[0], Double(last))
    try expect(maxima[1].isNaN, "a NaN of rank \(last) was lost")
    try expectEqual(maxima[2], -.infinity)
  },
  MeshCheck("a sum of vectors of different lengths is refused on every rank") { mesh in
    guard mesh.size > 1 else { return }
    let error = try caught { _ = try mesh.allReduce(sum: mesh.rank == 0 ? [1] : [1, 2]) }
    try expectEqual((error as? PeerError)?.code, .malformedPayload)
  },
  MeshCheck("sums over microbatches have the same bits on any number of ranks") { mesh in
    for microbatchCount in [4, 8, 16] where microbatchCount >= mesh.size {
      let share = try MicrobatchShare(microbatchCount: microbatchCount, rankCount: mesh.size)
      var counter = BinaryCounter<Double>()
      for microbatch in share.microbatches(of: mesh.rank) {
        counter.push(addend(microbatch, 0), combine: +)
      }
      guard let partial = counter.finish(combine: +) else {
        throw CheckFailure(description: "rank \(mesh.rank) had no microbatch")
      }
      let sum = try mesh.allReduce(sum: partial)
      let expected = treeReduce(
        count: microbatchCount, operand: { addend($0, 0) }, combine: +)
      if share.preservesBits {
        try expectEqual(sum.bitPattern, expected.bitPattern, "\(microbatchCount) microbatches")
      }
      let onAll = try mesh.allGather(value: sum.bitPattern)
      try expect(onAll.allSatisfy { $0 == onAll[0] }, "ranks disagree: \(onAll)")
    }
  },
  MeshCheck("shards reduced by their owners and gathered back are the whole sum") { mesh in
    let partition = ShardPartition(count: 1_003, shardCount: mesh.size, blockLength: 16)
    let gradient = (0..<partition.count).map { UInt8(truncatingIfNeeded: $0 &* (mesh.rank + 1)) }
    let received = try mesh.allToAll(partition.slices.map { Array(gradient[$0]) })
    let owned = treeReduce(
      count: mesh.size, operand: { received[$0] }, combine: { zip($0, $1).map(&+) })
    let whole = try mesh.allGather(owned).flatMap(\.self)
    let factor = (1...mesh.size).reduce(0, +)
    try expectEqual(whole, (0..<partition.count).map { UInt8(truncatingIfNeeded: $0 &* factor) })
  },
]
