import Foundation
import MeshLayout
import Models
import ProcessMesh
import Tensors
import TestSupport
import Testing

@testable import Training

@Suite struct TrainingBatchesTests {
  /// What the ranks of a mesh draw for two steps: latents and references by sample counter, and how many ranks drew
  /// each.
  private func draws(
    _ axes: [Axis: Int], in folder: URL
  ) throws -> [Int: (values: [[Float]], count: Int)] {
    let prepared = try TinyRun.prepared(in: folder)
    let configuration = TinyRun.configuration {
      ($0.batch.microbatches, $0.batch.samples) = (8, 3)
    }
    let shape = MeshShape(axes)
    let ranks = try InProcessMesh.run(size: shape.rankCount) { transport in
      let context = try RunContext(
        configuration: configuration, folder: RunFolder("/nowhere/"), transport: transport,
        shape: shape, reporter: Reporter(), isStopRequested: { false })
      let batches = TrainingBatches(prepared, context: context, texts: nil, firstCounter: 100)
      return [0, 1].flatMap { step in
        context.microbatches.flatMap { microbatch -> [(counter: Int, values: [[Float]])] in
          let batch = batches.batch(step: step, microbatch: microbatch, in: context.arena)
          return batch.counters.enumerated().map { index, counter in
            (
              counter,
              [
                batch.latents.rows(index..<index + 1).array,
                batch.conditions[index].reference?.array ?? [],
              ]
            )
          }
        }
      }
    }
    return ranks.flatMap(\.self).reduce(into: [:]) { draws, sample in
      let (counter, values) = sample
      if let known = draws[counter] { #expect(known.values == values, "sample \(counter)") }
      draws[counter] = (values, draws[counter, default: (values, 0)].count + 1)
    }
  }

  /// Check 11 of §10 of the specification of Vchitect-2.0, for counters in place of its interleaved files: 8
  /// microbatches over 3 replicas, and over pairs that share tokens.
  @Test func `all ranks together draw the samples of one rank, each once for those who share it`()
    throws
  {
    try withTemporaryFolder { folder in
      let alone = try draws([:], in: folder)
      #expect(alone.keys.sorted() == Array(100..<148))
      for (axes, sharers) in [
        ([.dp: 3], 1), ([.zero: 3], 1), ([.dp: 2, .sp: 2], 2), ([.zero: 3, .ring: 2], 2),
      ] as [([Axis: Int], Int)] {
        let drawn = try draws(axes, in: folder)
        #expect(drawn.keys.sorted() == alone.keys.sorted(), "\(axes)")
        for (counter, sample) in drawn {
          let isSame = sample.values == alone[counter]?.values
          #expect(isSame && sample.count == sharers, "sample \(counter) of \(axes)")
        }
      }
    }
  }

  /// The files of a set are read while a run goes on.
  @Test func `frames that vanish end the job on all ranks at the next agreement`() throws {
    try withTemporaryFolder { folder in
      let prepared = try TinyRun.prepared(in: folder)
      let stored = folder.appending(path: "prepared/source-0.safetensors")
      let aside = folder.appending(path: "aside.safetensors")
      let ends = try InProcessMesh.run(size: 2) { transport -> [String] in
        let context = try RunContext(
          configuration: TinyRun.configuration(), folder: RunFolder("/nowhere/"),
          transport: transport, reporter: Reporter(), isStopRequested: { false })
        let batches = TrainingBatches(prepared, context: context, texts: nil, firstCounter: 0)
        let before = batches.batch(step: 0, microbatch: 1, in: context.arena).latents.array
        _ = try context.agreeOnStep(losses: [])
        if transport.isRoot { try FileManager.default.moveItem(at: stored, to: aside) }
        try transport.barrier()
        // Rank 1 alone draws a batch.
        if transport.rank == 1 {
          let after = batches.batch(step: 0, microbatch: 1, in: context.arena).latents.array
          #expect(after.count == before.count && after != before)
        }
        do {
          _ = try context.agreeOnStep(losses: [])
          return ["agreed"]
        } catch let error as JobError {
          return [error.message]
        }
      }
      #expect(ends.count == 2 && ends[0] == ends[1])
      #expect(ends[0][0].contains("source-0.safetensors"))
      #expect(ends[0][0].contains("prepare again"))
    }
  }
}
