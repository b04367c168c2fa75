// Attention over blocks of keys, joined, is attention over all of them; the gradients of the blocks, each
// given output and log-sum-exp of all, are those of the whole.

import DenseKernels
import TestSupport
import Testing

struct AttentionBlocksTests {
  /// Two samples, two heads of 8; blocks of keys as `keyCounts` says.
  private struct Example {
    let keyCounts: [Int]
    let queryCount: Int
    let mask: AttentionMask?

    var keyCount: Int { keyCounts.reduce(0, +) }

    func shape(_ keyCount: Int) -> AttentionShape {
      AttentionShape(
        sampleCount: 2, queryCount: queryCount, keyCount: keyCount, headCount: 2, headWidth: 8)
    }

    var ranges: [Range<Int>] {
      var start = 0
      return keyCounts.map { count in
        defer { start += count }
        return start..<start + count
      }
    }
  }

  /// [2, keys, 16] → the same of a range of keys.
  private func rows<S>(_ x: Buffer<S>, _ range: Range<Int>, of keyCount: Int) -> Buffer<S> {
    let samples = [0, keyCount].map { start -> [S] in
      let first = (start + range.lowerBound) * 16
      return x[first..<(first + range.count * 16)].array
    }
    return Buffer(samples[0] + samples[1])
  }

  private func inputs<S: KernelScalar>(_ example: Example) -> [Buffer<S>] {
    let (queries, keys) = (2 * example.queryCount * 16, 2 * example.keyCount * 16)
    return [normals(queries, 1), normals(keys, 2), normals(keys, 3)]
  }

  private func forward<S: KernelScalar>(
    _ example: Example, _ inputs: [Buffer<S>], _ precision: ProductPrecision
  ) -> (output: Buffer<S>, logSumExp: Buffer<S>) {
    let (queries, rowCount) = (2 * example.queryCount * 16, 4 * example.queryCount)
    var whole: (output: Buffer<S>, logSumExp: Buffer<S>)?
    for range in example.ranges {
      let part: (output: Buffer<S>, logSumExp: Buffer<S>) = (poisoned(queries), poisoned(rowCount))
      S.attention(
        query: inputs[0], key: rows(inputs[1], range, of: example.keyCount),
        value: rows(inputs[2], range, of: example.keyCount),
        mask: example.mask?.keys([range], of: example.keyCount), shape: example.shape(range.count),
        precision: precision, into: part.output, logSumExp: part.logSumExp)
      if let whole {
        S.joinAttention(
          output: part.output, logSumExp: part.logSumExp, shape: example.shape(1),
          to: whole.output, logSumExp: whole.logSumExp)
      } else {
        whole = part
      }
    }
    return whole ?? (poisoned(queries), poisoned(rowCount))
  }

  /// Output, log-sum-exp and gradients by query, keys and values of blocks, joined.
  private func run<S: KernelScalar>(
    _: S.Type, _ example: Example, _ precision: ProductPrecision = .float32
  ) -> [[Double]] {
    let inputs: [Buffer<S>] = inputs(example)
    let (output, logSumExp) = forward(example, inputs, precision)
    let dq: Buffer<S> = poisoned(output.count)
    var (dk, dv) = ([[Double]](), [[Double]]())
    for (index, range) in example.ranges.enumerated() {
      let (partK, partV): (Buffer<S>, Buffer<S>) = (
        poisoned(2 * range.count * 16), poisoned(2 * range.count * 16)
      )
      S.attentionBackward(
        outputGradient: normals(output.count, 4), query: inputs[0],
        key: rows(inputs[1], range, of: example.keyCount),
        value: rows(inputs[2], range, of: example.keyCount), output: output,
        logSumExp: logSumExp, mask: example.mask?.keys([range], of: example.keyCount),
        shape: example.shape(range.count), precision: precision,
        queryGradient: GradientBuffer(dq, accumulates: index > 0), keyGradient: over(partK),
        valueGradient: over(partV))
      dk.append(doubles(partK)[0])
      dv.append(doubles(partV)[0])
    }
    /// Sample by sample, as the whole has them.
    func joined(_ parts: [[Double]]) -> [Double] {
      parts.flatMap { $0.prefix($0.count / 2) } + parts.flatMap { $0.suffix($0.count / 2) }
    }
    return doubles(output, logSumExp, dq) + [joined(dk), joined(dv)]
  }

