// The seam for pipeline stages: a network runs a contiguous stretch of its blocks, on token states that come from the
// stage before, and hands its own on. Who the others are, and in which order they compute, nobody here knows.
// Where the tokens of a stage are cut, a state is that of own tokens, and comes from who has the same ones.
//
// What comes before the blocks (patches, condition, text) is run by the first stage, the projection by the
// last. All stages run the same passes with the same latents, and all get the velocity, or what a pass gives instead
// (`features`), from the stage that makes it.
// Source: GPipe (1811.06965) §2; 1F1B: PipeDream (1806.03377) §3.2.

package import Autodiff
package import DenseKernels

/// One stage's view of a pass. All operations differentiate.
package protocol PipelineStage<Scalar>: AnyObject {
  associatedtype Scalar: KernelScalar

  var isFirst: Bool { get }
  var isLast: Bool { get }

  /// Own blocks of `count`: contiguous, at least one.
  func blocks(of count: Int) -> Range<Int>

  /// The state that the stage before has handed on. On the way back its gradient goes there.
  func receive(_ shapes: [[Int]], on tape: Tape<Scalar>) -> [Value<Scalar>]

  /// Hands the state on to the next stage, and lets go of it; returns the velocity that the last stage makes of it. On
  /// the way back the gradient of the velocity is that of all stages, and the state's comes from the next one.
  func handOn(
    _ state: consuming [Value<Scalar>], velocityShape: [Int], on tape: Tape<Scalar>
  ) -> Value<Scalar>

  /// Tells the other stages the velocity; the last stage alone.
  func publish(_ velocity: Value<Scalar>)

  // MARK: Features

  /// Where this stage is among all.
  var stageIndex: Int { get }
  /// Which stage runs a block of `count`.
  func stage(ofBlock block: Int, of count: Int) -> Int

  /// As the other `handOn`, with features that a later stage makes of the state.
  func handOn(
    _ state: consuming [Value<Scalar>], featuresShape: [Int], of stage: Int,
    on tape: Tape<Scalar>
  ) -> Value<Scalar>

  /// Features that an earlier stage makes; nothing of them is on the way back here.
  func receiveFeatures(_ shape: [Int], of stage: Int, on tape: Tape<Scalar>) -> Value<Scalar>

  /// Tells the other stages the features; the stage that makes them alone.
  func publish(features: Value<Scalar>)

  /// The same latents, whose gradient the first stage finds on the way back and tells all others. All stages come to
  /// it, also those that are no part of the pass.
  func sharingGradient(of latents: Value<Scalar>, on tape: Tape<Scalar>) -> Value<Scalar>
}
