// The gradient of a step as a sum over microbatches in a fixed binary tree (contract 4.2).
//
// Each microbatch is differentiated into buffers of its own; partial sums meet pairwise, so at
// most log₂(count) + 1 of them live at once. Where gradients are not sharded, a rank's part is its
// subtree and the rest of the tree runs in the optimizer's exchange, across ranks. Where they are, the
// ranks' microbatches of a round are neighbors: a round is summed over ranks first, block by block on
// the way back, and what lives are shards.

package import Autodiff
import Basics
package import DenseKernels
import Exchange
import MeshLayout
package import Planning
package import Tensors

/// A network that a turn trains.
package struct GradientTarget {
  package let parameters: ParameterSet<Float>
  /// Nil where the gradients of a microbatch stay on this rank.
  private let reducer: ShardedParameters?
  private let underway = UnitSum()

  /// Its gradients stay on this rank.
  package init(_ parameters: ParameterSet<Float>) {
    self.parameters = parameters
    reducer = nil
  }

  /// Its gradients are treated as the stage says.
  package init(_ weights: ShardedParameters) {
    parameters = weights.parameters
    reducer = weights.stage >= .gradients ? weights : nil
  }

  /// Elements of a partial sum.
  fileprivate var partialCount: Int { reducer?.ownCount ?? parameters.layout.count }

  /// Makes the network trainable; what comes together is in `partial` after `finish`.
  fileprivate func begin(_ partial: Buffer<Float>, arena: Arena) {
    guard let reducer else { return parameters.bindGradients(to: partial, isCleared: false) }
    guard parameters.layout.units.count > 1 || !parameters.isWhole else {
      let flat = arena.allocate(
        Float.self, count: parameters.layout.count, booking: Booking(parameters.role, .gradients))
      return parameters.bindGradients(to: flat, isCleared: false)
    }
    parameters.bindGradients { unit, gradient in
      underway.handOver(unit: unit, gradient, into: partial, reducer)
    }
  }

  /// Freezes the network again.
  fileprivate func finish(_ partial: Buffer<Float>) {
    parameters.completeGradients()
    if let reducer, let flat = parameters.gradients {
      reducer.group.attempt { try reducer.reduceScatter(flat, into: partial) }
    }
    parameters.finishUnitGradients()
    finishSums()
    // Unbound at once: a bound buffer would stay alive after it has been added to its neighbor.
    parameters.bindGradients(to: nil)
  }
}

extension GradientTarget {
  /// Waits until all gradients that were handed over are in their partial sums.
  fileprivate func finishSums() {
    reducer?.group.attempt { try underway.finish() }
  }

  /// Makes the network trainable for several microbatches, whose ways back come one after the other.
  /// - Parameter partial: where the gradient of the one that is on its way belongs.
  fileprivate func beginSeveral(_ partial: @escaping () -> Buffer<Float>) {
    guard let reducer else { trap("microbatches in flight hand their gradients over") }
    parameters.bindGradients { unit, gradient in
      underway.handOver(unit: unit, gradient, into: partial(), reducer)
    }
  }
}

/// The gradient of a unit of one network on its way to its owners: one at a time, each kept until the next one
/// leaves, so that what is in memory does not depend on the link.
private final class UnitSum {
  private var run: BucketRun?
  private var gradient: Buffer<Float>?

  func handOver(
    unit: Int, _ gradient: Buffer<Float>?, into partial: Buffer<Float>,
    _ reducer: ShardedParameters
  ) {
    reducer.group.attempt {
      try finish()
      run = try reducer.startReduceScatter(unit: unit, gradient, into: partial)
      if run != nil { self.gradient = gradient }
    }
  }

  func finish() throws {
    try run.take()?.finish()
    gradient = nil
  }
}

package enum MicrobatchSum {
  /// The same sum with the microbatches in flight in a pipeline, and what `body` returns for each, in order.
  ///
  /// A microbatch's partial sum is there from its way back on.
  /// - Precondition: the ranks of a stage shard the gradients.
  /// - Collective: over the stages, and over the group of each target.
  package static func gradients<Result>(
    of targets: [GradientTarget], over microbatches: [Int], arena: Arena, in pipeline: Pipeline,
    _ passes: PassCount, _ body: @escaping (_ microbatch: Int) -> Result
  ) -> (sums: [Buffer<Float>], results: [Result]) {
    require(!microbatches.isEmpty, "a rank without a microbatch has no gradient")
    var results: [Result?] = microbatches.map { _ in nil }
    var tree = ArrivalTree<[Buffer<Float>]>(count: microbatches.count)
    var partials: [Buffer<Float>?] = targets.map { _ in nil }
    func partial(of index: Int) -> Buffer<Float> {
      let target = targets[index]
      let partial =
        partials[index]
        ?? arena.allocate(
          Float.self, count: target.partialCount,
          booking: Booking(target.parameters.role, .gradients))
      partials[index] = partial
      return partial
    }
    for (index, target) in targets.enumerated() {
      target.beginSeveral { partial(of: index) }
    }
    pipeline.run(count: microbatches.count, passes) { index in
      results[index] = body(microbatches[index])
      for target in targets {
        target.parameters.renewUnitGradients()
        target.finishSums()
      }
      let sums = targets.indices.map(partial(of:))
      partials = targets.map { _ in nil }
      tree.insert(sums, at: index, combine: Self.add)
    }
    targets.forEach { $0.parameters.bindGradients(to: nil) }
    guard let sums = tree.result else { trap("no sum of \(microbatches)") }
    return (sums, results.compactMap(\.self))
  }

  /// left + right, in the memory of left.
  private static func add(_ left: [Buffer<Float>], _ right: [Buffer<Float>]) -> [Buffer<Float>] {
    for (left, right) in zip(left, right) { Float.add(1, right, to: left) }
    return left
  }

  /// The gradient sum for each target over this rank's microbatches in order; where gradients are
  /// sharded, this rank's part of the sum over all ranks' microbatches.
  ///
  /// Targets are trainable inside `body` only; afterwards they are frozen again, so that no turn
  /// ever adds to another turn's gradients.
  /// - Precondition: the rank has at least one microbatch.
  /// - Collective: over the group of a target whose gradients are sharded.
  package static func gradients(
    of targets: [GradientTarget], over microbatches: some Collection<Int>, arena: Arena,
    _ body: (_ microbatch: Int) throws -> Void
  ) rethrows -> [Buffer<Float>] {
    require(!microbatches.isEmpty, "a rank without a microbatch has no gradient")
    var counter = BinaryCounter<[Buffer<Float>]>()
    defer { targets.forEach { $0.parameters.bindGradients(to: nil) } }
    for microbatch in microbatches {
      let partials = targets.map { target in
        arena.allocate(
          Float.self, count: target.partialCount,
          booking: Booking(target.parameters.role, .gradients))
      }
      for (target, partial) in zip(targets, partials) { target.begin(partial, arena: arena) }
      try body(microbatch)
      for (target, partial) in zip(targets, partials) { target.finish(partial) }
      counter.push(partials, combine: Self.add)
    }
    guard let sum = counter.finish(combine: Self.add) else {
      trap("no partial sum of \(microbatches)")
    }
    return sum
  }
}
