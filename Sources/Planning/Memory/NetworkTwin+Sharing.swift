// What ranks that share tokens, or cut weights, exchange in a pass: twin of the sequences of Training/Sharding
// and of Models/Layers/TensorParallel. Alone, a rank exchanges nothing here.

import MeshLayout

extension NetworkTwin {
  /// What this rank has of all tokens.
  func own(_ tape: TapeTwin, _ tokens: ValueTwin, tokenCount: Int) -> ValueTwin {
    guard let part else { return tokens }
    let count = tokens.count / tokenCount * part.count(of: tokenCount)
    return sizes.sumsInBlocks
      ? tape.ownTokens(tokens, count: count, peerCount: part.shareCount - 1)
      : tape.slice(tokens, count: count)
  }

  /// The same of latents, whose gradient comes together again where it is wanted.
  func ownPatches(_ tape: TapeTwin, _ tokens: ValueTwin, tokenCount: Int) -> ValueTwin {
    guard let part, tokens.isTracked, !sizes.sumsInBlocks else {
      return own(tape, tokens, tokenCount: tokenCount)
    }
    let tokenSize = tokens.count / tokenCount
    return tape.ownTokens(
      tokens, count: tokenSize * part.count(of: tokenCount),
      rounds: part.gatherRounds(of: tokenCount).map { (tokenSize * $0.count, $0.peerCount) })
  }

  // MARK: Sums in blocks

  /// Partial sums that a gradient over the own tokens of these segments holds beside itself.
  func partials(_ segments: [Int]) -> Int {
    guard sizes.sumsInBlocks else { return 0 }
    return TokenBlocks(
      segments: segments, part: part?.place ?? 0, partCount: part?.shareCount ?? 1
    ).heldPartialCount
  }

  /// The same over the tokens of those who cut weights.
  func groupPartials(_ segments: [Int]) -> Int {
    guard sizes.sumsInBlocks else { return 0 }
    return TokenBlocks(segments: segments, part: part?.rank ?? 0, partCount: part?.degree ?? 1)
      .heldPartialCount
  }

  /// What all ranks have alike and go on with for their own tokens.
  func shared(_ tape: TapeTwin, _ x: ValueTwin) -> ValueTwin {
    guard let part, sizes.sumsInBlocks else { return x }
    return tape.shared(x, peerCount: part.shareCount - 1)
  }

  /// Tokens of a segment from all ranks: those who cut weights together, the group's part of the ring, then
  /// all of it.
  /// - Parameter tokenSize: elements of a token over all samples.
  func allTokens(
    _ tape: TapeTwin, _ x: ValueTwin, of tokenCount: Int, tokenSize: Int
  ) -> ValueTwin {
    guard let part else { return x }
    return part.gatherRounds(of: tokenCount).reduce(x) { x, round in
      tape.gatherTokens(x, to: tokenSize * round.count, peerCount: round.peerCount)
    }
  }

  /// A query, key or value of video and text as soon as it is made; it is called for once.
  func operand(_ tape: TapeTwin, _ x: ValueTwin, sampleCount: Int) -> () -> ValueTwin {
    guard let part, part.degree > 1 else { return { x } }
    let counts = exchangeCounts(part, ofOwn: x.count, sampleCount: sampleCount)
    return tape.travel(
      x, to: counts.all, sentCount: counts.own, sentBackCount: counts.others,
      peerCount: part.degree - 1)
  }

  /// What every rank adds to a sum, on all of them.
  func sumOfParts(_ tape: TapeTwin, _ x: ValueTwin) -> ValueTwin {
    guard let part else { return x }
    let parts = allTokens(tape, x.detached, of: part.partCount, tokenSize: x.count)
    let sum = tape.record(tape.result(x.count), from: [x], passingTo: [0])
    withExtendedLifetime(parts) {}
    return sum
  }

  /// Attention over video and text, with its exchanges where the sequence is cut.
  /// - Parameter ownCount: elements of a query of own tokens.
  func jointAttention(
    _ tape: TapeTwin, query: () -> ValueTwin, key: () -> ValueTwin, value: () -> ValueTwin,
    ownCount: Int, sampleCount: Int
  ) -> ValueTwin {
    let (q, k, v) = (query(), key(), value())
    defer { withExtendedLifetime((q, k, v)) {} }
    guard let part else {
      return tape.attention(
        query: q, key: k, value: v, headCount: sizes.headCount, sampleCount: sampleCount,
        width: width)
    }
    let attended = ringAttention(
      tape, part, query: q, key: k, value: v, sampleCount: sampleCount)
    if part.degree == 1 { return attended }
    let counts = exchangeCounts(part, ofOwn: ownCount, sampleCount: sampleCount)
    let result = tape.exchange(
      attended, to: ownCount, sentCount: counts.others, sentBackCount: counts.own,
      peerCount: part.degree - 1)
    withExtendedLifetime(attended) {}
    return result
  }

