// LayerNorm with modulation or affine, per-head RMSNorm with rotary positions, gated residual.

import DenseKernels
import Tensors

extension Tape {
  /// y = x̂ (scaleOffset + scale) + shift, x̂ the row normalized to mean 0 and variance 1.
  ///
  /// Modulation: scale and shift [B, D], scaleOffset 1. Affine LayerNorm: [D], scaleOffset 0.
  /// - Shapes: x [B, L, D] → [B, L, D]. The number of groups is scale.count / D.
  /// - Parameter sums: gradients of scale and shift; in blocks, these have a group for each sample.
  package func layerNorm(
    _ x: Value<Scalar>, scale: Value<Scalar>? = nil, shift: Value<Scalar>? = nil,
    scaleOffset: Double = 1, epsilon: Double, sums: RowSums = .whole
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
    // Of the shift only is kept whether there is one.
    let (scalePlace, shiftPlace) = (
      scale.map { _ in 1 }, shift.map { _ in inputs.count - 1 }
    )
    if let blocks = sums.blocks {
      return record(output, from: inputs) { [unowned self] outputGradient, gradients in
        let dx = gradients.place(of: 0)
        sum(
          over: blocks, rowCount: rowCount,
          into: [
            scalePlace.flatMap(gradients.place(of:)), shiftPlace.flatMap(gradients.place(of:)),
          ]
        ) { piece, sums in
          let part = shape.part(piece.rows)
          Scalar.modulatedLayerNormBackward(
            outputGradient: outputGradient.buffer[part.elements], x: x.tensor.buffer[part.elements],
            scale: scaleBuffer?[part.modulation], scaleOffset: offset, shape: part.shape,
            mean: mean.buffer[piece.rows], inverseDeviation: inverseDeviation.buffer[piece.rows],
            inputGradient: dx?[part.elements], scaleGradient: sums[0]?.addend[part.modulation],
            shiftGradient: sums[1]?.addend[part.modulation])
        }
      }
    }
    return record(output, from: inputs) { outputGradient, gradients in
      Scalar.modulatedLayerNormBackward(
        outputGradient: outputGradient.buffer, x: x.tensor.buffer, scale: scaleBuffer,
        scaleOffset: offset, shape: shape, mean: mean.buffer,
        inverseDeviation: inverseDeviation.buffer, inputGradient: gradients.place(of: 0),
        scaleGradient: scalePlace.flatMap(gradients.addend(of:)),
        shiftGradient: shiftPlace.flatMap(gradients.addend(of:)))
    }
  }

  /// RMSNorm over each head with a learned gain, then rotation of the first tokens by `rotation`.
  /// - Shapes: x [B, L, N·K], gain [K] → [B, L, N·K].
  /// - Parameter slices: of the heads; with them the gain's gradient is a sum over slices in every block.
  package func headNorm(
    _ x: Value<Scalar>, gain: Parameter<Scalar>, rotation: RotaryTable<Scalar>? = nil,
    headCount: Int, epsilon: Double, slices: WeightSlices<Scalar>? = nil, sums: RowSums = .whole
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
    let inputs = [x, weight(gain, isCounted: sums.isCounted)]
    if let blocks = sums.blocks {
      return record(output, from: inputs) { [unowned self] outputGradient, gradients in
        let dx = gradients.place(of: 0)
        let rowCount = shape.sampleCount * shape.tokenCount
        func add(_ piece: RowBlocks.Piece, to sum: Buffer<Scalar>?, sliceCount: Int = 1) {
          let part = shape.part(piece.rows, firstToken: piece.firstToken, sliceCount: sliceCount)
          Scalar.headNormBackward(
            outputGradient: outputGradient.buffer[part.elements], x: x.tensor.buffer[part.elements],
            gain: gain.value.buffer, cosines: cosines[part.angles], sines: sines[part.angles],
            shape: part.shape, inverseRoot: inverseRoot.buffer[part.heads],
            inputGradient: dx?[part.elements], gainGradient: sum)
        }
        guard let slices, let gainGradient = gradients.place(of: 1) else {
          let gainGradient = slices == nil ? gradients.place(of: 1) : nil
          return sum(over: blocks, rowCount: rowCount, into: [gainGradient]) { piece, sums in
            add(piece, to: sums[0]?.addend)
          }
        }
        sumSlices(slices, over: blocks, into: gainGradient) { block, sums in
          for piece in blocks.pieces(of: block, rowCount: rowCount) {
            add(piece, to: sums, sliceCount: slices.count)
          }
        }
      }
    }
    return record(output, from: inputs) { outputGradient, gradients in
      Scalar.headNormBackward(
        outputGradient: outputGradient.buffer, x: x.tensor.buffer, gain: gain.value.buffer,
        cosines: cosines, sines: sines, shape: shape, inverseRoot: inverseRoot.buffer,
        inputGradient: gradients.place(of: 0), gainGradient: gradients.addend(of: 1))
    }
  }

