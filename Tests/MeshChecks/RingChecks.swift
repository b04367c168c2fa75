// What passing blocks round a ring keeps on any transport: every block comes by once, in its turn; gradients
// come home as sums in the stated order; the bytes are those of the formula.

import DenseKernels
import Exchange
import ProcessMesh

package let ringChecks: [MeshCheck] = [
  MeshCheck("blocks of all ranks come by, the own one first", checkCirculation),
  MeshCheck("gradients of blocks come home, summed round the ring", checkReturningGradients),
  MeshCheck("circulating blocks are as many bytes as the formula says", checkRingTraffic),
]

/// Elements of keys of every rank's block: alike, uneven, and none on some ranks.
private func blockSizes(_ size: Int) -> [[Int]] {
  [
    Array(repeating: 6, count: size), (0..<size).map { 5 + 3 * $0 },
    (0..<size).map { $0.isMultiple(of: 2) ? 4 : 0 }, (0..<size).map { 40_000 + $0 },
  ]
}

/// Numbers that tell whose they are and where they belong; exact also in sums.
private func block(of rank: Int, count: Int, factor: Int = 1) -> KeysAndValues<Double> {
  KeysAndValues(
    keys: Buffer((0..<count).map { Double(factor * (1_000_000 * (rank + 1) + $0)) }),
    values: Buffer((0..<count).map { Double(-factor * (1_000_000 * (rank + 1) + 2 * $0)) }))
}

private func room(_ counts: [Int]) -> KeysAndValues<Double> {
  func poisoned() -> Buffer<Double> { Buffer([Double](repeating: .nan, count: counts.max() ?? 0)) }
  return KeysAndValues(keys: poisoned(), values: poisoned())
}

private func checkCirculation(_ transport: any Transport) throws {
  let exchange = TokenExchange(transport: transport)
  let rank = transport.rank
  for counts in blockSizes(transport.size) {
    var parts: [Int] = []
    try exchange.circulate(
      block(of: rank, count: counts[rank]), elementCounts: counts, room: room(counts)
    ) { part, found in
      parts.append(part)
      let expected = block(of: part, count: counts[part])
      try expectEqual(found.keys.array, expected.keys.array, "keys of \(part) of \(counts)")
      try expectEqual(found.values.array, expected.values.array, "values of \(part) of \(counts)")
    }
    try expectEqual(parts, (0..<transport.size).map { transport.ringNeighbor(-$0) })
  }
}

private func checkReturningGradients(_ transport: any Transport) throws {
  let exchange = TokenExchange(transport: transport)
  let (rank, size) = (transport.rank, transport.size)
  for counts in blockSizes(size) {
    // Rank r finds (r + 1) times the block as its gradient.
    let own = block(of: rank, count: counts[rank])
    let gradients = room([counts[rank]])
    var wrongParts: [Int] = []
    try exchange.circulate(
      own, gradients: gradients, elementCounts: counts, room: room(counts), sums: room(counts)
    ) { part, found, sums in
      let expected = block(of: part, count: counts[part])
      if found.keys.array != expected.keys.array || found.values.array != expected.values.array
        || (sums == nil) != (part == rank)
      {
        wrongParts.append(part)
      }
      let target = sums ?? gradients
      let gradient = block(of: part, count: counts[part], factor: rank + 1)
      target.keys.copy(from: gradient.keys)
      target.values.copy(from: gradient.values)
    }
    try expectEqual(wrongParts, [], "blocks of \(counts)")
    let expected = block(of: rank, count: counts[rank], factor: size * (size + 1) / 2)
    try expectEqual(gradients.keys.array, expected.keys.array, "keys of \(counts)")
    try expectEqual(gradients.values.array, expected.values.array, "values of \(counts)")
    try expectEqual(own.keys.array, block(of: rank, count: counts[rank]).keys.array)
  }
}

private func checkRingTraffic(_ transport: any Transport) throws {
  let (rank, p) = (transport.rank, transport.size)
  // B s h / p elements of keys.
  let counts = [Int](repeating: 120, count: p)
  let recorder = RecordingTransport(transport)
  let exchange = TokenExchange(transport: recorder)
  let own = block(of: rank, count: 120)
  try exchange.circulate(own, elementCounts: counts, room: room(counts)) { _, _ in }
  // 2 (B s h / p)(p − 1) forward, 4 (B s h / p)(p − 1) backward: specs of distributed systems, §4.
  let forward = 2 * 120 * (p - 1) * 8
  try expectEqual(recorder.log.sentByteCount, forward)
  try exchange.circulate(
    own, gradients: room([120]), elementCounts: counts, room: room(counts), sums: room(counts)
  ) { _, _, _ in }
  try expectEqual(recorder.log.sentByteCount, forward + 4 * 120 * (p - 1) * 8)
  try expectEqual(exchange.statistics[.activations].wireByteCount, recorder.log.sentByteCount)
  try expectEqual(
    Set(recorder.log.entries.map(\.peers)), p > 1 ? [[transport.ringNeighbor(1)]] : [])
}