  /// Elements of all tokens of own heads; of own tokens for the heads of others, which go out; of the own heads
  /// for tokens of others, which come back.
  private func exchangeCounts(
    _ part: SequencePart, ofOwn ownCount: Int, sampleCount: Int
  ) -> (all: Int, own: Int, others: Int) {
    let tokenCount = tokenCount(at: part.ringRank, of: part)
    let all = sampleCount * tokenCount * (width / cut / part.degree)
    return (all, ownCount / part.degree * (part.degree - 1), all - ownCount / part.degree)
  }

  /// Attention of own heads, around the ring where there is one.
  private func ringAttention(
    _ tape: TapeTwin, _ part: SequencePart, query: ValueTwin, key: ValueTwin, value: ValueTwin,
    sampleCount: Int
  ) -> ValueTwin {
    let degree = part.degree * cut
    let (headCount, width) = (sizes.headCount / degree, width / degree)
    guard part.ringDegree > 1 else {
      return tape.attention(
        query: query, key: key, value: value, headCount: headCount, sampleCount: sampleCount,
        width: width)
    }
    return tape.ringAttention(
      query: query, key: key, value: value, headCount: headCount, width: width,
      blockCounts: (0..<part.ringDegree).map {
        sampleCount * tokenCount(at: $0, of: part) * width
      }, rank: part.ringRank, sampleCount: sampleCount)
  }

  /// Video and text tokens of a part of the ring.
  private func tokenCount(at rank: Int, of part: SequencePart) -> Int {
    part.ringCount(of: sizes.videoTokenCount, at: rank)
      + part.ringCount(of: sizes.textTokenCount, at: rank)
  }

  // MARK: Cut weights

  /// Queries, keys or values of own heads.
  func heads(_ tape: TapeTwin, _ x: ValueTwin, _ partials: Int) -> ValueTwin {
    adapted(tape, x, from: width, to: width / cut, partials: partials)
  }

  func mlp(
    _ tape: TapeTwin, _ x: ValueTwin, _ modulation: [ValueTwin], _ segments: [Int],
    _ sampleCount: Int
  ) -> ValueTwin {
    let partials = partials(segments)
    let hidden = gathered(
      tape,
      tape.layerNorm(
        x, width: width, scale: modulation[4], shift: modulation[3], partials: partials),
      segments, sampleCount)
    let activated = tape.apply(
      adapted(
        tape, hidden, from: width, to: sizes.mlpWidth / cut, partials: groupPartials(segments)))
    let result = tape.gatedResidual(
      x, gate: modulation[5],
      rowLinear(tape, [activated], from: sizes.mlpWidth, to: x.count, segments, sampleCount),
      partials: partials)
    withExtendedLifetime(hidden) {}
    return result
  }

  func modulation(
    _ tape: TapeTwin, _ condition: ValueTwin, count: Int
  ) -> [ValueTwin] {
    if sizes.sliceCount != nil {
      let rows = SliceRowsTwin(
        ownCount: condition.count / width, count: condition.count / width, degree: cut,
        isOfSamples: true, ownPartials: 0)
      let read = tape.columnInput(condition, width: width, rows)
      let columns = linear(tape, read, from: width, to: count * width / cut)
      let all =
        cut == 1
        ? columns : tape.gatherTokens(columns, to: columns.count * cut, peerCount: cut - 1)
      let parts = tape.chunks(shared(tape, all), count: count)
      withExtendedLifetime(read) {}
      return parts
    }
    let columns = linear(tape, condition, from: width, to: count * width / cut)
    return tape.chunks(
      cut == 1
        ? shared(tape, columns)
        : tape.gather(columns, to: columns.count * cut, peerCount: cut - 1),
      count: count)
  }

  /// Own tokens to all ranks that cut weights with this one.
  func gathered(
    _ tape: TapeTwin, _ x: ValueTwin, _ segments: [Int], _ sampleCount: Int
  ) -> ValueTwin {
    if let rows = sliceRows(segments, sampleCount) {
      return tape.columnInput(x, width: width, rows)
    }
    guard let part, cut > 1 else { return x }
    let tokenCount = segments.reduce(0) { $0 + part.groupCount(of: $1) }
    return tape.gatherTwice(x, to: sampleCount * tokenCount * width, peerCount: cut - 1)
  }