  /// y = x + gate · h, the gate per sample.
  /// - Shapes: x, h [B, L, D], gate [B, D] → [B, L, D].
  package func gatedResidual(
    _ x: Value<Scalar>, gate: Value<Scalar>, _ h: Value<Scalar>, sums: RowSums = .whole
  ) -> Value<Scalar> {
    precondition(x.shape == h.shape, "a residual \(x.shape) and a branch \(h.shape)")
    let shape = modulationShape(x, by: gate)
    let output = result(x.shape)
    Scalar.gatedResidual(
      x.tensor.buffer, gate: gate.tensor.buffer, h: h.tensor.buffer, shape: shape,
      into: output.buffer)
    if let blocks = sums.blocks {
      return record(output, from: [x, gate, h]) { [unowned self] outputGradient, gradients in
        let dh = gradients.place(of: 2)
        sum(
          over: blocks, rowCount: shape.groupCount * shape.rowsPerGroup,
          into: [gradients.place(of: 1)]
        ) { piece, sums in
          let part = shape.part(piece.rows)
          Scalar.gatedResidualBackward(
            outputGradient: outputGradient.buffer[part.elements],
            gate: gate.tensor.buffer[part.modulation], h: h.tensor.buffer[part.elements],
            shape: part.shape, hGradient: dh?[part.elements],
            gateGradient: sums[0]?.addend[part.modulation])
        }
        gradients.pass(outputGradient, to: [0])
      }
    }
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

extension GradientBuffer {
  /// A part of it, as a kernel sees it that is called for parts.
  fileprivate subscript(range: Range<Int>) -> GradientBuffer {
    GradientBuffer(buffer[range], accumulates: accumulates)
  }
}

extension ModulationShape {
  /// Rows of one group: their sizes, their elements and those of the modulation.
  fileprivate func part(
    _ rows: Range<Int>
  ) -> (shape: ModulationShape, elements: Range<Int>, modulation: Range<Int>) {
    let group = rows.lowerBound / rowsPerGroup
    precondition(
      rows.upperBound <= (group + 1) * rowsPerGroup,
      "rows \(rows) are of several groups of \(rowsPerGroup)")
    return (
      ModulationShape(groupCount: 1, rowsPerGroup: rows.count, width: width),
      rows.lowerBound * width..<rows.upperBound * width, group * width..<(group + 1) * width
    )
  }
}

extension HeadNormShape {
  /// Rows of one sample, from `firstToken` on: their sizes, their elements, those of the tables, and their heads.
  fileprivate func part(
    _ rows: Range<Int>, firstToken: Int, sliceCount: Int
  ) -> (shape: HeadNormShape, elements: Range<Int>, angles: Range<Int>, heads: Range<Int>) {
    let rotated = min(firstToken, rotatedCount)..<min(firstToken + rows.count, rotatedCount)
    let width = headCount * headWidth
    return (
      HeadNormShape(
        sampleCount: 1, tokenCount: rows.count, headCount: headCount, headWidth: headWidth,
        rotatedCount: rotated.count, sliceCount: sliceCount),
      rows.lowerBound * width..<rows.upperBound * width,
      rotated.lowerBound * (headWidth / 2)..<rotated.upperBound * (headWidth / 2),
      rows.lowerBound * headCount..<rows.upperBound * headCount
    )
  }
}
