// What the exchange of tokens against heads keeps on any transport: nothing lost, nothing moved to a wrong
// place, the way back is the adjoint, and the bytes are those of the formula.

import Basics
import DenseKernels
import Exchange
import MeshLayout
import ProcessMesh

package let tokenExchangeChecks: [MeshCheck] = [
  MeshCheck("scattered heads are all tokens of the own heads", checkScatteredHeads),
  MeshCheck("gathering heads undoes scattering them and is its adjoint", checkInverseAndAdjoint),
  MeshCheck("operands that travel together arrive as if alone", checkTravelingTogether),
  MeshCheck("gathered tokens are the whole on every rank", checkGatheredTokens),
  MeshCheck("reduced tokens are the sums of all ranks in their order", checkReducedTokens),
  MeshCheck("reduced columns are the sums of all ranks in their order", checkReducedColumns),
  MeshCheck("exchanged activations are as many bytes as the formula says", checkActivationTraffic),
]

/// One segment and two, fewer tokens than ranks, ragged ends.
private let segmentLists = [[16], [13, 3], [1, 1], [5, 0], [64, 7]]

private func layout(_ segments: [Int], _ transport: any Transport) -> TokenLayout {
  TokenLayout(
    sampleCount: 2, segments: segments, width: 3 * transport.size, partCount: transport.size)
}

/// The element of a sample, a token and a column, which tells where it belongs.
private func element(_ sample: Int, _ token: Int, _ column: Int) -> Double {
  Double((sample * 1_000 + token) * 1_000 + column)
}

/// [B, own tokens, width] of a rank.
private func ownTokens(_ layout: TokenLayout, of rank: Int) -> [Double] {
  (0..<layout.sampleCount).flatMap { sample in
    layout.ranges(of: rank).flatMap { $0 }.flatMap { token in
      (0..<layout.width).map { element(sample, token, $0) }
    }
  }
}

/// [B, tokens, width / size] of a rank.
private func ownHeads(_ layout: TokenLayout, of rank: Int) -> [Double] {
  (0..<layout.sampleCount).flatMap { sample in
    (0..<layout.tokenCount).flatMap { token in
      (0..<layout.partWidth).map { element(sample, token, rank * layout.partWidth + $0) }
    }
  }
}

private func checkScatteredHeads(_ transport: any Transport) throws {
  let exchange = TokenExchange(transport: transport)
  for segments in segmentLists {
    let layout = layout(segments, transport)
    let expected = ownHeads(layout, of: transport.rank)
    let heads = Buffer([Double](repeating: .nan, count: expected.count))
    try exchange.scatterHeads(
      Buffer(ownTokens(layout, of: transport.rank)), layout: layout, into: heads)
    try expectEqual(heads.array, expected, "segments \(segments)")
  }
}

private func checkInverseAndAdjoint(_ transport: any Transport) throws {
  let exchange = TokenExchange(transport: transport)
  for segments in segmentLists {
    let layout = layout(segments, transport)
    let tokens = ownTokens(layout, of: transport.rank).map { $0 / 1e6 - 0.4 }
    let headCount = layout.sampleCount * layout.tokenCount * layout.partWidth
    let heads = Buffer<Double>(zeroed: headCount)
    try exchange.scatterHeads(Buffer(tokens), layout: layout, into: heads)
    let back = Buffer([Double](repeating: .nan, count: tokens.count))
    try exchange.gatherHeads(heads, layout: layout, into: back)
    try expectEqual(back.array, tokens, "segments \(segments)")

    // ⟨A u, w⟩ = ⟨u, Aᵀ w⟩, summed over the ranks.
    let w = (0..<headCount).map { Double(($0 * 7 + transport.rank) % 11) - 5 }
    let pulled = Buffer<Double>(zeroed: tokens.count)
    try exchange.gatherHeads(Buffer(w), layout: layout, into: pulled)
    let left = try transport.allReduce(sum: zip(heads.array, w).reduce(0) { $0 + $1.0 * $1.1 })
    let right = try transport.allReduce(
      sum: zip(tokens, pulled.array).reduce(0) { $0 + $1.0 * $1.1 })
    try expect(
      abs(left - right) <= 1e-12 * max(abs(left), 1), "⟨Au, w⟩ \(left), ⟨u, Aᵀw⟩ \(right)")
  }
}

