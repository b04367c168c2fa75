// The slow twin of attention: one query at a time, all its weights in a row.
//
// Forward:  s_j = q·k_j / √K,  p = softmax over the visible j,  o = Σ_j p_j v_j,  lse = log Σ e^{s_j}.
// Backward: dp_j = do·v_j,  D = do·o,  ds_j = p_j (dp_j − D),
//           dv_j += p_j do,  dq += Σ_j ds_j k_j / √K,  dk_j += ds_j q / √K.
// A query that sees no key gives a zero output, lse = −∞ and no gradient.
// Every product reads its operands in the given precision: q k, p v, do v, p do, ds k, ds q; the sum
// below the softmax and D do not.

import Foundation

extension KernelScalar {
  package static func attention(
    query: Buffer<Self>, key: Buffer<Self>, value: Buffer<Self>, mask: AttentionMask?,
    shape: AttentionShape, precision: ProductPrecision, into output: Buffer<Self>,
    logSumExp: Buffer<Self>
  ) {
    shape.require(
      queries: [("query", query), ("output", output)], keys: [("key", key), ("value", value)],
      logSumExp: logSumExp, mask: mask)
    forEachQuery(of: shape, mask) { b, n, i, visible in
      let q = shape.queryStart(b, i, n)
      let scores = visible.map {
        scaledDot(query, q, key, shape.keyStart(b, $0, n), shape, precision)
      }
      let largest = scores.max() ?? 0
      let weights = scores.map { Self(exp(Double($0 - largest))) }
      let total = weights.reduce(0, +)
      logSumExp[shape.rowStart(b, n) + i] =
        visible.isEmpty ? -Self.infinity : largest + Self(log(Double(total)))
      for c in 0..<shape.headWidth { output[q + c] = 0 }
      for (j, weight) in zip(visible, weights) {
        let v = shape.keyStart(b, j, n)
        let p = precision.rounded(weight) / total
        for c in 0..<shape.headWidth { output[q + c] += p * precision.rounded(value[v + c]) }
      }
    }
  }

  package static func attentionBackward(
    outputGradient: Buffer<Self>, query: Buffer<Self>, key: Buffer<Self>, value: Buffer<Self>,
    output: Buffer<Self>, logSumExp: Buffer<Self>, mask: AttentionMask?, shape: AttentionShape,
    precision: ProductPrecision, queryGradient: GradientBuffer<Self>,
    keyGradient: GradientBuffer<Self>, valueGradient: GradientBuffer<Self>
  ) {
    shape.require(
      queries: [
        ("outputGradient", outputGradient), ("query", query), ("output", output),
        ("queryGradient", queryGradient.buffer),
      ],
      keys: [
        ("key", key), ("value", value), ("keyGradient", keyGradient.buffer),
        ("valueGradient", valueGradient.buffer),
      ], logSumExp: logSumExp, mask: mask)
    let (queryGradient, keyGradient, valueGradient) = (
      queryGradient.addend, keyGradient.addend, valueGradient.addend
    )
    let scale = 1 / Self(shape.headWidth).squareRoot()
    forEachQuery(of: shape, mask) { b, n, i, visible in
      let q = shape.queryStart(b, i, n)
      var correction: Self = 0
      for c in 0..<shape.headWidth { correction += outputGradient[q + c] * output[q + c] }
      for j in visible {
        let k = shape.keyStart(b, j, n)
        let score = scaledDot(query, q, key, k, shape, precision)
        let p = Self(exp(Double(score - logSumExp[shape.rowStart(b, n) + i])))
        var dp: Self = 0
        for c in 0..<shape.headWidth {
          dp += precision.rounded(outputGradient[q + c]) * precision.rounded(value[k + c])
        }
        let ds = precision.rounded(p * (dp - correction) * scale)
        for c in 0..<shape.headWidth {
          valueGradient[k + c] += precision.rounded(p) * precision.rounded(outputGradient[q + c])
          queryGradient[q + c] += ds * precision.rounded(key[k + c])
          keyGradient[k + c] += ds * precision.rounded(query[q + c])
        }
      }
    }
  }

  package static func joinAttention(
    output otherOutput: Buffer<Self>, logSumExp otherLogSumExp: Buffer<Self>,
    shape: AttentionShape, to output: Buffer<Self>, logSumExp: Buffer<Self>
  ) {
    shape.require(otherOutput, otherLogSumExp, joining: output, logSumExp)
    forEachQuery(of: shape, nil) { b, n, i, _ in
      let row = shape.rowStart(b, n) + i
      let largest = max(logSumExp[row], otherLogSumExp[row])
      if largest == -.infinity { return }
      let p = Self(exp(Double(logSumExp[row] - largest)))
      let q = Self(exp(Double(otherLogSumExp[row] - largest)))
      let start = shape.queryStart(b, i, n)
      for c in start..<(start + shape.headWidth) {
        output[c] = (p * output[c] + q * otherOutput[c]) / (p + q)
      }
      logSumExp[row] = largest + Self(log(Double(p + q)))
    }
  }

  private static func forEachQuery(
    of shape: AttentionShape, _ mask: AttentionMask?,
    _ body: (_ b: Int, _ n: Int, _ i: Int, _ visible: [Int]) -> Void
  ) {
    for b in 0..<shape.sampleCount {
      let visible = (0..<shape.keyCount).filter {
        mask?.visibleKeys[b * shape.keyCount + $0] != 0
      }
      for n in 0..<shape.headCount {
        for i in 0..<shape.queryCount {
          let isIsolated = mask?.isIsolated(i, sample: b, shape: shape) ?? false
          body(b, n, i, isIsolated ? [0] : visible)
        }
      }
    }
  }

  private static func scaledDot(
    _ x: Buffer<Self>, _ xStart: Int, _ y: Buffer<Self>, _ yStart: Int, _ shape: AttentionShape,
    _ precision: ProductPrecision
  ) -> Self {
    var sum: Self = 0
    for c in 0..<shape.headWidth {
      sum += precision.rounded(x[xStart + c]) * precision.rounded(y[yStart + c])
    }
    return sum / Self(shape.headWidth).squareRoot()
  }
}

extension AttentionShape {
  /// Where query `i` of sample `b` and head `n` starts.
  func queryStart(_ b: Int, _ i: Int, _ n: Int) -> Int {
    ((b * queryCount + i) * headCount + n) * headWidth
  }

  func keyStart(_ b: Int, _ j: Int, _ n: Int) -> Int {
    ((b * keyCount + j) * headCount + n) * headWidth
  }

  /// Where the rows of log-sum-exps of sample `b` and head `n` start.
  func rowStart(_ b: Int, _ n: Int) -> Int { (b * headCount + n) * queryCount }
}
