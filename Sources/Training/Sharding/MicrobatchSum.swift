// The gradient of a step as a sum over microbatches in a fixed binary tree (contract 4.2).
//
// Each microbatch is differentiated into buffers of its own; partial sums meet pairwise, so at
// most log₂(count) + 1 of them live at once. A rank's part is its subtree; the rest of the tree runs
// in the exchange, across ranks.

package import Autodiff
import Basics
package import DenseKernels
import MeshLayout
package import Tensors

/// The networks that a turn trains, with where their gradients are booked.
package struct GradientTarget {
  package let parameters: ParameterSet<Float>
  package let role: MemoryRole

  package init(_ parameters: ParameterSet<Float>, role: MemoryRole) {
    self.parameters = parameters
    self.role = role
  }
}

package enum MicrobatchSum {
  /// This rank's gradient sum for each target, over its microbatches in order.
  ///
  /// Targets are trainable inside `body` only; afterwards they are frozen again, so that no turn
  /// ever adds to another turn's gradients.
  /// - Precondition: the rank has at least one microbatch.
  package static func gradients(
    of targets: [GradientTarget], over microbatches: Range<Int>, arena: Arena,
    _ body: (_ microbatch: Int) throws -> Void
  ) rethrows -> [Buffer<Float>] {
    require(!microbatches.isEmpty, "a rank without a microbatch has no gradient")
    var counter = BinaryCounter<[Buffer<Float>]>()
    let combine = { (left: [Buffer<Float>], right: [Buffer<Float>]) -> [Buffer<Float>] in
      for (left, right) in zip(left, right) { Float.add(1, right, to: left) }
      return left
    }
    defer { targets.forEach { $0.parameters.bindGradients(to: nil) } }
    for microbatch in microbatches {
      let partials = targets.map { target in
        arena.allocate(
          Float.self, count: target.parameters.layout.count,
          booking: Booking(target.role, .gradients))
      }
      for (target, partial) in zip(targets, partials) {
        target.parameters.bindGradients(to: partial, isCleared: false)
      }
      try body(microbatch)
      // Unbound first: a bound buffer would stay alive after it has been added to its neighbor.
      for target in targets {
        target.parameters.completeGradients()
        target.parameters.bindGradients(to: nil)
      }
      counter.push(partials, combine: combine)
    }
    guard let sum = counter.finish(combine: combine) else {
      trap("no partial sum of \(microbatches)")
    }
    return sum
  }
}
