// Sample: what the networks make of the same noise and the same first frames, as mp4 and PNG.
//
// Ranks make clips together as they train together; rank 0 writes the files.

import Basics
package import Foundation
import Models
import ProcessMesh
import Tensors
package import VideoData

package struct SamplePhase {
  package static let name = "sample"

  private let context: RunContext
  private let generator: ClipGenerator
  private let prepared: PreparedSet
  private let texts: ConditionTexts?

  package init(
    context: RunContext, generator: ClipGenerator, prepared: PreparedSet, texts: ConditionTexts?
  ) {
    self.context = context
    self.generator = generator
    self.prepared = prepared
    self.texts = texts
  }

  /// What a set of sample videos shows.
  package enum Mode: String, CaseIterable, Sendable {
    case unconditional
    case firstFrame = "first-frame"
  }

  package static func video(_ mode: Mode, _ slug: String, in folder: RunFolder) -> URL {
    folder.samples.appending(path: "\(mode.rawValue)-\(slug).mp4")
  }

  package static func sheet(_ mode: Mode, _ slug: String, in folder: RunFolder) -> URL {
    folder.samples.appending(path: "\(mode.rawValue)-\(slug).png")
  }

  /// The held-out clips whose first frames are given: spread over the sources.
  package static func heldOut(_ prepared: PreparedSet, count: Int, seed: UInt64) -> [ClipSample] {
    let samples = prepared.sampler(seed: seed).heldOutSamples()
    let bySource = Dictionary(grouping: samples, by: \.source)
      .sorted { $0.key < $1.key }.map(\.value)
    let rounds = bySource.map(\.count).max() ?? 0
    let spread = (0..<rounds).flatMap { round in
      bySource.compactMap { round < $0.count ? $0[round] : nil }
    }
    return Array(spread.prefix(count))
  }

  /// Writes what is not there yet.
  /// - Collective: over the context's transport.
  package func run() throws {
    let heldOut = Self.heldOut(
      prepared, count: context.configuration.sample.clips, seed: context.seed)
    let samplers = NamedSampler.all(context.configuration)
    let jobs: [(Mode, NamedSampler?)] = Mode.allCases.flatMap { mode in
      (mode == .firstFrame ? [(mode, nil)] : []) + samplers.map { (mode, $0) }
    }
    context.reporter.begin(phase: Self.name, step: 0)
    for (number, (mode, sampler)) in jobs.enumerated() {
      let slug = sampler?.slug ?? "source"
      let isThere = try context.transport.onRoot {
        FileManager.default.fileExists(atPath: Self.video(mode, slug, in: context.folder).path)
          && FileManager.default.fileExists(atPath: Self.sheet(mode, slug, in: context.folder).path)
      }
      if !isThere && !(mode == .firstFrame && heldOut.isEmpty) {
        let clips = try clips(mode, sampler, heldOut: heldOut)
        try context.transport.onRoot { try write(clips, mode: mode, slug: slug) }
      }
      context.reporter.update(phase: Self.name, step: number + 1, stepCount: jobs.count)
    }
    context.reporter.finishPhase()
  }

  private func clips(
    _ mode: Mode, _ sampler: NamedSampler?, heldOut: [ClipSample]
  ) throws -> [Video] {
    guard let sampler else {
      return try context.gatherClips(
        context.shareOut(heldOut.count) { context.clip(heldOut[$0], of: prepared) })
    }
    let count = mode == .firstFrame ? heldOut.count : context.configuration.sample.clips
    return try context.gatherClips(
      context.makeClips((0..<count).map { [$0] }) { numbers in
        generator.latents(
          numbers, sampler: sampler,
          conditions: numbers.map { number in
            mode == .firstFrame
              ? HeldOutCondition(prepared, heldOut[number], texts: texts, context: context)
                .condition : Condition()
          })
      } finish: { latents, position, _ in
        generator.clip(position, of: latents)
      })
  }

  private func write(_ clips: [Video], mode: Mode, slug: String) throws {
    let writer = VideoWriter()
    try writer.writeMP4(
      Montage.grid(clips), to: Self.video(mode, slug, in: context.folder), upscale: 2)
    try writer.writePNG(
      ContactSheet.draw(clips, columnCount: 6), to: Self.sheet(mode, slug, in: context.folder),
      upscale: 2)
  }
}

/// The condition that a held-out clip gives: its first frame.
struct HeldOutCondition {
  let condition: Condition<Float>

  init(
    _ prepared: PreparedSet, _ sample: ClipSample, texts: ConditionTexts?, context: RunContext
  ) {
    let latents = Tensor<Float>(
      prepared.codec.encode(context.clip(sample, of: prepared)).values,
      shape: [1] + prepared.latentShape, in: context.arena,
      booking: Booking(.common, .activations))
    condition = Condition(
      reference: TrainingBatches.firstFrame(of: latents, sample: 0, in: context.arena),
      text: texts?[source: sample.source])
  }
}
