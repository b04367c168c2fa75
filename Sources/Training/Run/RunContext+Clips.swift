// Work that is dealt to the ranks by number: clips that networks make, together where they train together, and what
// a rank does by itself.

import Basics
import MeshLayout
import Planning
import ProcessMesh
import VideoData

/// A result with the number of the clip, or of the piece of work, that it belongs to.
struct Numbered<Value> {
  let number: Int
  let value: Value
}

extension Numbered: Codable where Value: Codable {}

extension RunContext {
  /// Does `count` pieces of work that no others take part in, piece i on rank i mod size, ready to stop after each
  /// round.
  /// - Returns: the results of this rank, in order.
  /// - Collective: over the transport; `body` must not call collectives.
  func shareOut<Result>(
    _ count: Int, _ body: (_ piece: Int) -> Result
  ) throws -> [Numbered<Result>] {
    var results: [Numbered<Result>] = []
    for first in stride(from: 0, to: count, by: transport.size) {
      let piece = first + transport.rank
      if piece < count { results.append(Numbered(number: piece, value: body(piece))) }
      try stopIfAsked()
    }
    return results
  }

  /// Makes clips as microbatches are computed in training: the ranks that share tokens, cut weights or run stages
  /// together make a batch together, batch i on data-parallel rank i mod their number, as many in flight as there are
  /// stages. Ready to stop after each round.
  ///
  /// Where passes load blocks from all ranks, all take part in each round: those that have nothing left make the last
  /// batch once more.
  /// - Parameters:
  ///   - batches: numbers of clips.
  ///   - make: the passes of a batch, as many for each.
  ///   - finish: what becomes of a clip, by its position in the batch that was made, and its number; the ranks of a
  ///     batch share its clips. No collectives.
  /// - Returns: the results of this rank.
  /// - Collective: over the transport.
  func makeClips<Batch, Result>(
    _ batches: [[Int]], _ make: @escaping (_ numbers: [Int]) -> Batch,
    finish: (_ batch: Batch, _ position: Int, _ number: Int) -> Result
  ) throws -> [Numbered<Result>] {
    let members = shape.group(along: .stages, .ring, .sp, .tp, of: transport.rank)
    guard let member = members.firstIndex(of: transport.rank) else {
      trap("rank \(transport.rank) is not of its own group \(members)")
    }
    let dataRank = shape.dataRank(of: transport.rank)
    let dataRankCount = shape.dataParallelDegree
    var results: [Numbered<Result>] = []
    for first in stride(from: 0, to: batches.count, by: dataRankCount * shape[.stages]) {
      let left = min(batches.count - first, dataRankCount * shape[.stages])
      // As many on every data-parallel rank.
      let own = (0..<(left + dataRankCount - 1) / dataRankCount)
        .map { first + $0 * dataRankCount + dataRank }
        .filter { $0 < batches.count || shape.zeroStage == .parameters }
      var made: [Int: Batch] = [:]
      forEach(own, in: ranks, .several) { made[$0] = make(batches[min($0, batches.count - 1)]) }
      var turn = 0
      for index in own where index < batches.count {
        guard let batch = made[index] else { trap("batch \(index) was not made") }
        for (position, number) in batches[index].enumerated() {
          if turn % members.count == member {
            results.append(Numbered(number: number, value: finish(batch, position, number)))
          }
          turn += 1
        }
      }
      try stopIfAsked()
    }
    return results
  }

  /// Joins the results of all ranks in order of their numbers, on every rank.
  /// - Collective: over the transport.
  func joined<Result: Codable>(_ own: [Numbered<Result>]) throws -> [Result] {
    try transport.allGather(value: own).flatMap(\.self).sorted { $0.number < $1.number }
      .map(\.value)
  }

  /// Joins the clips of all ranks in order of their numbers, on rank 0; other ranks get none.
  /// - Collective: over the transport.
  func gatherClips(_ own: [Numbered<Video>]) throws -> [Video] {
    let numbers = try transport.allGather(value: own.map(\.number))
    guard let parts = try transport.gather(own.flatMap(\.value.bytes), root: 0) else { return [] }
    let data = configuration.data
    let byteCount = data.frameCount * data.size * data.size * 3
    return zip(numbers, parts).flatMap { numbers, bytes in
      numbers.enumerated().map { place, number in
        Numbered(
          number: number,
          value: Video(
            frameCount: data.frameCount, height: data.size, width: data.size,
            bytes: Array(bytes[place * byteCount..<(place + 1) * byteCount])))
      }
    }.sorted { $0.number < $1.number }.map(\.value)
  }
}
