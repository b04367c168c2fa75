// Clips that ranks make together are those of one rank, in a share of its memory.

import Autodiff
import Basics
import DenseKernels
import Diffusion
import MeshLayout
import Models
import Tensors
import TestSupport
import Testing
import VideoData

@testable import Training

struct SharedClipsTests {
  /// A way to place the ranks, and whether clips have the bits of one rank there.
  struct Layout: Sendable, CustomTestStringConvertible {
    let shape: MeshShape
    let hasBits: Bool
    var sums = RunConfiguration.SumOrder.fast

    init(
      _ axes: [Axis: Int], _ stage: ZeroStage = .parameters, bits: Bool = false,
      sums: RunConfiguration.SumOrder = .fast
    ) {
      shape = MeshShape(axes, zeroStage: stage)
      hasBits = bits || sums == .canonical
      self.sums = sums
    }

    var testDescription: String { "\(shape), \(sums)" }

    static let all = [
      Layout([.zero: 2], .optimizer, bits: true), Layout([.zero: 4], bits: true),
      Layout([.dp: 2, .zero: 2], bits: true), Layout([.stages: 2], bits: true),
      Layout([.stages: 3, .zero: 2], bits: true), Layout([.stages: 2, .dp: 2], bits: true),
      Layout([.sp: 2], .optimizer), Layout([.sp: 4], .gradients), Layout([.ring: 3]),
      Layout([.tp: 2]),
      Layout([.zero: 2, .sp: 2]), Layout([.zero: 2, .tp: 2]), Layout([.dp: 2, .ring: 2, .sp: 2]),
      Layout([.stages: 2, .sp: 2]), Layout([.stages: 2, .tp: 2, .zero: 2]),
      Layout([.stages: 3, .ring: 2]), Layout([.sp: 2, .tp: 2]),
      Layout([.zero: 2], sums: .canonical), Layout([.sp: 2], .gradients, sums: .canonical),
      Layout([.tp: 4], sums: .canonical), Layout([.zero: 2, .sp: 2, .tp: 2], sums: .canonical),
      Layout([.stages: 2], sums: .canonical), Layout([.stages: 2, .sp: 2], sums: .canonical),
    ]
  }

  private static func configuration(
    _ architecture: Architecture, _ sums: RunConfiguration.SumOrder
  ) -> RunConfiguration {
    PlannedCase("clips") {
      $0.model.architecture = architecture
      ($0.model.heads, $0.model.headWidth) = (4, 16)
      ($0.model.doubleBlocks, $0.model.singleBlocks) = (architecture == .vchitect ? (4, 0) : (2, 2))
      $0.batch.microbatches = 8
      $0.compute.precision = .fp32
      $0.mesh.sums = sums
      if sums == .canonical { $0.mesh.sequencePlan = .all }
    }.configuration
  }

  /// Weights of which none is zero, which are drawn alike in any layout.
  private static func fill(_ parameters: ParameterSet<Float>) {
    parameters.initialize(seed: 5) { entries in
      for (index, parameter) in zip(entries, parameters.parameters[entries]) {
        let buffer = parameter.value.buffer
        guard buffer.array.allSatisfy({ $0 == 0 }) else { continue }
        let stream = RandomStream(seed: 6, purpose: .parameterInitialization, sample: index)
        buffer.copy(from: stream.normals(count: buffer.count).map { Float($0) * 0.1 })
      }
    }
  }

  private struct Made: Sendable {
    /// Latents by the number of the clip.
    var clips: [[Float]] = []
    /// How many this rank has finished.
    var finishedCount = 0
  }

  private static let batches = [[0, 1], [2, 3], [4, 5], [6, 7], [8]]

  /// What each rank has of the clips.
  private static func make(_ configuration: RunConfiguration, _ shape: MeshShape) throws -> [Made] {
    let prepared = try TinyRun.prepared(of: configuration)
    return try RunOnThreads.start(configuration, shape: shape) { rank in
      let context = rank.context
      let network = rank.makeNetworks().base
      fill(network.parameters)
      let generator = ClipGenerator(
        context: context, teacher: network, student: network, codec: prepared.codec,
        latentShape: prepared.latentShape)
      let sampler = NamedSampler(.student, steps: 2, rule: .renoise, shift: 3)
      let own = try context.makeClips(batches) { numbers in
        generator.latents(numbers, sampler: sampler, conditions: numbers.map { _ in Condition() })
      } finish: { latents, position, _ in
        latents.rows(position..<position + 1).array
      }
      return Made(clips: try context.joined(own), finishedCount: own.count)
    }.results
  }

  @Test(arguments: Layout.all, [Architecture.hunyuanVideo, .vchitect])
  func `clips are those of one rank`(
    _ layout: Layout, _ architecture: Architecture
  ) throws {
    let configuration = Self.configuration(architecture, layout.sums)
    let alone = try #require(try Self.make(configuration, MeshShape()).first)
    let together = try Self.make(configuration, layout.shape)
    let count = Self.batches.joined().count
    #expect(alone.clips.count == count)
    // Nobody makes noise go for a clip, nor one for another.
    #expect(Set(alone.clips).count == count)
    for made in together {
      try #require(made.clips.count == count)
      for (clip, expected) in zip(made.clips, alone.clips) {
        if layout.hasBits {
          #expect(clip == expected)
        } else {
          let scale = expected.map(abs).max() ?? 0
          let distance = zip(clip, expected).map { abs($0 - $1) }.max() ?? .infinity
          #expect(distance <= 1e-5 * scale, "\(distance) of \(scale)")
        }
      }
    }
    // Each clip is finished once; the ranks that made a batch share its clips.
    let finished = together.map(\.finishedCount)
    #expect(finished.reduce(0, +) == count)
    let members = layout.shape.rankCount / layout.shape.dataParallelDegree
    if members <= 2 { #expect(finished.allSatisfy { $0 > 0 }, "\(finished)") }
  }
}
