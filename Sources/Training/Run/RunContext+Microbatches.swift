// The microbatches of this rank, one after the other or in flight in a pipeline, and those of others that it
// must keep in step with.

import Autodiff
import DenseKernels
import MeshLayout
import Models
import Planning
import Tensors

extension RunContext {
  /// Microbatches that are in flight in a pipeline with this one, where each makes several passes; they end in
  /// order only if all make as many.
  func companions(of microbatch: Int, in set: RankSet) -> [Int] {
    let own = set.microbatches
    guard let pipeline = set.pipeline, let index = own.firstIndex(of: microbatch) else {
      return set.peers(of: microbatch)
    }
    return own[pipeline.companions(of: index, count: own.count)].flatMap(set.peers)
  }

  /// Lets those in flight with this rank's microbatch make a pass that it does not need.
  func skipPass(in set: RankSet) { set.pipeline?.skipPass() }

  /// Loads what a pass of a network, held by a set, over this rank's microbatch loads, and computes nothing.
  /// - Collective: as such a pass.
  func attendPass(of network: ParameterSet<Float>, in set: RankSet) {
    network.attendPass(set.sequence?.extent ?? .whole)
    skipPass(in: set)
  }

  /// Has `body` run for each of this rank's microbatches in a set, in flight where it has stages.
  /// - Parameter passes: of networks that `body` makes.
  /// - Collective: over the ranks of the set.
  func forEachMicrobatch(
    in set: RankSet, _ passes: PassCount, _ body: @escaping (_ microbatch: Int) -> Void
  ) {
    forEach(set.microbatches, in: set, passes, body)
  }

  /// The same for other work of as many passes each, by its number.
  func forEach(
    _ numbers: [Int], in set: RankSet, _ passes: PassCount,
    _ body: @escaping (_ number: Int) -> Void
  ) {
    guard let pipeline = set.pipeline else { return numbers.forEach(body) }
    pipeline.run(count: numbers.count, passes) { body(numbers[$0]) }
  }

  /// The gradient sums of a turn over this rank's microbatches, or its part of all ranks', and what `body` returns
  /// for each microbatch, in order.
  /// - Parameters:
  ///   - set: the ranks that hold the targets and share the microbatches; nil: all.
  ///   - passes: of networks that `body` makes.
  /// - Collective: over these ranks.
  func gradients<Result>(
    of targets: [GradientTarget], in set: RankSet? = nil, _ passes: PassCount,
    _ body: @escaping (_ microbatch: Int) -> Result
  ) -> (sums: [Buffer<Float>], results: [Result]) {
    let set = set ?? ranks
    let microbatches = set.microbatches
    if let pipeline = set.pipeline {
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
