// Evaluation and report of a run that is there already, for the tools.

import Checkpoints
package import Evaluation
import Foundation
import Models
import ProcessMesh
import Tensors
import VideoData

extension StoredRun {
  /// The tables of the run; rows that are missing are made first, on one rank.
  /// - Parameter say: gets lines of progress.
  /// - Throws: `JobError` for a single checkpoint, whose rows would pass for the run's.
  package func evaluate(
    say: @escaping @Sendable (String) -> Void
  ) throws -> [ReportContent.SamplerTable] {
    guard step == nil else {
      throw JobError(
        exitCode: .configuration,
        "tables belong to a finished run, not to one checkpoint: give the run folder \(folder.url.path)"
      )
    }
    let configuration = try configuration()
    // A worker that is at it writes the same rows.
    let lock = try RunLock(runFolder: folder.url)
    defer { withExtendedLifetime(lock) {} }
    let prepared = try prepared()
    let run = self
    _ = try InProcessMesh.run(size: 1) { transport -> Bool in
      let context = try RunContext(
        configuration: configuration, folder: run.folder, transport: transport,
        reporter: Reporter(style: .plain(interval: 5), output: say), isStopRequested: { false })
      let teacher = try run.network(.real, in: context.arena)
      let student =
        configuration.distill.method == .euler
        ? teacher : try run.network(.generator, in: context.arena)
      try EvaluatePhase(
        context: context,
        generator: ClipGenerator(
          context: context, teacher: teacher, student: student, codec: prepared.codec,
          latentShape: prepared.latentShape), prepared: prepared,
        texts: run.texts(
          configuration, sourceCount: prepared.sources.count, in: context.arena)
      ).run()
      return true
    }
    return EvaluatePhase.tables(of: configuration, in: folder)
  }

  /// Writes `report.html` anew from what lies in the run folder.
  package func writeReport() throws {
    var facts = [ReportContent.Fact("version", Version.text)]
    if let prepared = try? prepared() {
      facts.append(.init("videos", prepared.sources.map(\.name).joined(separator: ", ")))
      facts.append(
        .init("latent codec", String(format: "%.1f dB on held-out clips", prepared.codecPSNR)))
    }
    let content = try ReportPhase.content(
      of: configuration(), in: folder, title: "W2SVD run \(folder.url.lastPathComponent)",
      environment: facts)
    try ReportPhase.write(content, to: folder)
  }
}
