// `w2svd sample`: clips from a run.

import ArgumentParser
import Diffusion
import Foundation
import Training
import VideoData

struct SampleCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "sample",
    abstract:
      "Makes clips with the weights of a run and writes them as one mp4, in a grid of up to four columns.",
    discussion: """
      The latent codec is that of <run>/prepared. Clip i depends on the seed, the sampler and i alone, \
      so more clips begin with the same ones.
      """)

  enum Role: String, ExpressibleByArgument, CaseIterable { case generator, real }
  enum Rule: String, ExpressibleByArgument, CaseIterable { case renoise, euler }

  @Option(
    help: ArgumentHelp(
      "A run (its final weights) or one of its checkpoints/step-… folders.",
      valueName: "run-or-step"))
  var checkpoint: String

  @Option(help: "Whose weights: the distilled generator, or the real DiT that it learned from.")
  var role = Role.generator

  @Option(help: "Network evaluations of a clip.")
  var steps = 4

  @Option(
    help: ArgumentHelp(
      "renoise: fresh noise after each step; euler: the deterministic path. Default: sample.rule of "
        + "the run for the generator, euler for the real DiT."))
  var rule: Rule?

  @Option(
    help: ArgumentHelp(
      "A picture that becomes the first frame of every clip. Default: none, unconditional.",
      valueName: "first.png"))
  var image: String?

  @Option(
    help: ArgumentHelp(
      "Factor of the spatial branch of a vchitect model; the released sampler has 1.1. Default: "
        + "model.spatialGain of the run.", valueName: "factor"))
  var spatialGain: Double?

  @Option(help: "Addresses all noise. Default: that of the run.")
  var seed: Int?

  @Option(help: "Clips to make.")
  var count = 1

  @Option(help: "Each pixel becomes a square of so many.")
  var upscale = 2

  @Option(help: ArgumentHelp("Where the video goes.", valueName: "out.mp4"))
  var output: String

  func validate() throws {
    for (name, value) in [("steps", steps), ("count", count), ("upscale", upscale)]
    where !(1...1_000).contains(value) {
      throw ValidationError("--\(name) is \(value); give 1 to 1000.")
    }
    if let seed, seed < 0 { throw ValidationError("--seed is \(seed); give 0 or more.") }
  }

  func run() throws {
    let run = try StoredRun(checkpoint)
    var configuration = try run.configuration()
    if let seed { configuration.seed = seed }
    let chosen: SamplerRule =
      switch rule {
      case .renoise: .renoise
      case .euler: .euler
      case nil: role == .real ? .euler : configuration.sample.rule
      }
    var request = ClipRequest(
      run: run,
      sampler: NamedSampler(
        role == .real ? .teacher : .student, steps: steps, rule: chosen,
        shift: configuration.distill.flowShift), image: image.map { URL(filePath: $0) },
      count: count)
    request.spatialGain = spatialGain
    let start = ContinuousClock.now
    let clips = try request.clips(configuration: configuration)
    let seconds = (ContinuousClock.now - start) / .seconds(1)
    try VideoWriter().writeMP4(
      Montage.grid(clips), to: URL(filePath: output), upscale: upscale)
    print("\(output): \(count) clips, \(String(format: "%.2f", seconds)) s")
  }
}