  private func whole(_ example: Example) -> Example {
    Example(
      keyCounts: [example.keyCount], queryCount: example.queryCount, mask: example.mask)
  }

  /// A mask that hides all of sample 0 in the second block, and some keys elsewhere.
  private func mask(_ example: Example) -> AttentionMask {
    let hidden = example.ranges.count > 1 ? example.ranges[1] : 0..<0
    return AttentionMask(
      visibleKeys: (0..<(2 * example.keyCount)).map { index -> UInt8 in
        let (sample, key) = (index / example.keyCount, index % example.keyCount)
        let isHidden = sample == 0 ? hidden.contains(key) : key % 3 == 1
        return isHidden ? 0 : 1
      })
  }

  private var examples: [Example] {
    [[5], [3, 4], [1, 6, 2], [4, 1, 3, 9], [300, 130]].flatMap { counts in
      let plain = Example(keyCounts: counts, queryCount: 7, mask: nil)
      return [plain, Example(keyCounts: counts, queryCount: 7, mask: mask(plain))]
    }
  }

  @Test func `blocks joined are the whole in Float64`() {
    for example in examples {
      expectAgreement(
        run(Double.self, example), run(Double.self, whole(example)), absolute: 1e-12,
        "\(example)")
    }
  }

  /// The bounds of `FloatAttentionTests`, and a join for every further block.
  @Test func `blocks joined in fp32 and bf16 agree with the slow twin of the whole`() {
    for example in examples + [Example(keyCounts: [260, 70, 500], queryCount: 250, mask: nil)] {
      let bound = (64 + 0.5 * Double(example.queryCount)) * epsilon
      expectAgreement(
        run(Float.self, example), run(Double.self, whole(example)), absolute: bound,
        relative: bound, "\(example)")
      expectAgreement(
        run(Float.self, example, .bfloat16), run(Double.self, whole(example), .bfloat16),
        absolute: 1 / 64, relative: 1 / 64, "bf16, \(example)")
    }
  }

  @Test func `what saw no key counts nothing, and two such remain nothing`() {
    func check<S: KernelScalar>(_: S.Type) {
      let shape = AttentionShape(
        sampleCount: 1, queryCount: 2, keyCount: 1, headCount: 1, headWidth: 8)
      let x: Buffer<S> = normals(16, 1)
      let seen = x.array
      func join(_ left: [S], _ leftSum: [S], _ right: [S], _ rightSum: [S]) -> ([S], [S]) {
        let (output, sum) = (Buffer(left), Buffer(leftSum))
        S.joinAttention(
          output: Buffer(right), logSumExp: Buffer(rightSum), shape: shape, to: output,
          logSumExp: sum)
        return (output.array, sum.array)
      }
      let (nothing, none) = ([S](repeating: 0, count: 16), [S](repeating: -.infinity, count: 2))
      #expect(join(seen, [1, 2], nothing, none) == (seen, [1, 2]))
      #expect(join(nothing, none, seen, [1, 2]) == (seen, [1, 2]))
      #expect(join(nothing, none, nothing, none) == (nothing, none))
      // A number that is none is not lost.
      #expect(join(seen, [.nan, 2], seen, [1, 2]).0[0].isNaN)
      #expect(join(seen, [1, 2], seen, [.nan, 2]).0[0].isNaN)
    }
    check(Float.self)
    check(Double.self)
  }

  @Test func `gradients of joined blocks agree with central differences`() {
    let plain = Example(keyCounts: [2, 1, 3], queryCount: 3, mask: nil)
    for example in [plain, Example(keyCounts: [2, 1, 3], queryCount: 3, mask: mask(plain))] {
      let inputs: [Buffer<Double>] = inputs(example)
      let weights: Buffer<Double> = normals(2 * 3 * 16, 4)
      expectGradients(
        Array(run(Double.self, example)[2...]), at: inputs.map(\.array),
        outputWeights: weights.array
      ) { forward(example, $0, .float32).output }
    }
  }
}
