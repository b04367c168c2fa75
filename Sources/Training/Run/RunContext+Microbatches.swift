// The microbatches of this rank, one after the other or in flight in a pipeline, and those of others that it
// must keep in step with.

import Autodiff
import DenseKernels
import MeshLayout
import Models
import Planning
import Tensors

extension RunContext {
  /// Microbatches that are computed at the same time as this one by ranks that load blocks together.
  func peers(of microbatch: Int) -> [Int] {
    shape.zeroStage == .parameters ? share.round(of: microbatch) : [microbatch]
  }

  /// Microbatches that are in flight in a pipeline with this one, where each makes several passes; they end in
  /// order only if all make as many.
  func companions(of microbatch: Int) -> [Int] {
    guard let pipeline, let index = microbatches.firstIndex(of: microbatch) else {
      return peers(of: microbatch)
    }
    return microbatches[pipeline.companions(of: index, count: microbatches.count)]
      .flatMap(peers)
  }

  /// Lets those in flight with this rank's microbatch make a pass that it does not need.
  func skipPass() { pipeline?.skipPass() }

  /// Loads what a pass of a network over this rank's microbatch loads, and computes nothing.
  /// - Collective: as such a pass.
  func attendPass(of network: ParameterSet<Float>) {
    network.attendPass(sequence?.extent ?? .whole)
    pipeline?.skipPass()
  }

  /// The gradient sums of a turn over this rank's microbatches, or its part of all ranks', and what `body` returns
  /// for each microbatch, in order.
  /// - Parameter passes: of networks that `body` makes.
  /// - Collective: over the ranks that share the networks.
  func gradients<Result>(
    of targets: [GradientTarget], _ passes: PassCount,
    _ body: @escaping (_ microbatch: Int) -> Result
  ) -> (sums: [Buffer<Float>], results: [Result]) {
    if let pipeline {
      return MicrobatchSum.gradients(
        of: targets, over: microbatches, arena: arena, in: pipeline, passes, body)
    }
    var results: [Result] = []
    let sums = MicrobatchSum.gradients(of: targets, over: microbatches, arena: arena) {
      results.append(body($0))
    }
    return (sums, results)
  }
}
