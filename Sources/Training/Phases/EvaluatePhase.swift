// Evaluate: the table of samplers. Each finished row is a file, so a stopped evaluation goes on.
//
// Two questions, two tables. Without conditions: how far is the distribution of a sampler's clips from
// that of real clips (random-feature Fréchet distance; real clips as the codec shows them, since no
// sampler can do better)? With a first frame: how near is the continuation to the held-out one?

import Basics
import Diffusion
package import Evaluation
import Foundation
import Models
import ProcessMesh
package import VideoData

package struct EvaluatePhase {
  package static let name = "evaluate"

  private let context: RunContext
  private let generator: ClipGenerator
  private let prepared: PreparedSet
  private let texts: ConditionTexts?
  private let features: RandomFeatureNetwork

  package init(
    context: RunContext, generator: ClipGenerator, prepared: PreparedSet, texts: ConditionTexts?
  ) {
    self.context = context
    self.generator = generator
    self.prepared = prepared
    self.texts = texts
    let data = context.configuration.data
    features = RandomFeatureNetwork(
      frameCount: data.frameCount, height: data.size, width: data.size)
  }

  /// The tables of a finished evaluation; empty where a row is missing.
  package static func tables(
    of configuration: RunConfiguration, in folder: RunFolder
  ) -> [ReportContent.SamplerTable] {
    func rows(_ slugs: [String]) -> [ReportContent.SamplerRow] {
      slugs.compactMap { slug in
        guard let bytes = try? Data(contentsOf: row(slug, configuration, in: folder)) else {
          return nil
        }
        return try? JSONDecoder().decode(ReportContent.SamplerRow.self, from: bytes)
      }
    }
    let samplers = NamedSampler.all(configuration).map(\.slug)
    return [
      ReportContent.SamplerTable(
        title: "Without conditions",
        note: "Random-feature Fréchet distance to \(configuration.evaluate.samples) real clips as "
          + "the latent codec shows them; the same noise for all samplers.",
        rows: rows(["real", "codec"] + samplers)),
      ReportContent.SamplerTable(
        title: "With the first frame given",
        note: "PSNR and SSIM against the held-out continuation of the same first frame.",
        rows: rows(samplers.map { "first-frame-\($0)" })),
    ].filter { !$0.rows.isEmpty }
  }

  /// The number of samples is in the name: rows of another number are not rows of this table.
  private static func row(
    _ slug: String, _ configuration: RunConfiguration, in folder: RunFolder
  ) -> URL {
    folder.evaluation.appending(path: "\(slug)-of-\(configuration.evaluate.samples).json")
  }

  /// Makes the rows that are not there yet.
  /// - Collective: over the context's transport.
  package func run() throws {
    let configuration = context.configuration
    let count = configuration.evaluate.samples
    let samplers = NamedSampler.all(configuration)
    let rowCount = 2 + 2 * samplers.count
    var done = 0
    func finishRow() {
      done += 1
      context.reporter.update(phase: Self.name, step: done, stepCount: rowCount)
    }
    context.reporter.begin(phase: Self.name, step: 0)
    let sampler = prepared.sampler(seed: context.seed)
    func real(_ number: Int) -> Video {
      context.clip(
        sampler.sample(at: number, purpose: .trueClipChoice), of: prepared)
    }
    func coded(_ number: Int) -> Video {
      prepared.codec.decode(prepared.codec.encode(real(number)))
    }

    let missing = try context.transport.onRoot {
      (["real", "codec"] + samplers.map(\.slug)).filter {
        !FileManager.default.fileExists(
          atPath: Self.row($0, configuration, in: context.folder).path)
      }
    }
    func measured(_ clip: (Int) -> Video) throws -> [ClipMeasure] {
      try context.joined(
        context.shareOut(count) { ClipMeasure(PixelClip(clip($0)), features) })
    }
    let reference = missing.isEmpty ? [] : try measured(coded)
    for (slug, name, clip) in [
      ("real", "real clips, other draw", { coded(count + $0) }),
      ("codec", "real clips, not coded", { real(count + $0) }),
    ] as [(String, String, (Int) -> Video)] {
      if missing.contains(slug) {
        try writeRow(slug, name: name, measured(clip), reference: reference)
      }
      finishRow()
    }
    for sampler in samplers {
      if missing.contains(sampler.slug) {
        let start = ContinuousClock.now
        let measures = try measure(count, sampler)
        try writeRow(
          sampler.slug, name: sampler.name, measures, reference: reference,
          evaluationCount: sampler.sampler.schedule.stepCount,
          secondsPerClip: (ContinuousClock.now - start) / .seconds(1) / Double(count))
      }
      finishRow()
    }
    let heldOut = SamplePhase.heldOut(prepared, count: 16, seed: context.seed)
    for sampler in samplers where !heldOut.isEmpty {
      try measureContinuation(sampler, heldOut)
      finishRow()
    }
    context.reporter.finishPhase()
  }

  // MARK: Without conditions

  /// What is measured of one clip.
  private struct ClipMeasure: Codable {
    let features: [Float]
    let motion: Double
    let sharpness: Double
    let flicker: Double

    init(_ clip: PixelClip, _ network: RandomFeatureNetwork) {
      features = network.features(of: clip)
      motion = FrameDifference.motion(clip)
      sharpness = FrameDifference.sharpness(clip)
      flicker = TemporalFlickering.score(clip)
    }
  }

  /// Measures clips 0 ..< count of a sampler.
  private func measure(_ count: Int, _ sampler: NamedSampler) throws -> [ClipMeasure] {
    let batchSize = context.configuration.evaluate.batch
    let batches = stride(from: 0, to: count, by: batchSize).map {
      Array($0..<min($0 + batchSize, count))
    }
    return try context.joined(
      context.makeClips(batches) { numbers in
        generator.latents(numbers, sampler: sampler, conditions: numbers.map { _ in Condition() })
      } finish: { latents, position, _ in
        ClipMeasure(PixelClip(generator.clip(position, of: latents)), features)
      })
  }

  private func writeRow(
    _ slug: String, name: String, _ measures: [ClipMeasure], reference: [ClipMeasure],
    evaluationCount: Int? = nil, secondsPerClip: Double? = nil
  ) throws {
    try context.transport.onRoot {
      func mean(_ path: KeyPath<ClipMeasure, Double>) -> Double {
        measures.reduce(0) { $0 + $1[keyPath: path] } / Double(measures.count)
      }
      let distance = try FrechetDistance.standardized(
        FeatureMoments(of: measures.map(\.features)),
        real: FeatureMoments(of: reference.map(\.features)))
      let row = ReportContent.SamplerRow(
        name: name, frechetDistance: distance, motion: mean(\.motion),
        sharpness: mean(\.sharpness), flicker: mean(\.flicker),
        networkEvaluationCount: evaluationCount,
        secondsPerClip: secondsPerClip, sampleCount: measures.count)
      try RunFolder.write(row, to: Self.row(slug, context.configuration, in: context.folder))
    }
  }

  // MARK: With the first frame

  private struct ContinuationMeasure: Codable {
    let peakSignalToNoise: Double
    let structuralSimilarity: Double
    let motion: Double
    let flicker: Double
  }

  private func measureContinuation(_ sampler: NamedSampler, _ heldOut: [ClipSample]) throws {
    let slug = "first-frame-\(sampler.slug)"
    let isThere = try context.transport.onRoot {
      FileManager.default.fileExists(
        atPath: Self.row(slug, context.configuration, in: context.folder).path)
    }
    guard !isThere else { return }
    let measures = try context.joined(
      context.makeClips(heldOut.indices.map { [$0] }) { numbers in
        generator.latents(
          numbers, sampler: sampler,
          conditions: numbers.map {
            HeldOutCondition(prepared, heldOut[$0], texts: texts, context: context).condition
          })
      } finish: { latents, position, number in
        let clip = PixelClip(generator.clip(position, of: latents))
        let truth = PixelClip(context.clip(heldOut[number], of: prepared))
        return ContinuationMeasure(
          peakSignalToNoise: PeakSignalToNoise.decibels(clip, reference: truth),
          structuralSimilarity: StructuralSimilarity.mean(clip, reference: truth),
          motion: FrameDifference.motion(clip), flicker: TemporalFlickering.score(clip))
      })
    try context.transport.onRoot {
      func mean(_ path: KeyPath<ContinuationMeasure, Double>) -> Double {
        measures.reduce(0) { $0 + $1[keyPath: path] } / Double(measures.count)
      }
      let row = ReportContent.SamplerRow(
        name: sampler.name, motion: mean(\.motion), flicker: mean(\.flicker),
        peakSignalToNoise: mean(\.peakSignalToNoise),
        structuralSimilarity: mean(\.structuralSimilarity),
        networkEvaluationCount: sampler.sampler.schedule.stepCount, sampleCount: measures.count)
      try RunFolder.write(row, to: Self.row(slug, context.configuration, in: context.folder))
    }
  }
}

extension PixelClip {
  init(_ video: Video) {
    self.init(
      pixels: video.bytes, frameCount: video.frameCount, height: video.height,
      width: video.width)
  }
}
