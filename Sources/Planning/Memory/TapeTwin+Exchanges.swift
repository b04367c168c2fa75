// What ranks that share tokens, cut weights, or run stages of a pipeline exchange on the tape: what it stores and
// what is sent.

import MeshLayout

extension TapeTwin {
  // MARK: Sequence parallelism

  /// An all-to-all between own tokens of all heads and all tokens of own heads, to a tensor of `count`
  /// elements; some of what is sent each way stays here.
  func exchange(
    _ x: ValueTwin, to count: Int, sentCount: Int, sentBackCount: Int, peerCount: Int
  ) -> ValueTwin {
    let output = result(count)
    ledger.exchange(byteCount: 4 * sentCount, messageCount: peerCount)
    return record(
      output, from: [x], scratchToAdd: x.count, sentByteCount: 4 * Double(sentBackCount),
      messageCount: peerCount)
  }

  /// The same in two operations: it leaves when the first is made, and arrives, when it is called for, in a tensor.
  func travel(
    _ x: ValueTwin, to count: Int, sentCount: Int, sentBackCount: Int, peerCount: Int
  ) -> () -> ValueTwin {
    let xCount = x.count
    // Where it left is where it arrives on the way back.
    if isRecording, x.isTracked {
      onWayBack { [ledger] in ledger.travelingByteCount -= 4 * Double(sentBackCount) }
    }
    func leave(_ elementCount: Int, touching touchedCount: Int) {
      ledger.work.movedByteCount += 4 * Double(touchedCount)
      ledger.travelingByteCount += 4 * Double(elementCount)
      ledger.exchange(byteCount: 4 * elementCount, messageCount: peerCount)
      ledger.work.besideByteCount += 4 * Double(elementCount)
      ledger.work.besideMessageCount += Double(peerCount)
    }
    leave(sentCount, touching: xCount)
    let ticket = record(result(0), from: [x], scratchToAdd: x.count)
    return { [self] in
      ledger.travelingByteCount -= 4 * Double(sentCount)
      if ticket.isTracked { onWayBack { leave(sentBackCount, touching: 2 * xCount) } }
      return record(result(count), from: [ticket])
    }
  }

  /// Attention to the blocks of keys of a ring of ranks, the own one first. Two blocks of others are held
  /// (four on the way back), and partial outputs as the tree over the ranks keeps them.
  /// - Parameters:
  ///   - blockCounts: elements of keys of every rank's block.
  ///   - rank: whose block the own one is.
  func ringAttention(
    query: ValueTwin, key: ValueTwin, value: ValueTwin, headCount: Int, width: Int,
    blockCounts: [Int], rank: Int, sampleCount: Int
  ) -> ValueTwin {
    typealias Partial = (output: PlannedLedger.Block, logSumExp: PlannedLedger.Block)
    let (size, largest) = (blockCounts.count, blockCounts.max() ?? 0)
    let allCount = blockCounts.reduce(0, +)
    let room = [scratch(largest), scratch(largest)]
    func partial() -> Partial { (result(query.count), result(query.count / width * headCount)) }
    var tree = ArrivalTree<Partial?>(count: size)
    for step in 0..<size {
      let part = (rank + size - step) % size
      let isEmpty = query.count == 0 || blockCounts[part] == 0
      tree.insert(isEmpty ? nil : partial(), at: part) { $0 ?? $1 }
    }
    withExtendedLifetime(room) {}
    let (output, logSumExp) = (tree.result ?? nil) ?? partial()
    let product =
      2 * Double(query.count / width) * Double(allCount / width / sampleCount) * Double(width)
    ledger.countAttention(2 * product)
    // Keys and values pass: all but the next rank's are sent on. Gradients of others' go home.
    let passed = 2 * (allCount - blockCounts[(rank + 1) % size])
    ledger.exchange(
      byteCount: 4 * passed, messageCount: 2 * (size - 1), waitCount: size - 1)
    return record(
      output, from: [query, key, value],
      saving: [query.block, key.block, value.block, output, logSumExp],
      scratch: [query, key, value].filter { !$0.isTracked }.map(\.count)
        + Array(repeating: largest, count: 4), attentionOperationCount: 5 * product,
      sentByteCount: 4 * Double(passed + 2 * (allCount - blockCounts[rank])),
      messageCount: 4 * (size - 1), waitCount: 2 * (size - 1))
  }

  /// Own tokens or columns to the ranks that cut weights with this one; on the way back their sum.
  func gather(_ x: ValueTwin, to count: Int, peerCount: Int) -> ValueTwin {
    let output = result(count)
    ledger.exchange(byteCount: 4 * peerCount * x.count, messageCount: peerCount)
    return record(
      output, from: [x], scratch: [heldPartialCount(ofTree: peerCount + 1) * x.count],
      scratchToAdd: x.count, sentByteCount: 4 * Double(count - x.count), messageCount: peerCount)
  }

