// How all ranks of a job come to the same plan: rank 0 reads what there is to choose, all measure if there is
// something, and rank 0 decides.

import Checkpoints
import DenseKernels
import Foundation
import Planning
package import ProcessMesh

extension RunPlan {
  /// What rank 0 found out before anything was measured.
  private struct Opening: Codable {
    /// Nil where there is but one layout.
    let probed: ProbedSizes?
    let noted: NotedLayout?
  }

  /// The plan of a run that starts now, the same on every rank.
  /// - Throws: `JobError`, the same on all ranks.
  /// - Collective: over the transport.
  package static func made(
    for configuration: RunConfiguration, resume: ResumeMode, in folder: RunFolder,
    on transport: any Transport
  ) throws -> RunPlan {
    // Before the probe takes memory.
    let resident = try transport.allReduce(
      max: ResourceUsage.current()?.residentByteCount ?? 0)
    let opening = try transport.onRoot { () throws -> Opening in
      let sizes = try WorkloadSizes(configuration)
      let search = LayoutSearch(
        configuration: configuration, sizes: sizes, rankCount: transport.size
      ).search()
      return Opening(
        probed: search.shapes.count > 1
          ? ProbedSizes(sizes, precision: configuration.probedPrecision) : nil,
        noted: NotedLayout(resume, in: folder))
    }
    let rates = try opening.probed.map {
      try StepProbe.measure($0, exchange: configuration.exchange, on: transport)
    }
    return try transport.onRoot {
      try Coordinator.plan(
        configuration, rankCount: transport.size, rates: rates, noted: opening.noted,
        programByteCount: resident > 0 ? resident : ProcessMemory.usualProgramByteCount)
    }
  }
}

extension NotedLayout {
  /// What the checkpoint says that a start will go on from. Which one that is, and whether it is whole, is for
  /// `StartingPoint` to say; all of a run have the same bits, whichever it takes.
  init?(_ resume: ResumeMode, in folder: RunFolder) {
    let own = CheckpointStore(folder.checkpoints).newestValid(deep: false).reader
    switch resume {
    case .never: return nil
    case .auto:
      guard let own else { return nil }
      self.init(mesh: own.manifest.fields.mesh)
    case .checkpoint(let url):
      let isOwn = own?.manifest.fields.origin == url.standardizedFileURL.path
      guard let reader = isOwn ? own : try? CheckpointReader(opening: url) else { return nil }
      self.init(mesh: reader.manifest.fields.mesh)
    }
  }
}