  /// A row-parallel layer; `inputWidth` is that of all ranks, `count` the elements of own tokens.
  func rowLinear(
    _ tape: TapeTwin, _ parts: [ValueTwin], from inputWidth: Int, to count: Int,
    _ segments: [Int], _ sampleCount: Int
  ) -> ValueTwin {
    let partials = groupPartials(segments)
    if let rows = sliceRows(segments, sampleCount) {
      return tape.rowLinear(
        [parts], from: inputWidth / cut, to: width, isTrainable: isTrainable, update: adapter,
        rows, partials: partials)
    }
    let sums = tape.linear(
      parts: parts, from: inputWidth / cut, to: width, isTrainable: isTrainable, update: adapter,
      partials: partials)
    if cut == 1 { return sums }
    return tape.addBias(
      tape.scatterSum(sums, to: count, peerCount: cut - 1), isTrainable: isTrainable)
  }

  /// Own tokens of these segments and those of the ranks that cut weights with this one; nil where sums are not made in
  /// slices.
  private func sliceRows(_ segments: [Int], _ sampleCount: Int) -> SliceRowsTwin? {
    guard sizes.sliceCount != nil else { return nil }
    func count(_ own: (Int) -> Int) -> Int {
      sampleCount * segments.reduce(0) { $0 + own($1) }
    }
    let own = count { part?.count(of: $0) ?? $0 }
    return SliceRowsTwin(
      ownCount: own, count: count { part?.groupCount(of: $0) ?? $0 }, degree: cut,
      ownPartials: partials(segments))
  }

  /// A norm of queries or keys of own heads.
  func normed(
    _ tape: TapeTwin, _ x: ValueTwin, _ segments: [Int], _ sampleCount: Int
  ) -> ValueTwin {
    guard let sliceCount = sizes.sliceCount, let rows = sliceRows(segments, sampleCount) else {
      return tape.headNorm(
        x, headWidth: sizes.headWidth, isTrainable: isTrainable, partials: groupPartials(segments))
    }
    return tape.headNorm(
      x, headWidth: sizes.headWidth, isTrainable: isTrainable, sliceCount: sliceCount / cut,
      blockCount: TokenBlocks.count / (part?.degree ?? 1), rows)
  }

  /// A sum of row-parallel layers, each from and to the width.
  /// - Parameter count: elements of own tokens.
  func rowLinears(
    _ tape: TapeTwin, _ inputs: [ValueTwin], to count: Int, _ segments: [Int],
    _ sampleCount: Int
  ) -> ValueTwin {
    let partials = groupPartials(segments)
    if let rows = sliceRows(segments, sampleCount) {
      return tape.rowLinear(
        inputs.map { [$0] }, from: width / cut, to: width, isTrainable: isTrainable,
        update: adapter, rows, partials: partials)
    }
    let terms = inputs.map {
      adapted(tape, $0, from: width / cut, to: width, partials: partials)
    }
    let sum = terms.dropFirst().reduce(terms[0]) { tape.add($0, $1) }
    if cut == 1 { return sum }
    return inputs.reduce(tape.scatterSum(sum, to: count, peerCount: cut - 1)) { sum, _ in
      tape.addBias(sum, isTrainable: isTrainable)
    }
  }

  /// A layer whose inputs and outputs are cut: its terms are summed by columns; in slices by tokens, whose columns are then
  /// dealt out.
  func innerLinear(
    _ tape: TapeTwin, _ x: ValueTwin, _ segments: [Int], _ sampleCount: Int
  ) -> ValueTwin {
    let partials = groupPartials(segments)
    if let rows = sliceRows(segments, sampleCount) {
      let own = tape.rowLinear(
        [[x]], from: width / cut, to: width, isTrainable: isTrainable, update: adapter, rows,
        partials: partials)
      let kept = own.count / cut
      let columns =
        cut == 1
        ? own
        : tape.exchange(
          own, to: x.count, sentCount: own.count - kept, sentBackCount: x.count - kept,
          peerCount: cut - 1)
      return tape.addBias(
        columns, isTrainable: isTrainable, width: width / cut, partials: partials)
    }
    let terms = adapted(tape, x, from: width / cut, to: width, partials: partials)
    if cut == 1 { return terms }
    return tape.addBias(
      tape.scatterSum(terms, to: x.count, peerCount: cut - 1), isTrainable: isTrainable)
  }
}
