// One block and its branches by themselves: what each sees, and what is left with the added outputs at zero.

import Autodiff
import DenseKernels
import Foundation
import Tensors
import TestSupport
import Testing

@testable import Models

struct MultimodalDiffusionBlockTests {
  private let clipCount = 2
  private let frameCount = 3
  private let textCount = 3
  private let example = VchitectExample<Double>(.tiny())
  private let tape: Tape<Double>

  init() {
    tape = Tape<Double>(arena: example.arena, role: .base, isRecording: false)
  }

  private func rotation(
    frames: Int, scaling: Double = 1, headWidth: Int = 4
  ) -> RotaryTable<Double> {
    RotaryTable(positionCount: frames, headWidth: headWidth, theta: 1e6, scaling: scaling)
  }

  private func branches(_ rotation: RotaryTable<Double>) -> AttentionBranches<Double> {
    AttentionBranches(tape: tape, headCount: 2, clipCount: clipCount, rotation: rotation)
  }

  /// Random queries of `queryCount` and keys and values of `keyCount` tokens.
  private func operands(
    queryCount: Int, keyCount: Int, changing change: (Tensor<Double>) -> Void = { _ in }
  ) -> QueryKeyValue<Double> {
    let samples = clipCount * frameCount
    let tensors = [queryCount, keyCount, keyCount].enumerated().map {
      example.normals([samples, $1, 8], 20 + $0)
    }
    for tensor in tensors.dropFirst(queryCount == keyCount ? 0 : 1) { change(tensor) }
    return QueryKeyValue(
      query: Value(constant: tensors[0]), key: Value(constant: tensors[1]),
      value: Value(constant: tensors[2]))
  }

  private func cross(_ operands: QueryKeyValue<Double>) -> Tensor<Double> {
    let branches = branches(rotation(frames: frameCount))
    return branches.cross(
      QueryKeyValue(
        query: operands.query, key: branches.firstFrames(of: operands.key),
        value: branches.firstFrames(of: operands.value))
    ).tensor
  }

  // MARK: The block

  /// A block of Stable Diffusion 3 on images and their texts (2403.03206, figure 2b), every frame a sample
  /// of its own; the condition is that of its clip.
  private func imageBlock(
    _ path: String, _ x: Value<Double>, _ y: Value<Double>, _ condition: Value<Double>
  ) -> [Value<Double>] {
    func linear(_ name: String, _ input: Value<Double>) -> Value<Double> {
      tape.linear(
        input, weight: example.parameters["\(path).\(name).weight"],
        bias: example.parameters["\(path).\(name).bias"])
    }
    func normed(
      _ input: Value<Double>, _ shift: Value<Double>, _ scale: Value<Double>
    ) -> Value<Double> {
      tape.layerNorm(input, scale: scale, shift: shift, epsilon: 1e-6)
    }
    func modulation(_ name: String) -> [Value<Double>] {
      let clips = linear(name, condition)  // [B, 6 D]
      let rows = (0..<x.shape[0]).map { sample in
        tape.slice(clips, along: 0, (sample / frameCount)..<(sample / frameCount + 1))
      }
      return tape.chunks(tape.concatenate(rows, along: 0), count: 6)
    }
    let (m, n) = (modulation("norm1.linear"), modulation("norm1_context.linear"))
    let (a, b) = (normed(x, m[0], m[1]), normed(y, n[0], n[1]))
    func joint(_ image: String, _ text: String) -> Value<Double> {
      tape.concatenate([linear(image, a), linear(text, b)], along: 1)
    }
    let attended = tape.attention(
      query: joint("attn.to_q", "attn.add_q_proj"), key: joint("attn.to_k", "attn.add_k_proj"),
      value: joint("attn.to_v", "attn.add_v_proj"), headCount: 2)
    let split = x.shape[1]
    func output(
      _ input: Value<Double>, _ part: Range<Int>, _ name: String, _ mlp: String,
      _ modulation: [Value<Double>]
    ) -> Value<Double> {
      let middle = tape.gatedResidual(
        input, gate: modulation[2], linear(name, tape.slice(attended, along: 1, part)))
      let hidden = tape.apply(
        .geluTanh,
        to: linear("\(mlp).net.0.proj", normed(middle, modulation[3], modulation[4])))
      return tape.gatedResidual(middle, gate: modulation[5], linear("\(mlp).net.2", hidden))
    }
    return [
      output(x, 0..<split, "attn.to_out.0", "ff", m),
      output(y, split..<attended.shape[1], "attn.to_add_out", "ff_context", n),
    ]
  }

  @Test func `with the added outputs at zero it is the image block on every frame, bit by bit`() {
    let path = "transformer_blocks.0"
    example.clearAddedOutputs()
    let samples = clipCount * frameCount
    let (image, text, condition) = (
      example.normals([samples, 5, 8], 30), example.normals([samples, textCount, 8], 31),
      example.normals([clipCount, 8], 32)
    )
    let block = MultimodalDiffusionBlock(
      scope: LayerScope(tape, example.parameters, path: path),
      configuration: example.configuration,
      stem: VchitectStem(
        grid: PatchGrid(latents: [clipCount, 2, frameCount, 2, 10], patch: [1, 2, 2]),
        rotation: rotation(frames: frameCount), tokenCounts: [5, textCount], sequence: nil),
      isLast: false)
    let streams = block.forward(
      tape, image: Value(constant: image), text: Value(constant: text),
      condition: Value(constant: condition))
    let expected = imageBlock(
      path, Value(constant: image), Value(constant: text), Value(constant: condition))
    #expect(streams.map(\.tensor.array) == expected.map(\.tensor.array))
    #expect(streams[0].tensor.array != image.array && streams[1].tensor.array != text.array)
  }