/// Three operands leave, something else is exchanged, then they arrive; and their gradients likewise.
private func checkTravelingTogether(_ transport: any Transport) throws {
  let alone = TokenExchange(transport: transport)
  for overlaps in [false, true] {
    let exchange = TokenExchange(transport: transport, overlaps: overlaps)
    for segments in segmentLists {
      let layout = layout(segments, transport)
      let operands = (0..<3).map { operand in
        ownTokens(layout, of: transport.rank).map { $0 + Double(operand) / 4 }
      }
      let counts = (own: operands[0].count, heads: ownHeads(layout, of: transport.rank).count)
      let sent = Buffer<Double>(zeroed: counts.own)
      let transfers = try operands.map { operand in
        // What is sent may change behind the start.
        sent.copy(from: Buffer(operand))
        return try exchange.startScatterHeads(sent, layout: layout)
      }
      try exchange.advance()
      let whole = Buffer([Double](repeating: .nan, count: counts.heads * transport.size))
      try exchange.gatherTokens(Buffer(operands[0]), layout: layout, into: whole)
      let arrived = try transfers.map { transfer in
        let heads = Buffer([Double](repeating: .nan, count: counts.heads))
        try exchange.finishScatterHeads(transfer, layout: layout, into: heads)
        return heads
      }
      let back = try arrived.reversed().map { heads in
        try exchange.startGatherHeads(heads, layout: layout)
      }
      for (operand, heads) in zip(operands, arrived) {
        let expected = Buffer([Double](repeating: .nan, count: counts.heads))
        try alone.scatterHeads(Buffer(operand), layout: layout, into: expected)
        try expectEqual(heads.array, expected.array, "segments \(segments)")
      }
      for (operand, transfer) in zip(operands.reversed(), back) {
        let tokens = Buffer([Double](repeating: .nan, count: counts.own))
        try exchange.finishGatherHeads(transfer, layout: layout, into: tokens)
        try expectEqual(tokens.array, operand, "segments \(segments)")
      }
    }
  }
}

private func checkGatheredTokens(_ transport: any Transport) throws {
  let exchange = TokenExchange(transport: transport)
  for count in [1, 5, 16] {
    // A width that no number of ranks needs to divide.
    let layout = TokenLayout(
      sampleCount: 2, segments: [count], width: 5, partCount: transport.size)
    let whole = (0..<2).flatMap { sample in
      (0..<count).flatMap { token in (0..<5).map { Float(element(sample, token, $0)) } }
    }
    let target = Buffer([Float](repeating: .nan, count: whole.count))
    try exchange.gatherTokens(
      Buffer(ownTokens(layout, of: transport.rank).map { Float($0) }), layout: layout, into: target)
    try expectEqual(target.array, whole, "\(count) tokens")
  }
}

