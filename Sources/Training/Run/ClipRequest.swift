// Clips on demand: what `w2svd sample` makes of a finished run.

package import Foundation
import Models
import ProcessMesh
import Tensors
package import VideoData

package struct ClipRequest: Sendable {
  package var run: StoredRun
  package var sampler: NamedSampler
  /// A picture that the clips go on from; nil samples without conditions.
  package var image: URL?
  package var count: Int
  /// κ in place of the network's own, for Vchitect-2.0 of form v2.
  package var spatialGain: Double?

  package init(run: StoredRun, sampler: NamedSampler, image: URL?, count: Int) {
    self.run = run
    self.sampler = sampler
    self.image = image
    self.count = count
  }

  /// Makes the clips, one after the other; clip i is a function of (seed, sampler, i).
  package func clips(configuration: RunConfiguration) throws -> [Video] {
    let prepared = try run.prepared()
    let request = self
    return try InProcessMesh.run(size: 1) { transport in
      try request.clips(configuration, prepared, on: transport)
    }[0]
  }

  private func clips(
    _ configuration: RunConfiguration, _ prepared: PreparedSet, on transport: any Transport
  ) throws -> [Video] {
    let context = try RunContext(
      configuration: configuration, folder: run.folder, transport: transport,
      reporter: Reporter(), isStopRequested: { false })
    let network = try adjusted(
      run.network(sampler.role == .teacher ? .real : .generator, in: context.arena))
    let reference = try image.map { try firstFrame($0, prepared, in: context.arena) }
    let generator = ClipGenerator(
      context: context, teacher: network, student: network, codec: prepared.codec,
      latentShape: prepared.latentShape)
    return (0..<count).map { number in
      generator.clip(
        0,
        of: generator.latents(
          [number], sampler: sampler, conditions: [Condition(reference: reference)]))
    }
  }

  /// The network with the spatial gain that was asked for.
  private func adjusted(
    _ network: ConditionedTransformer<Float>
  ) throws -> ConditionedTransformer<Float> {
    guard let spatialGain else { return network }
    guard var configuration = network.configuration as? VchitectConfiguration else {
      throw JobError(
        exitCode: .configuration,
        "--spatial-gain is \(spatialGain), but the run's model is "
          + "\(network.configuration.architecture.rawValue), which has no such factor: leave it out"
      )
    }
    configuration.spatialGain = spatialGain
    return ConditionedTransformer(
      try configuration.checked(), parameters: network.parameters)
  }

  /// The latent of a picture: scaled to the clip's short side, its middle cut out.
  private func firstFrame(
    _ image: URL, _ prepared: PreparedSet, in arena: Arena
  ) throws -> Tensor<Float> {
    let size = prepared.options.cropSize
    let reader = VideoReader()
    let found = try reader.probe(image)
    let short = Double(min(found.height, found.width))
    func scaled(_ side: Int) -> Int {
      max(size, Int((Double(side) * Double(size) / short).rounded()))
    }
    let (height, width) = (scaled(found.height), scaled(found.width))
    let picture = try reader.decode(image, height: height, width: width, maximumFrameCount: 1)
      .cropped(
        top: (height - size) / 2, left: (width - size) / 2, height: size, width: size)
    let latents = prepared.codec.encode(picture.frames(0..<1))
    return Tensor(
      latents.values, shape: [latents.channelCount, latents.height, latents.width], in: arena,
      booking: Booking(.common, .activations))
  }
}
