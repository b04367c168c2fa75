// Normalizations of Float: sizes are checked and threads given their parts here, the loops are in
// CKernels. Gradients of inputs go by rows, those of scales and shifts, sums over rows, by columns; one
// thread alone does both in one pass.

import CKernels

extension Float {
  package static func modulatedLayerNorm(
    _ x: Buffer<Self>, scale: Buffer<Self>?, shift: Buffer<Self>?, scaleOffset: Self,
    epsilon: Self, shape: ModulationShape, into y: Buffer<Self>, mean: Buffer<Self>,
    inverseDeviation: Buffer<Self>
  ) {
    shape.require(
      rows: [("x", x), ("y", y)], groups: [("scale", scale), ("shift", shift)],
      statistics: [("mean", mean), ("inverseDeviation", inverseDeviation)])
    shape.splitRows { group, start, rows in
      let (modulation, row) = (group * shape.width, start / shape.width)
      unsafe w2svd_layer_norm(
        x.base + start, (scale?.base).map { unsafe $0 + modulation },
        (shift?.base).map { unsafe $0 + modulation }, scaleOffset, epsilon, 1, rows, shape.width,
        y.base + start, mean.base + row, inverseDeviation.base + row)
    }
  }

  package static func modulatedLayerNormBackward(
    outputGradient: Buffer<Self>, x: Buffer<Self>, scale: Buffer<Self>?, scaleOffset: Self,
    shape: ModulationShape, mean: Buffer<Self>, inverseDeviation: Buffer<Self>,
    inputGradient: GradientBuffer<Self>?, scaleGradient: Buffer<Self>?,
    shiftGradient: Buffer<Self>?
  ) {
    shape.require(
      rows: [
        ("outputGradient", outputGradient), ("x", x), ("inputGradient", inputGradient?.buffer),
      ],
      groups: [
        ("scale", scale), ("scaleGradient", scaleGradient), ("shiftGradient", shiftGradient),
      ],
      statistics: [("mean", mean), ("inverseDeviation", inverseDeviation)])
    guard KernelThreads.isWorthSplitting(x.count) else {
      unsafe w2svd_layer_norm_backward(
        outputGradient.base, x.base, scale?.base, scaleOffset, shape.groupCount,
        shape.rowsPerGroup, shape.width, shape.width, mean.base, inverseDeviation.base,
        inputGradient?.buffer.base, inputGradient?.flag ?? 0, scaleGradient?.base,
        shiftGradient?.base)
      return
    }
    if let inputGradient {
      shape.splitRows { group, start, rows in
        let row = start / shape.width
        unsafe w2svd_layer_norm_backward(
          outputGradient.base + start, x.base + start,
          (scale?.base).map { unsafe $0 + group * shape.width }, scaleOffset, 1, rows,
          shape.width, shape.width, mean.base + row, inverseDeviation.base + row,
          inputGradient.buffer.base + start, inputGradient.flag, nil, nil)
      }
    }
    guard scaleGradient != nil || shiftGradient != nil else { return }
    KernelThreads.splitColumns(shape.width, rowCount: shape.rowCount) { columns in
      let first = columns.lowerBound
      unsafe w2svd_layer_norm_backward(
        outputGradient.base + first, x.base + first, nil, scaleOffset, shape.groupCount,
        shape.rowsPerGroup, columns.count, shape.width, mean.base, inverseDeviation.base, nil, 0,
        (scaleGradient?.base).map { unsafe $0 + first },
        (shiftGradient?.base).map { unsafe $0 + first })
    }
  }

  /// - Precondition: the head width is at most 512.
  package static func headNorm(
    _ x: Buffer<Self>, gain: Buffer<Self>?, cosines: Buffer<Self>, sines: Buffer<Self>,
    epsilon: Self, shape: HeadNormShape, into y: Buffer<Self>, inverseRoot: Buffer<Self>
  ) {
    shape.require(
      rows: [("x", x), ("y", y)], gain: gain, cosines: cosines, sines: sines,
      inverseRoot: inverseRoot)
    requireHeadFits(shape.headWidth)
    shape.splitTokens { tokens in
      unsafe w2svd_head_norm(
        x.base + tokens.start, gain?.base, cosines.base + tokens.table,
        sines.base + tokens.table, epsilon, 1, tokens.count, shape.headCount, shape.headWidth,
        tokens.rotatedCount, y.base + tokens.start, inverseRoot.base + tokens.head)
    }
  }

