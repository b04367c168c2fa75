// In which order a stage runs the forward and backward passes of its microbatches.
//
// p stages, n microbatches, v chunks of blocks a stage (1 unless interleaved); chunk c of stage s is virtual
// stage c p + s. With equal stages and free links, for times T_F and T_B (input and weight gradients):
//
//   GPipe            all forward, then all backward          bubble (p − 1)(T_F + T_B), n held
//   1F1B             p − s in flight, then one by one        bubble (p − 1)(T_F + T_B), min(n, p) held
//   interleaved      1F1B over chunks; n a multiple of p     bubble (p − 1)(T_F + T_B)/v
//   local blocks     gradients stop at stage borders         bubble (p − 1) T_F, 1 held
//   forward only     frozen roles                            bubble (p − 1) T_F
//
// T_F and T_B of an interleaved stage are those of all its chunks.
// Source: specs of distributed systems §5; interleaving: 2104.04473, §2.2.

/// Which order trained passes take.
package enum PipelineSchedule: Codable, Equatable, Hashable, Sendable, CustomStringConvertible {
  case gPipe
  case oneForwardOneBackward
  /// Chunks of a stage.
  case interleaved(Int)
  case localBlocks

  /// v.
  package var chunkCount: Int {
    if case .interleaved(let count) = self { count } else { 1 }
  }

  package var description: String {
    switch self {
    case .gPipe: "GPipe"
    case .oneForwardOneBackward: "1F1B"
    case .interleaved(let count): "interleaved \(count)"
    case .localBlocks: "local blocks"
    }
  }

  /// Part of a trained pass: one chunk of one microbatch.
  package struct Slot: Equatable, Sendable {
    package let isForward: Bool
    package let microbatch: Int
    package let chunk: Int

    package init(isForward: Bool, microbatch: Int, chunk: Int = 0) {
      self.isForward = isForward
      self.microbatch = microbatch
      self.chunk = chunk
    }
  }

  /// What a stage runs for a trained pass, in order.
  ///
  /// - Precondition: interleaved needs a number of microbatches that `stageCount` divides.
  package func order(stage: Int, stageCount: Int, microbatchCount: Int) -> [Slot] {
    switch self {
    case .gPipe:
      return (0..<microbatchCount).map { Slot(isForward: true, microbatch: $0) }
        + (0..<microbatchCount).map { Slot(isForward: false, microbatch: $0) }
    case .oneForwardOneBackward:
      return Self.alternating(
        warmup: min(stageCount - stage - 1, microbatchCount), count: microbatchCount,
        forward: { Slot(isForward: true, microbatch: $0) },
        backward: { Slot(isForward: false, microbatch: $0) })
    case .interleaved(let chunks):
      let count = microbatchCount * chunks
      return Self.alternating(
        warmup: min(2 * (stageCount - stage - 1) + (chunks - 1) * stageCount, count),
        count: count,
        forward: { Self.slot($0, isForward: true, stageCount, chunks) },
        backward: { Self.slot($0, isForward: false, stageCount, chunks) })
    case .localBlocks:
      return (0..<microbatchCount).flatMap {
        [Slot(isForward: true, microbatch: $0), Slot(isForward: false, microbatch: $0)]
      }
    }
  }

  /// What a stage runs for a frozen pass, in order.
  package func forwardOrder(stageCount: Int, microbatchCount: Int) -> [Slot] {
    let chunks = chunkCount
    return (0..<microbatchCount * chunks).map {
      chunks == 1
        ? Slot(isForward: true, microbatch: $0)
        : Self.slot($0, isForward: true, stageCount, chunks)
    }
  }

  /// Forwards that fill the pipeline, then one forward and one backward in turn, then what is left.
  private static func alternating(
    warmup: Int, count: Int, forward: (Int) -> Slot, backward: (Int) -> Slot
  ) -> [Slot] {
    (0..<warmup).map(forward)
      + (0..<count - warmup).flatMap { [forward(warmup + $0), backward($0)] }
      + (count - warmup..<count).map(backward)
  }

  /// The k-th chunk of an interleaved stage: p microbatches of a chunk, then those of the next.
  private static func slot(
    _ index: Int, isForward: Bool, _ stageCount: Int, _ chunks: Int
  ) -> Slot {
    let chunk = index / stageCount % chunks
    return Slot(
      isForward: isForward,
      microbatch: index / (stageCount * chunks) * stageCount + index % stageCount,
      chunk: isForward ? chunk : chunks - 1 - chunk)
  }

  /// Most microbatches whose activations a stage holds at once, in chunks.
  package func heldCount(stage: Int, stageCount: Int, microbatchCount: Int) -> Int {
    var held = 0
    var most = 0
    for slot in order(stage: stage, stageCount: stageCount, microbatchCount: microbatchCount) {
      held += slot.isForward ? 1 : -1
      most = max(most, held)
    }
    return most
  }
}
