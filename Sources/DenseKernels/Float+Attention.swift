// Flash attention in Float32: the loops over heads, blocks of queries and tiles of keys.
//
// Goals: 1 memory linear in the number of tokens, 2 speed, also for short sequences. Only the log-sum-exp
// per query is saved; the backward pass recomputes the scores of a tile. Tiles whose keys are all
// visible take the path without a mask; tiles without a visible key are skipped. Sums over keys run in
// tile order, so equal inputs give equal bits. How the products are done: AttentionProducts.swift.
// Source: FlashAttention-2 (2307.08691), algorithms 1 and 2. Formulas: KernelScalar+SlowAttention.swift.

import CKernels

extension Float {
  package static func attention(
    query: Buffer<Self>, key: Buffer<Self>, value: Buffer<Self>, mask: AttentionMask?,
    shape: AttentionShape, precision: ProductPrecision, into output: Buffer<Self>,
    logSumExp: Buffer<Self>
  ) {
    shape.require(
      queries: [("query", query), ("output", output)], keys: [("key", key), ("value", value)],
      logSumExp: logSumExp, mask: mask)
    KernelThreads.split(shape.sampleCount * shape.headCount) { heads in
      let work: any AttentionProducts =
        PackedAttention(shape, precision, isBackward: false)
        ?? StridedAttention(shape, precision, isBackward: false)
      let rows = AttentionRows(shape, mask)
      for (b, n) in shape.samplesAndHeads(heads) {
        let tiles = rows.keyTiles(of: b)
        work.begin(
          keys: shape.keys(of: key, b, n), values: shape.keys(of: value, b, n), tiles: tiles)
        for first in stride(from: 0, to: shape.queryCount, by: AttentionTiles.queryCount) {
          let count = min(AttentionTiles.queryCount, shape.queryCount - first)
          let o = shape.queries(of: output, b, n, first, count)
          work.begin(queries: shape.queries(of: query, b, n, first, count))
          rows.begin(count)
          for (index, tile) in tiles.enumerated() {
            work.softmax(of: tile, rows)
            if index > 0 {
              unsafe w2svd_scale_rows(o.base, o.stride, count, shape.headWidth, rows.factor)
            }
            work.multiply(tile, into: o, accumulating: index > 0)
          }
          if tiles.isEmpty {
            for r in 0..<count { unsafe o.row(r).update(repeating: 0, count: shape.headWidth) }
          }
          unsafe w2svd_finish_rows(
            o.base, o.stride, count, shape.headWidth, rows.maximum, rows.total,
            logSumExp.base + shape.rowStart(b, n) + first)
        }
        guard let mask, !mask.isolatedQueries.isEmpty else { continue }
        let key0 = shape.keyStart(b, 0, n)
        for i in 0..<shape.queryCount where mask.isIsolated(i, sample: b, shape: shape) {
          let start = shape.queryStart(b, i, n)
          var score: Float = 0
          unsafe w2svd_row_dots(
            query.base + start, key.base + key0, shape.rowStride, 1, shape.headWidth, &score)
          logSumExp[shape.rowStart(b, n) + i] = score * shape.scoreScale
          unsafe (output.base + start).update(from: value.base + key0, count: shape.headWidth)
        }
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
    // A mask may leave out tiles, and then nothing overwrites their part.
    let isMasked = mask != nil
    func start(_ gradient: GradientBuffer<Self>) -> (Buffer<Self>, overwrites: Bool) {
      isMasked ? (gradient.addend, false) : (gradient.buffer, !gradient.accumulates)
    }
    let (queryGradient, overwritesQuery) = start(queryGradient)
    let (keyGradient, overwritesKey) = start(keyGradient)
    let (valueGradient, overwritesValue) = start(valueGradient)
    KernelThreads.split(shape.sampleCount * shape.headCount) { heads in
      let work: any AttentionProducts =
        PackedAttention(shape, precision, isBackward: true)
        ?? StridedAttention(shape, precision, isBackward: true)
      let rows = AttentionRows(shape, mask)
      for (b, n) in shape.samplesAndHeads(heads) {
        let tiles = rows.keyTiles(of: b)
        work.begin(
          keys: shape.keys(of: key, b, n), values: shape.keys(of: value, b, n), tiles: tiles)
        for first in stride(from: 0, to: shape.queryCount, by: AttentionTiles.queryCount) {
          let count = min(AttentionTiles.queryCount, shape.queryCount - first)
          let dO = shape.queries(of: outputGradient, b, n, first, count)
          let dq = shape.queries(of: queryGradient, b, n, first, count)
          work.begin(
            queries: shape.queries(of: query, b, n, first, count), outputGradients: dO)
          unsafe w2svd_row_dots(
            dO.base, shape.queries(of: output, b, n, first, count).base, dO.stride, count,
            shape.headWidth, rows.correction)
          // Rows that the tiles must not see get exp(s − ∞) = 0. For an isolated query the only
          // weight is 1, so ds = dp − D = 0 and only the value of key 0 has a gradient.
          for r in 0..<count {
            let saved = logSumExp[shape.rowStart(b, n) + first + r]
            let isIsolated = mask?.isIsolated(first + r, sample: b, shape: shape) ?? false
            unsafe rows.maximum[r] = isIsolated || saved == -.infinity ? .infinity : saved
            if isIsolated {
              unsafe w2svd_add(
                1, dO.row(r), valueGradient.base + shape.keyStart(b, 0, n), shape.headWidth)
            }
          }
          for tile in tiles {
            work.weigh(tile, rows)
            work.multiply(
              tile, intoValues: shape.keys(of: valueGradient, b, n, tile),
              accumulating: !overwritesValue || first > 0)
            work.multiply(tile, into: dq, accumulating: !overwritesQuery || tile.first > 0)
            work.multiply(
              tile, intoKeys: shape.keys(of: keyGradient, b, n, tile),
              accumulating: !overwritesKey || first > 0)
          }
        }
      }
    }
  }
}

extension Float {
  package static func joinAttention(
    output otherOutput: Buffer<Self>, logSumExp otherLogSumExp: Buffer<Self>,
    shape: AttentionShape, to output: Buffer<Self>, logSumExp: Buffer<Self>
  ) {
    shape.require(otherOutput, otherLogSumExp, joining: output, logSumExp)
    KernelThreads.split(shape.sampleCount * shape.headCount) { heads in
      for (b, n) in shape.samplesAndHeads(heads) {
        let (start, row) = (shape.queryStart(b, 0, n), shape.rowStart(b, n))
        unsafe w2svd_join_attention(
          output.base + start, logSumExp.base + row, otherOutput.base + start,
          otherLogSumExp.base + row, shape.rowStride, shape.queryCount, shape.headWidth)
      }
    }
  }
}

extension AttentionShape {
  /// Sample and head of each of `heads`, counted over all samples.
  fileprivate func samplesAndHeads(_ heads: Range<Int>) -> [(sample: Int, head: Int)] {
    heads.map { ($0 / headCount, $0 % headCount) }
  }

  fileprivate func queries(
    of buffer: Buffer<Float>, _ sample: Int, _ head: Int, _ first: Int, _ count: Int
  ) -> HeadRows {
    HeadRows(buffer, at: queryStart(sample, first, head), count, rowStride)
  }

  fileprivate func keys(of buffer: Buffer<Float>, _ sample: Int, _ head: Int) -> HeadRows {
    HeadRows(buffer, at: keyStart(sample, 0, head), keyCount, rowStride)
  }

  fileprivate func keys(
    of buffer: Buffer<Float>, _ sample: Int, _ head: Int, _ tile: KeyTile
  ) -> HeadRows {
    HeadRows(buffer, at: keyStart(sample, tile.first, head), tile.count, rowStride)
  }
}
