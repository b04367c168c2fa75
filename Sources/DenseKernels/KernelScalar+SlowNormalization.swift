// The slow twins of the normalizations; see KernelScalar+SlowTwins.swift.
//
// Gradients, with g the gradient of x̂ and ⟨·⟩ the mean over the normalized width:
//   LayerNorm  x̂ = (x − μ) s:   dx = s (g − ⟨g⟩ − x̂ ⟨g x̂⟩)
//   RMSNorm    x̂ = x s:         dx = s (g − x̂ ⟨g x̂⟩)

extension KernelScalar {
  package static func modulatedLayerNorm(
    _ x: Buffer<Self>, scale: Buffer<Self>?, shift: Buffer<Self>?, scaleOffset: Self,
    epsilon: Self, shape: ModulationShape, into y: Buffer<Self>, mean: Buffer<Self>,
    inverseDeviation: Buffer<Self>
  ) {
    shape.require(
      rows: [("x", x), ("y", y)], groups: [("scale", scale), ("shift", shift)],
      statistics: [("mean", mean), ("inverseDeviation", inverseDeviation)])
    let width = shape.width
    for r in 0..<shape.rowCount {
      let (start, group) = (r * width, r / shape.rowsPerGroup * width)
      var sum: Self = 0
      for i in 0..<width { sum += x[start + i] }
      let rowMean = sum / Self(width)
      var squares: Self = 0
      for i in 0..<width { squares += (x[start + i] - rowMean) * (x[start + i] - rowMean) }
      let inverse = 1 / (squares / Self(width) + epsilon).squareRoot()
      (mean[r], inverseDeviation[r]) = (rowMean, inverse)
      for i in 0..<width {
        let normalized = (x[start + i] - rowMean) * inverse
        let factor = scaleOffset + (scale?[group + i] ?? 0)
        y[start + i] = normalized * factor + (shift?[group + i] ?? 0)
      }
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
    let width = shape.width
    let inputGradient = inputGradient?.addend
    for r in 0..<shape.rowCount {
      let (start, group) = (r * width, r / shape.rowsPerGroup * width)
      let (rowMean, inverse) = (mean[r], inverseDeviation[r])
      var gradientMean: Self = 0
      var productMean: Self = 0
      for i in 0..<width {
        let normalized = (x[start + i] - rowMean) * inverse
        let dy = outputGradient[start + i]
        let g = dy * (scaleOffset + (scale?[group + i] ?? 0))
        gradientMean += g / Self(width)
        productMean += g * normalized / Self(width)
        if let scaleGradient { scaleGradient[group + i] += dy * normalized }
        if let shiftGradient { shiftGradient[group + i] += dy }
      }
      guard let inputGradient else { continue }
      for i in 0..<width {
        let normalized = (x[start + i] - rowMean) * inverse
        let g = outputGradient[start + i] * (scaleOffset + (scale?[group + i] ?? 0))
        inputGradient[start + i] += inverse * (g - gradientMean - normalized * productMean)
      }
    }
  }

  package static func headNorm(
    _ x: Buffer<Self>, gain: Buffer<Self>?, cosines: Buffer<Self>, sines: Buffer<Self>,
    epsilon: Self, shape: HeadNormShape, into y: Buffer<Self>, inverseRoot: Buffer<Self>
  ) {
    shape.require(
      rows: [("x", x), ("y", y)], gain: gain, cosines: cosines, sines: sines,
      inverseRoot: inverseRoot)
    let width = shape.headWidth
    for v in 0..<shape.vectorCount {
      let start = v * width
      var squares: Self = 0
      for i in 0..<width { squares += x[start + i] * x[start + i] }
      let inverse = 1 / (squares / Self(width) + epsilon).squareRoot()
      inverseRoot[v] = inverse
      for i in 0..<width { y[start + i] = x[start + i] * inverse * (gain?[i] ?? 1) }
      let token = v / shape.headCount % shape.tokenCount
      guard token < shape.rotatedCount else { continue }
      for pair in 0..<(width / 2) {
        let (c, s) = (cosines[token * width / 2 + pair], sines[token * width / 2 + pair])
        let (even, odd) = (y[start + 2 * pair], y[start + 2 * pair + 1])
        y[start + 2 * pair] = even * c - odd * s
        y[start + 2 * pair + 1] = odd * c + even * s
      }
    }
  }

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
    let width = shape.headWidth
    let inputGradient = inputGradient?.addend
    var u = [Self](repeating: 0, count: width)
    for v in 0..<shape.vectorCount {
      let start = v * width
      let token = v / shape.headCount % shape.tokenCount
      let slice = v % shape.headCount / (shape.headCount / shape.sliceCount) * width
      // u: the gradient before the rotation, that is, rotated back.
      for i in 0..<width { u[i] = outputGradient[start + i] }
      if token < shape.rotatedCount {
        for pair in 0..<(width / 2) {
          let (c, s) = (cosines[token * width / 2 + pair], sines[token * width / 2 + pair])
          let (even, odd) = (u[2 * pair], u[2 * pair + 1])
          u[2 * pair] = even * c + odd * s
          u[2 * pair + 1] = odd * c - even * s
        }
      }
      let inverse = inverseRoot[v]
      var productMean: Self = 0
      for i in 0..<width {
        let normalized = x[start + i] * inverse
        productMean += u[i] * (gain?[i] ?? 1) * normalized / Self(width)
        if let gainGradient { gainGradient[slice + i] += u[i] * normalized }
      }
      guard let inputGradient else { continue }
      for i in 0..<width {
        let normalized = x[start + i] * inverse
        inputGradient[start + i] += inverse * (u[i] * (gain?[i] ?? 1) - normalized * productMean)
      }
    }
  }

  package static func rotateRows(
    _ source: Buffer<Self>, stride sourceStride: Int, to target: Buffer<Self>,
    stride targetStride: Int, rowCount: Int, width: Int, cosines: Buffer<Self>,
    sines: Buffer<Self>, backwards: Bool, accumulating: Bool
  ) {
    requireRows(rowCount, width, source.count, sourceStride, "source")
    requireRows(rowCount, width, target.count, targetStride, "target")
    requireHeads(of: width, cosines: cosines, sines: sines)
    for r in 0..<rowCount {
      for pair in 0..<(width / 2) {
        let angle = pair % cosines.count
        let (c, s) = (cosines[angle], backwards ? -sines[angle] : sines[angle])
        let (from, to) = (r * sourceStride + 2 * pair, r * targetStride + 2 * pair)
        let (even, odd) = (source[from], source[from + 1])
        target[to] = (accumulating ? target[to] : 0) + even * c - odd * s
        target[to + 1] = (accumulating ? target[to + 1] : 0) + odd * c + even * s
      }
    }
  }
}
