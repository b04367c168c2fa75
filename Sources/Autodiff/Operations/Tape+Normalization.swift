// LayerNorm with modulation or affine, per-head RMSNorm with rotary positions, gated residual.

import DenseKernels
import Tensors

extension Tape {
  /// y = x̂ (scaleOffset + scale) + shift, x̂ the row normalized to mean 0 and variance 1.
  ///
  /// Modulation: scale and shift [B, D], scaleOffset 1. Affine LayerNorm: [D], scaleOffset 0.
  /// - Shapes: x [B, L, D] → [B, L, D]. The number of groups is scale.count / D.
  package func layerNorm(
    _ x: Value<Scalar>, scale: Value<Scalar>? = nil, shift: Value<Scalar>? = nil,
    scaleOffset: Double = 1, epsilon: Double
  ) -> Value<Scalar> {
    let shape = modulationShape(x, by: scale ?? shift)
    let rowCount = shape.groupCount * shape.rowsPerGroup
    let offset = Scalar(scaleOffset)
    let output = result(x.shape)
    let mean = result([rowCount])
    let inverseDeviation = result([rowCount])
    let scaleBuffer = scale?.tensor.buffer
    Scalar.modulatedLayerNorm(
      x.tensor.buffer, scale: scaleBuffer, shift: shift?.tensor.buffer,
      scaleOffset: offset, epsilon: Scalar(epsilon), shape: shape, into: output.buffer,
      mean: mean.buffer, inverseDeviation: inverseDeviation.buffer)
    let inputs = [x] + [scale, shift].compactMap(\.self)
    let inputCount = inputs.count
    return record(output, from: inputs) { outputGradient, gradients in
      Scalar.modulatedLayerNormBackward(
        outputGradient: outputGradient.buffer, x: x.tensor.buffer, scale: scaleBuffer,
        scaleOffset: offset, shape: shape, mean: mean.buffer,
        inverseDeviation: inverseDeviation.buffer, inputGradient: gradients.place(of: 0),
        scaleGradient: scale == nil ? nil : gradients.addend(of: 1),
        shiftGradient: shift == nil ? nil : gradients.addend(of: inputCount - 1))
    }
  }

  /// RMSNorm over each head with a learned gain, then rotation of the first tokens by `rotation`.
  /// - Shapes: x [B, L, N·K], gain [K] → [B, L, N·K].
  package func headNorm(
    _ x: Value<Scalar>, gain: Parameter<Scalar>, rotation: RotaryTable<Scalar>? = nil,
    headCount: Int, epsilon: Double
  ) -> Value<Scalar> {
    let headWidth = gain.count
    precondition(
      x.shape.count == 3 && x.shape[2] == headCount * headWidth,
      "\(headCount) heads of \(headWidth) do not make up the width of \(x.shape)")
    let shape = HeadNormShape(
      sampleCount: x.shape[0], tokenCount: x.shape[1], headCount: headCount, headWidth: headWidth,
      rotatedCount: rotation?.tokenCount ?? 0)
    precondition(
      shape.rotatedCount <= shape.tokenCount,
      "\(shape.rotatedCount) rotary positions for \(shape.tokenCount) tokens")
    let cosines = rotation?.cosines ?? Buffer(zeroed: 0)
    let sines = rotation?.sines ?? Buffer(zeroed: 0)
    let output = result(x.shape)
    let inverseRoot = result([x.tensor.count / headWidth])
    Scalar.headNorm(
      x.tensor.buffer, gain: gain.value.buffer, cosines: cosines, sines: sines,
      epsilon: Scalar(epsilon), shape: shape, into: output.buffer, inverseRoot: inverseRoot.buffer)
    return record(output, from: [x, weight(gain)]) { outputGradient, gradients in
      Scalar.headNormBackward(
        outputGradient: outputGradient.buffer, x: x.tensor.buffer, gain: gain.value.buffer,
        cosines: cosines, sines: sines, shape: shape, inverseRoot: inverseRoot.buffer,
        inputGradient: gradients.place(of: 0), gainGradient: gradients.addend(of: 1))
    }
  }

  /// y = x + gate · h, the gate per sample.
  /// - Shapes: x, h [B, L, D], gate [B, D] → [B, L, D].
  package func gatedResidual(
    _ x: Value<Scalar>, gate: Value<Scalar>, _ h: Value<Scalar>
  ) -> Value<Scalar> {
    precondition(x.shape == h.shape, "a residual \(x.shape) and a branch \(h.shape)")
    let shape = modulationShape(x, by: gate)
    let output = result(x.shape)
    Scalar.gatedResidual(
      x.tensor.buffer, gate: gate.tensor.buffer, h: h.tensor.buffer, shape: shape,
      into: output.buffer)
    return record(output, from: [x, gate, h]) { outputGradient, gradients in
      Scalar.gatedResidualBackward(
        outputGradient: outputGradient.buffer, gate: gate.tensor.buffer, h: h.tensor.buffer,
        shape: shape, hGradient: gradients.place(of: 2), gateGradient: gradients.addend(of: 1))
      gradients.pass(outputGradient, to: [0])
    }
  }

  private func modulationShape(
    _ x: Value<Scalar>, by modulation: Value<Scalar>?
  ) -> ModulationShape {
    let width = x.shape.last ?? 1
    let rowCount = x.tensor.count / width
    let groupCount = modulation.map { $0.tensor.count / width } ?? 1
    precondition(
      groupCount > 0 && rowCount % groupCount == 0
        && (modulation.map { $0.tensor.count == groupCount * width } ?? true),
      "a modulation \(modulation?.shape ?? []) does not fit \(x.shape)")
    return ModulationShape(
      groupCount: groupCount, rowsPerGroup: rowCount / groupCount, width: width)
  }
}