private func checkReducedTokens(_ transport: any Transport) throws {
  let recorder = RecordingTransport(transport)
  let exchange = TokenExchange(transport: recorder)
  let (rank, size) = (transport.rank, transport.size)
  for segments in segmentLists {
    // Cut evenly, of a width that no number of ranks needs to divide.
    let layout = TokenLayout(sampleCount: 2, segments: segments, width: 5, partCount: size)
    let count = 2 * layout.tokenCount * 5
    let own = (0..<2).flatMap { sample in
      layout.ranges(of: rank).flatMap { $0 }.flatMap { token in
        (0..<5).map { (sample * layout.tokenCount + token) * 5 + $0 }
      }
    }
    let terms = (0..<size).map { gradientLikeVector(count, of: $0) }
    let expected = own.map { index in
      treeReduce(count: size, operand: { terms[$0][index] }, combine: { $0 + $1 })
    }
    let roomCount = heldPartialCount(ofTree: size) * own.count
    let sum = Buffer([Float](repeating: .nan, count: own.count))
    let room = Buffer([Float](repeating: .nan, count: roomCount))
    let sentBefore = recorder.log.sentByteCount
    try exchange.reduceTokens(Buffer(terms[rank]), layout: layout, into: sum, room: room)
    try expectEqual(sum.array, expected, "segments \(segments)")
    try expectEqual(recorder.log.sentByteCount - sentBefore, 4 * (count - own.count))

    // ⟨A u, w⟩ = ⟨u, Aᵀ w⟩ of gathering, summed over the ranks.
    let u = own.map { Double($0 % 7) - 3 }
    let gathered = Buffer<Double>(zeroed: count)
    try exchange.gatherTokens(Buffer(u), layout: layout, into: gathered)
    let w = (0..<count).map { Double(($0 * 7 + rank) % 11) - 5 }
    let pulled = Buffer<Double>(zeroed: own.count)
    try exchange.reduceTokens(
      Buffer(w), layout: layout, into: pulled, room: Buffer(zeroed: roomCount))
    try expectEqual(
      try transport.allReduce(sum: zip(gathered.array, w).reduce(0) { $0 + $1.0 * $1.1 }),
      try transport.allReduce(sum: zip(u, pulled.array).reduce(0) { $0 + $1.0 * $1.1 }))
  }
}

private func checkReducedColumns(_ transport: any Transport) throws {
  let recorder = RecordingTransport(transport)
  let exchange = TokenExchange(transport: recorder)
  let (rank, size) = (transport.rank, transport.size)
  // No row, one, and more than a message of a few bytes; columns that are one element or several.
  for (rowCount, ownWidth) in [(0, 3), (1, 1), (7, 3), (300, 5)] {
    let width = ownWidth * size
    let own = (0..<rowCount).flatMap { row in
      (0..<ownWidth).map { row * width + rank * ownWidth + $0 }
    }
    let terms = (0..<size).map { gradientLikeVector(rowCount * width, of: $0) }
    let expected = own.map { index in
      terms.dropFirst().reduce(terms[0][index]) { $0 + $1[index] }
    }
    let sum = Buffer([Float](repeating: .nan, count: own.count))
    let sentBefore = recorder.log.sentByteCount
    try exchange.reduceColumns(
      Buffer(terms[rank]), rowCount: rowCount, into: sum,
      room: Buffer([Float](repeating: .nan, count: own.count)))
    try expectEqual(sum.array, expected, "\(rowCount) rows of \(width)")
    try expectEqual(recorder.log.sentByteCount - sentBefore, 4 * own.count * (size - 1))

    let whole = (0..<rowCount * width).map { Double($0 % 13) - 6 }
    let gathered = Buffer([Double](repeating: .nan, count: whole.count))
    try exchange.gatherColumns(
      Buffer(own.map { whole[$0] }), rowCount: rowCount, into: gathered)
    try expectEqual(gathered.array, whole, "\(rowCount) rows of \(width)")
  }
}

private func checkActivationTraffic(_ transport: any Transport) throws {
  let recorder = RecordingTransport(transport)
  let exchange = TokenExchange(transport: recorder)
  let p = transport.size
  let layout = layout([4 * p], transport)
  let tokens = Buffer(ownTokens(layout, of: transport.rank).map { Float($0) })
  try exchange.scatterHeads(
    tokens, layout: layout, into: Buffer(zeroed: 2 * layout.tokenCount * layout.partWidth))
  // B L D (p − 1) / p² elements, as in the specification of Vchitect-2.0, §6.4.
  let expected = 2 * layout.tokenCount * layout.width * (p - 1) / (p * p) * 4
  try expectEqual(recorder.log.sentByteCount, expected)
  try expectEqual(exchange.statistics[.activations].wireByteCount, expected)
}
