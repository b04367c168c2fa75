// What the exchange of units that are cut among ranks keeps on any transport: parts exact, sums in the fixed order,
// and the bytes of the arithmetic.

import DenseKernels
import Exchange
import MeshLayout
import ProcessMesh

package let sliceChecks: [MeshCheck] = [
  MeshCheck("a part of a unit is gathered from the owners of its elements", checkGatheredParts),
  MeshCheck("gradients of parts are summed at the owners in the fixed order", checkReducedParts),
  MeshCheck("what is sent of parts is what the arithmetic says", checkPartTraffic),
]

/// Weights of a block with inputs and outputs that 1 to 4 ranks cut, over several pieces of every shard.
private func units(_ transport: any Transport) -> [SlicedUnit] {
  let (wide, deep) = (36 * 250, 50 * 84)
  let tensors = [
    CutTensor(range: 0..<7), CutTensor(range: 16..<16 + wide, stretches: [wide]),
    CutTensor(range: 9_024..<9_024 + deep, rowCount: 50, stretches: [24, 60]),
    CutTensor(range: 13_232..<13_240),
  ]
  let counts = [13_240, 16_384, 60_000]
  return (1...4).filter { transport.size % $0 == 0 }.flatMap { degree in
    counts.map {
      SlicedUnit(
        tensors, partition: ShardPartition(count: $0, shardCount: transport.size), degree: degree)
    }
  }
}

/// Where elements of a part lie in the unit, by place in the part; nil in gaps.
private func places(_ slice: UnitSlice, of unit: SlicedUnit) -> [Int?] {
  var places = [Int?](repeating: nil, count: slice.count)
  for rows in slice.rows(in: 0..<unit.partition.count) {
    for row in 0..<rows.rowCount {
      for column in 0..<rows.width {
        places[rows.localStart + row * rows.localStride + column] =
          rows.start + row * rows.stride + column
      }
    }
  }
  return places
}

private func checkGatheredParts(_ transport: any Transport) throws {
  for unit in units(transport) {
    let whole = gradientLikeVector(unit.partition.count, of: 77)
    let shard = Buffer(whole[unit.partition.range(of: transport.rank)])
    let slice = unit.slice(of: transport.rank)
    for configuration in configurations() {
      let exchange = BucketExchange(transport: transport, configuration: configuration)
      let part = Buffer([Float](repeating: -1, count: slice.count))
      try exchange.gatherPart(of: unit, shard, into: part)
      try require(
        part, places(slice, of: unit).map { $0.map { whole[$0] } ?? -1 },
        "degree \(unit.degree), \(unit.partition.count) elements, codec \(configuration.codec)")
    }
  }
}

private func checkReducedParts(_ transport: any Transport) throws {
  for unit in units(transport) {
    let parts = (0..<transport.size).map { rank in
      gradientLikeVector(unit.slice(of: rank).count, of: rank)
    }
    // In the tree over a neighborhood, neighborhoods in the tree.
    let sum = treeReduce(
      ofEqual: unit.degree, count: transport.size,
      operand: { rank in
        var terms = [Float](repeating: 0, count: unit.partition.count)
        for (term, place) in zip(parts[rank], places(unit.slice(of: rank), of: unit)) {
          if let place { terms[place] = term }
        }
        return terms
      }, combine: { zip($0, $1).map { $0 + $1 } })
    let own = unit.partition.range(of: transport.rank)
    for configuration in configurations() {
      let exchange = BucketExchange(transport: transport, configuration: configuration)
      let shard = Buffer([Float](repeating: .nan, count: own.count))
      try exchange.reducePart(of: unit, Buffer(parts[transport.rank]), into: shard)
      try require(
        shard, Array(sum[own]),
        "degree \(unit.degree), \(unit.partition.count) elements, codec \(configuration.codec)")
    }
  }
}

private func checkPartTraffic(_ transport: any Transport) throws {
  for unit in units(transport) {
    let recorder = RecordingTransport(transport)
    let exchange = BucketExchange(
      transport: recorder, configuration: ExchangeConfiguration(codec: .off))
    let shard = Buffer<Float>(zeroed: unit.partition.range(of: transport.rank).count)
    let part = Buffer<Float>(zeroed: unit.slice(of: transport.rank).count)
    try exchange.gatherPart(of: unit, shard, into: part)
    try exchange.reducePart(of: unit, part, into: shard)
    let statistics = exchange.statistics.take()
    let (gradients, parameters) = (statistics[.gradients], statistics[.parameters])
    try expectEqual(parameters.rawByteCount, 4 * unit.loadCount(from: transport.rank))
    try expectEqual(gradients.rawByteCount, 4 * unit.gradientCount(from: transport.rank))
    try expectEqual(recorder.log.sentByteCount, statistics.total.wireByteCount, "on the transport")
  }
}