  // MARK: The temporal branch

  @Test func `what changes at a token changes the temporal branch there alone, in its clip`() {
    let branches = branches(rotation(frames: frameCount))
    let before = branches.temporal(operands(queryCount: 4, keyCount: 4)).tensor
    let (clip, token) = (1, 2)
    let after = branches.temporal(
      operands(queryCount: 4, keyCount: 4) { tensor in
        // The middle frame of the second clip.
        let start = ((clip * frameCount + 1) * 4 + token) * 8
        for index in start..<(start + 8) { tensor.buffer[index] = tensor.buffer[index] + 1 }
      }
    ).tensor
    for sample in 0..<(clipCount * frameCount) {
      for position in 0..<4 {
        let range = ((sample * 4 + position) * 8)..<((sample * 4 + position + 1) * 8)
        let isTouched = sample / frameCount == clip && position == token
        #expect(
          (before.buffer[range].array == after.buffer[range].array) != isTouched,
          "frame \(sample), token \(position)")
      }
    }
  }

  @Test func `only differences of frame positions count`() {
    let offset = 7
    let long = rotation(frames: frameCount + offset)
    let shifted = RotaryTable<Double>(
      tokenCount: frameCount, cosines: Array(long.cosines.array.dropFirst(2 * offset)),
      sines: Array(long.sines.array.dropFirst(2 * offset)))
    let here = branches(rotation(frames: frameCount))
      .temporal(operands(queryCount: 4, keyCount: 4)).tensor.array
    let there = branches(shifted).temporal(operands(queryCount: 4, keyCount: 4)).tensor.array
    // The second pair's angles, up to 0.009, are rounded to Float32: 5e-10 in a product of two elements.
    #expect(difference(there, here, absolute: 1e-8) == nil)
    let still = RotaryTable<Double>(
      tokenCount: frameCount, cosines: Array(repeating: 1, count: 2 * frameCount),
      sines: Array(repeating: 0, count: 2 * frameCount))
    let unrotated = branches(still).temporal(operands(queryCount: 4, keyCount: 4)).tensor.array
    #expect(difference(unrotated, here, absolute: 1e-2) != nil)
  }

  @Test func `scaling divides the positions`() {
    let whole = rotation(frames: 4, headWidth: 6)
    let halved = rotation(frames: 8, scaling: 2, headWidth: 6)
    for frame in 0..<4 {
      let (one, two) = ((frame * 3)..<(frame * 3 + 3), (frame * 6)..<(frame * 6 + 3))
      #expect(halved.cosines[two].array == whole.cosines[one].array)
      #expect(halved.sines[two].array == whole.sines[one].array)
    }
    // θ^(−2i/6) for i = 0, 1, 2 is 1, 0.01 and 0.0001; rounded to Float32.
    let angles = zip(whole.sines[9..<12].array, whole.cosines[9..<12].array)
    #expect(
      zip(angles, [3, 0.03, 0.0003]).allSatisfy {
        abs($0.0 - sin($1)) < 4e-7 && abs($0.1 - cos($1)) < 4e-7
      })
  }

  // MARK: The cross branch

  @Test func `the cross branch sees the text of its clip's first frame alone`() {
    let before = cross(operands(queryCount: 4, keyCount: textCount))
    for changed in 0..<(clipCount * frameCount) {
      let after = cross(
        operands(queryCount: 4, keyCount: textCount) {
          $0.rows(changed..<(changed + 1)).buffer.fill(with: 0.25)
        })
      for clip in 0..<clipCount {
        let range = (clip * frameCount)..<((clip + 1) * frameCount)
        #expect(
          (after.rows(range).array == before.rows(range).array) != (changed == clip * frameCount),
          "text of frame \(changed), clip \(clip)")
      }
    }
  }

  @Test func `each row of the cross branch is a convex mix of the text's values`() {
    let operands = operands(queryCount: 4, keyCount: textCount)
    let output = cross(operands)
    let values = operands.value.tensor
    for clip in 0..<clipCount {
      let first = values.rows((clip * frameCount)..<(clip * frameCount + 1)).array
      for index in 0..<(frameCount * 4 * 8) {
        let column = stride(from: index % 8, to: first.count, by: 8).map { first[$0] }
        let mixed = output.rows((clip * frameCount)..<((clip + 1) * frameCount)).array[index]
        // Strictly inside: no weight of a softmax is one.
        #expect(mixed > column.min() ?? .infinity && mixed < column.max() ?? -.infinity)
      }
    }
    // With equal values the weights add up to one.
    let ones = QueryKeyValue(
      query: operands.query, key: operands.key,
      value: Value(constant: example.normals(values.shape, 0)))
    ones.value.tensor.buffer.fill(with: 1)
    let sums = cross(ones).array
    #expect(
      difference(sums, Array(repeating: 1, count: sums.count), absolute: 4 * .ulpOfOne) == nil)
  }
}
