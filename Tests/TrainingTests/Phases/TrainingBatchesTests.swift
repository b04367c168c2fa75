import Foundation
import ProcessMesh
import Tensors
import TestSupport
import Testing

@testable import Training

@Suite struct TrainingBatchesTests {
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
