// Normalizations of Float: sizes are checked here, the loops are in CKernels.

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
    unsafe w2svd_layer_norm(
      x.base, scale?.base, shift?.base, scaleOffset, epsilon, shape.groupCount,
      shape.rowsPerGroup, shape.width, y.base, mean.base, inverseDeviation.base)
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
    unsafe w2svd_layer_norm_backward(
      outputGradient.base, x.base, scale?.base, scaleOffset, shape.groupCount,
      shape.rowsPerGroup, shape.width, mean.base, inverseDeviation.base, inputGradient?.buffer.base,
      inputGradient?.flag ?? 0, scaleGradient?.base, shiftGradient?.base)
  }

  /// - Precondition: the head width is at most 512.
  package static func headNorm(
    _ x: Buffer<Self>, gain: Buffer<Self>?, cosines: Buffer<Self>, sines: Buffer<Self>,
    epsilon: Self, shape: HeadNormShape, into y: Buffer<Self>, inverseRoot: Buffer<Self>
  ) {
    shape.require(
      rows: [("x", x), ("y", y)], gains: [("gain", gain)], cosines: cosines, sines: sines,
      inverseRoot: inverseRoot)
    requireHeadFits(shape.headWidth)
    unsafe w2svd_head_norm(
      x.base, gain?.base, cosines.base, sines.base, epsilon, shape.sampleCount, shape.tokenCount,
      shape.headCount, shape.headWidth, shape.rotatedCount, y.base, inverseRoot.base)
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
      gains: [("gain", gain), ("gainGradient", gainGradient)], cosines: cosines, sines: sines,
      inverseRoot: inverseRoot)
    requireHeadFits(shape.headWidth)
    unsafe w2svd_head_norm_backward(
      outputGradient.base, x.base, gain?.base, cosines.base, sines.base, shape.sampleCount,
      shape.tokenCount, shape.headCount, shape.headWidth, shape.rotatedCount, inverseRoot.base,
      inputGradient?.buffer.base, inputGradient?.flag ?? 0, gainGradient?.base)
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
