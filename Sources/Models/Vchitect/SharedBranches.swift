// The branches of a block where the tokens of its two streams are cut among several parts: what is exchanged
// before and after each of them. With nobody to share with, nothing is.
//
// Operands and results are own tokens of all heads. Inside, operands may be all tokens of own heads
// (`SequencePlan`). Where ranks cut the weights as well, own tokens are those of their group here, and all heads
// those of this rank.
// Source: Vchitect-2.0 specification §6.3 and 6.4.
// Letters: S image and T text tokens of a frame, s and t those of them that are held here.

import Autodiff
import DenseKernels

/// The two streams of a block.
enum Stream: Int {
  case image, text
}

struct SharedBranches<Scalar: KernelScalar> {
  /// On all heads.
  let branches: AttentionBranches<Scalar>
  /// Who shares the tokens; nil: nobody.
  let sequence: (any HeadExchange<Scalar>)?
  /// S and T, those of all parts.
  let tokenCounts: [Int]

  private var tape: Tape<Scalar> { branches.tape }
  var frameCount: Int { branches.frameCount }

  /// A projection of a stream, as the branches want it.
  func operand(_ x: Value<Scalar>, of stream: Stream) -> Value<Scalar> {
    guard let sequence, sequence.plan == .all else { return x }
    return sequence.scatterHeads(x, segments: segments(stream), on: tape)
  }

  /// Within each frame over both streams: one result for each stream that has queries.
  /// - Shapes: operands as `operand` gives them → [B·F, s, D], [B·F, t, D].
  func spatial(
    queries: [Value<Scalar>], keys: [Value<Scalar>], values: [Value<Scalar>]
  ) -> [Value<Scalar>] {
    let joint = QueryKeyValue(
      query: joined(queries), key: joined(keys), value: joined(values))
    guard let sequence, sequence.plan == .spatial else {
      let parts = cut(onHeldHeads.spatial(joint), as: queries)
      return parts.enumerated().map { index, part in
        left(part, of: Stream(rawValue: index) ?? .image)
      }
    }
    let querySegments = Array(tokenCounts.prefix(queries.count))
    let attended = onOwnHeads(sequence).spatial(
      QueryKeyValue(
        query: sequence.scatterHeads(joint.query, segments: querySegments, on: tape),
        key: sequence.scatterHeads(joint.key, segments: tokenCounts, on: tape),
        value: sequence.scatterHeads(joint.value, segments: tokenCounts, on: tape)))
    return cut(sequence.gatherHeads(attended, segments: querySegments, on: tape), as: queries)
  }

  /// Across frames.
  /// - Shapes: operands as `operand` gives them → [B·F, own tokens, D].
  func temporal(_ operands: QueryKeyValue<Scalar>, of stream: Stream) -> Value<Scalar> {
    left(onHeldHeads.temporal(operands), of: stream)
  }

  /// Keys or values of the text of each clip's first frame, as `cross` wants them.
  /// - Shapes: as `operand` gives it → [B, T, D].
  func context(_ x: Value<Scalar>) -> Value<Scalar> {
    let frames = branches.firstFrames(of: x)
    guard let sequence, sequence.plan == .spatial else { return frames }
    return sequence.shareTokens(frames, tokenCount: tokenCounts[Stream.text.rawValue], on: tape)
  }

  /// Over the text of each clip's first frame.
  /// - Shapes: query as `operand` gives it, key and value from `context` → [B·F, own tokens, D].
  func cross(_ operands: QueryKeyValue<Scalar>, of stream: Stream) -> Value<Scalar> {
    left(onHeldHeads.cross(operands), of: stream)
  }

  // MARK: Parts

  /// The branches on the heads that `operand` leaves.
  private var onHeldHeads: AttentionBranches<Scalar> {
    guard let sequence, sequence.plan == .all else { return branches }
    return onOwnHeads(sequence)
  }

  private func onOwnHeads(_ sequence: any HeadExchange<Scalar>) -> AttentionBranches<Scalar> {
    AttentionBranches(
      tape: tape, headCount: branches.headCount / sequence.degree, clipCount: branches.clipCount,
      rotation: branches.rotation)
  }

  /// A result on what `operand` left, on own tokens of all heads again.
  private func left(_ x: Value<Scalar>, of stream: Stream) -> Value<Scalar> {
    guard let sequence, sequence.plan == .all else { return x }
    return sequence.gatherHeads(x, segments: segments(stream), on: tape)
  }

  private func segments(_ stream: Stream) -> [Int] { [tokenCounts[stream.rawValue]] }

  private func joined(_ parts: [Value<Scalar>]) -> Value<Scalar> {
    parts.count == 1 ? parts[0] : tape.concatenate(parts, along: 1)
  }

  /// Cuts joint tokens into the lengths of some streams.
  private func cut(_ x: Value<Scalar>, as parts: [Value<Scalar>]) -> [Value<Scalar>] {
    if parts.count == 1 { return [x] }
    // Held tokens of the result are those of the queries.
    var start = 0
    return parts.map { part in
      defer { start += part.shape[1] }
      return tape.slice(x, along: 1, start..<(start + part.shape[1]))
    }
  }
}
