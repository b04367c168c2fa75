// Samples and gradients between the ranks of two roles, on any transport.

import DenseKernels
import Exchange
import MeshLayout
import ProcessMesh

package let latentChecks: [MeshCheck] = [
  MeshCheck("every sample comes to who scores it, every gradient to who made it", checkLatents)
]

/// Number `index` of the sample, or of the gradient, of a microbatch.
private func latent(_ microbatch: Int, isGradient: Bool, count: Int) -> [Float] {
  (0..<count).map { Float((microbatch * 1_000 + $0) * (isGradient ? -1 : 1)) }
}

private func checkLatents(_ transport: any Transport) throws {
  guard transport.size > 1 else { return }
  for generatorCount in 1..<transport.size {
    // Even shares, uneven ones, and messages beyond what MPI sends at once.
    for (microbatchCount, count) in [(4, 3), (5, 700), (12, 5_000)] {
      var shape = MeshShape([.zero: transport.size])
      shape.generatorRanks = GeneratorRanks(generatorCount)
      guard let places = try shape.roles(of: microbatchCount) else { continue }
      try checkLatents(transport, places, microbatchCount: microbatchCount, count: count)
    }
  }
  // Half of the ranks of either role, with tokens shared by two, by four, or on one side alone.
  guard transport.size % 4 == 0 else { return }
  let half = transport.size / 2
  for (score, generator) in [(2, 2), (half, 2), (1, half), (half, 1)] {
    var shape = MeshShape([.zero: transport.size / score, .sp: score])
    shape.generatorRanks = GeneratorRanks(MeshShape([.zero: half / generator, .tp: generator]))
    guard let places = try shape.roles(of: 4) else { continue }
    try checkLatents(transport, places, microbatchCount: 4, count: 700)
  }
}

private func checkLatents(
  _ transport: any Transport, _ places: RolePlaces, microbatchCount: Int, count: Int
) throws {
  let recorded = RecordingTransport(transport)
  let exchange = LatentExchange(transport: recorded, places: places)
  let own = places.microbatches(of: transport.rank)
  let isGenerator = places.role(of: transport.rank) == .generator
  let made =
    isGenerator
    ? own.map { ($0, Buffer(latent($0, isGradient: false, count: count))) } : []
  var received: [Int: Buffer<Float>] = [:]
  try exchange.bringSamples(Dictionary(uniqueKeysWithValues: made)) { microbatch in
    let room = Buffer([Float](repeating: .nan, count: count))
    received[microbatch] = room
    return room
  }
  try expectEqual(received.keys.sorted(), isGenerator ? [] : own)
  for (microbatch, sample) in received {
    try expectEqual(sample.array, latent(microbatch, isGradient: false, count: count))
  }
  if isGenerator {
    for microbatch in own {
      let room = Buffer([Float](repeating: .nan, count: count))
      try exchange.receiveGradient(of: microbatch, into: room)
      try expectEqual(room.array, latent(microbatch, isGradient: true, count: count))
    }
  } else {
    for microbatch in own {
      try exchange.sendGradient(
        Buffer(latent(microbatch, isGradient: true, count: count)), of: microbatch)
    }
  }
  // Every latent goes once to each rank that has a use for it, and nothing else.
  let latentByteCount = count * MemoryLayout<Float>.stride
  let byteCount = own.count * latentByteCount * places.receiverCount(of: transport.rank)
  try expectEqual(recorded.log.sentByteCount, byteCount)
  try expectEqual(recorded.log.totals["post"]?.sentByteCount ?? 0, isGenerator ? 0 : byteCount)
  try expectEqual(exchange.statistics[.activations].rawByteCount, byteCount)
  let sent = try transport.allReduce(sum: Double(recorded.log.sentByteCount))
  let receiverCount = RankRole.allCases.reduce(0) { $0 + places.ranks($1, of: 0).count }
  try expectEqual(sent, Double(receiverCount * microbatchCount * latentByteCount))
}