  /// The same, gathered again on the way back instead of being kept, unless that follows at once.
  func gatherTwice(_ x: ValueTwin, to count: Int, peerCount: Int) -> ValueTwin {
    let gathered = gather(x, to: count, peerCount: peerCount)
    guard isRecording, !isRecomputing else { return gathered }
    let remaking = RemakingTwin(of: x.block) { [ledger, role, byteCount = 4 * x.count] in
      ledger.exchange(byteCount: peerCount * byteCount, messageCount: peerCount)
      return ledger.allocate(count, role, .activations)
    }
    return ValueTwin(gathered.block, node: gathered.node, remaking: remaking)
  }

  /// The adjoint of `gather`.
  func scatterSum(_ x: ValueTwin, to count: Int, peerCount: Int) -> ValueTwin {
    let output = result(count)
    let room = scratch(heldPartialCount(ofTree: peerCount + 1) * count)
    ledger.exchange(byteCount: 4 * (x.count - count), messageCount: peerCount)
    withExtendedLifetime(room) {}
    return record(
      output, from: [x], scratchToAdd: x.count, sentByteCount: 4 * Double(peerCount * count),
      messageCount: peerCount)
  }

  /// A bias that is no part of a product.
  /// - Parameter partials: sums over blocks of rows that its gradient holds beside itself, of so wide rows.
  func addBias(
    _ x: ValueTwin, isTrainable: Bool, width: Int = 0, partials: Int = 0
  ) -> ValueTwin {
    let output = result(x.count)
    return record(
      output, from: [x], wantsParameterGradient: isTrainable, passingTo: [0],
      scratch: Array(repeating: width, count: isTrainable ? partials : 0))
  }

  /// Own tokens to all ranks.
  func gatherTokens(_ x: ValueTwin, to count: Int, peerCount: Int) -> ValueTwin {
    let output = result(count)
    ledger.exchange(byteCount: 4 * peerCount * x.count, messageCount: peerCount)
    return record(output, from: [x])
  }

  /// Own tokens to all ranks, which add up their gradients on the way back.
  func shareTokens(_ x: ValueTwin, to count: Int, peerCount: Int) -> ValueTwin {
    let output = result(count)
    ledger.exchange(byteCount: 4 * peerCount * x.count, messageCount: peerCount)
    return record(
      output, from: [x], scratch: [heldPartialCount(ofTree: peerCount + 1) * x.count],
      scratchToAdd: x.count, sentByteCount: 4 * Double(count - x.count), messageCount: peerCount)
  }

  /// All tokens to own ones; on the way back the gradients of all come together.
  func ownTokens(_ x: ValueTwin, count: Int, peerCount: Int) -> ValueTwin {
    let output = result(count)
    return record(
      output, from: [x], scratchToAdd: x.count, sentByteCount: 4 * Double(peerCount * count))
  }

  /// All tokens, which all ranks have, to own ones; on the way back the gradients of all come together again.
  /// - Parameter rounds: to how many elements, from how many others, they are gathered one after the other.
  func ownTokens(_ x: ValueTwin, count: Int, rounds: [(count: Int, peerCount: Int)]) -> ValueTwin {
    let output = result(count)
    let sent = rounds.reduce((bytes: 0, count: count)) { sent, round in
      (sent.bytes + 4 * round.peerCount * sent.count, round.count)
    }
    return record(
      output, from: [x], scratch: rounds.map(\.count), sentByteCount: Double(sent.bytes),
      messageCount: rounds.reduce(0) { $0 + $1.peerCount }, waitCount: rounds.count)
  }

  /// What all ranks have alike; on the way back their gradients are summed on every rank.
  func shared(_ x: ValueTwin, peerCount: Int) -> ValueTwin {
    record(
      x.block, from: [x], scratch: [(peerCount + 1) * x.count],
      sentByteCount: 4 * Double(peerCount * x.count))
  }

  // MARK: Pipelines

  /// Inputs whose gradients are handed over when the way back has come to them.
  /// - Parameter handOver: is given the elements of each gradient that is there.
  func inputs(
    _ inputs: [(block: PlannedLedger.Block, isTracked: Bool)],
    handingOver handOver: @escaping (_ counts: [Int]) -> Void
  ) -> [ValueTwin] {
    guard isRecording, inputs.contains(where: \.isTracked) else {
      return inputs.map { ValueTwin(constant: $0.block) }
    }
    let gradients = inputs.map { $0.isTracked ? Gradient($0.block.count) : nil }
    onWayBack {
      let blocks = gradients.map { gradient in
        defer { gradient?.block = nil }
        return gradient?.block
      }
      handOver(blocks.compactMap { $0?.count })
    }
    return zip(inputs, gradients).map { input, gradient in
      gradient.map { leaf(input.block, gradient: $0) } ?? ValueTwin(constant: input.block)
    }
  }

  /// What other stages make of a state, whose gradients come from them.
  func handedOn(_ state: [ValueTwin], resultCount: Int) -> ValueTwin {
    let result = result(resultCount)
    return record(result, from: state)
  }
}