  /// - Precondition: the head width is at most 512.
  package static func headNormBackward(
    outputGradient: Buffer<Self>, x: Buffer<Self>, gain: Buffer<Self>?, cosines: Buffer<Self>,
    sines: Buffer<Self>, shape: HeadNormShape, inverseRoot: Buffer<Self>,
    inputGradient: GradientBuffer<Self>?, gainGradient: Buffer<Self>?
  ) {
    shape.require(
      rows: [
        ("outputGradient", outputGradient), ("x", x), ("inputGradient", inputGradient?.buffer),
      ],
      gain: gain, gainGradient: gainGradient, cosines: cosines, sines: sines,
      inverseRoot: inverseRoot)
    requireHeadFits(shape.headWidth)
    precondition(
      shape.sliceCount <= Int(W2SVD_MOST_SLICES), "\(shape.sliceCount) slices of heads")
    let isShared = KernelThreads.isWorthSplitting(x.count)
    if isShared, let inputGradient {
      shape.splitTokens { tokens in
        unsafe w2svd_head_norm_backward(
          outputGradient.base + tokens.start, x.base + tokens.start, gain?.base,
          cosines.base + tokens.table, sines.base + tokens.table, 1, tokens.count,
          shape.headCount, shape.headWidth, tokens.rotatedCount, inverseRoot.base + tokens.head,
          inputGradient.buffer.base + tokens.start, inputGradient.flag, nil, 1)
      }
      if gainGradient == nil { return }
    }
    // The gradient of the gain is one sum over all vectors.
    let remaining = isShared ? nil : inputGradient
    unsafe w2svd_head_norm_backward(
      outputGradient.base, x.base, gain?.base, cosines.base, sines.base, shape.sampleCount,
      shape.tokenCount, shape.headCount, shape.headWidth, shape.rotatedCount, inverseRoot.base,
      remaining?.buffer.base, remaining?.flag ?? 0, gainGradient?.base, shape.sliceCount)
  }

  /// - Precondition: the head width is at most 512.
  package static func rotateRows(
    _ source: Buffer<Self>, stride sourceStride: Int, to target: Buffer<Self>,
    stride targetStride: Int, rowCount: Int, width: Int, cosines: Buffer<Self>,
    sines: Buffer<Self>, backwards: Bool, accumulating: Bool
  ) {
    requireRows(rowCount, width, source.count, sourceStride, "source")
    requireRows(rowCount, width, target.count, targetStride, "target")
    requireHeads(of: width, cosines: cosines, sines: sines)
    requireHeadFits(2 * cosines.count)
    KernelThreads.splitRows(groups: 1, rows: rowCount, width: width) { _, rows in
      let first = rows.lowerBound
      unsafe w2svd_rotate_rows(
        source.base + first * sourceStride, sourceStride, target.base + first * targetStride,
        targetStride, rows.count, width, cosines.base, sines.base, 2 * cosines.count,
        backwards ? 1 : 0, accumulating ? 1 : 0)
    }
  }

  private static func requireHeadFits(_ width: Int) {
    precondition(
      width <= Int(W2SVD_LARGEST_HEAD), "a head of \(width), above \(W2SVD_LARGEST_HEAD)")
  }
}

extension GradientBuffer {
  /// As the C loops take it.
  var flag: Int32 { accumulates ? 1 : 0 }
}

extension HeadNormShape {
  /// Tokens of one sample: where their vectors, their part of the tables and their heads' statistics
  /// start, and how many of them are rotated.
  fileprivate struct Tokens {
    let start: Int
    let table: Int
    let head: Int
    let count: Int
    let rotatedCount: Int
  }

  fileprivate func splitTokens(_ body: (Tokens) -> Void) {
    KernelThreads.splitRows(
      groups: sampleCount, rows: tokenCount, width: headCount * headWidth
    ) { sample, tokens in
      // Beyond the rotated tokens the tables may end, and none is read.
      let first = tokens.lowerBound
      let head = (sample * tokenCount + first) * headCount
      body(
        Tokens(
          start: head * headWidth, table: min(first, rotatedCount) * (headWidth / 2), head: head,
          count: tokens.count, rotatedCount: min(max(rotatedCount - first, 0), tokens.count)))
    }
  }
}
