// One AdamW step over a range of the flat parameters, with the moving average in the same pass.
//
// Every element is computed alone, so a range may be split anywhere without changing a bit: that is
// what lets ranks own shards. Source: "Decoupled weight decay regularization" (1711.05101), alg. 2.

import CKernels
import Foundation

package enum AdamW {
  /// What one step needs besides the buffers. Derived factors are computed in Float64.
  package struct Step: Hashable, Sendable {
    /// 1 for the first step; enters the bias corrections 1 − β^t.
    package var number: Int
    package var learningRate: Double
    package var beta1 = 0.9
    package var beta2 = 0.999
    package var epsilon = 1e-8
    /// Decoupled: parameters are multiplied by 1 − learningRate · weightDecay.
    package var weightDecay = 0.01
    /// Multiplies the gradients first, for clipping by the global norm and for means over samples.
    package var gradientScale: Float = 1
    /// ema = emaDecay · ema + (1 − emaDecay) · new parameters.
    package var emaDecay: Float = 0.999

    package init(number: Int, learningRate: Double) {
      self.number = number
      self.learningRate = learningRate
    }
  }

  /// m = β₁ m + (1 − β₁) g, v = β₂ v + (1 − β₂) g²,
  /// p = p (1 − lr · wd) − lr / (1 − β₁ᵗ) · m / (√v / √(1 − β₂ᵗ) + ε); then the moving average.
  package static func update(
    parameters: Buffer<Float>, gradients: Buffer<Float>, firstMoment: Buffer<Float>,
    secondMoment: Buffer<Float>, ema: Buffer<Float>?, step: Step
  ) {
    let count = parameters.count
    requireCount(gradients.count, count, "gradients")
    requireCount(firstMoment.count, count, "firstMoment")
    requireCount(secondMoment.count, count, "secondMoment")
    if let ema { requireCount(ema.count, count, "ema") }
    precondition(step.number >= 1, "AdamW step \(step.number), but steps count from 1")
    let correction1 = 1 - pow(step.beta1, Double(step.number))
    let correction2 = 1 - pow(step.beta2, Double(step.number))
    let factors = w2svd_adamw_factors(
      gradient_scale: step.gradientScale, beta1: Float(step.beta1), beta2: Float(step.beta2),
      step_size: Float(step.learningRate / correction1),
      inverse_root_correction: Float(1 / correction2.squareRoot()), epsilon: Float(step.epsilon),
      decay_factor: Float(1 - step.learningRate * step.weightDecay), ema_decay: step.emaDecay)
    KernelThreads.splitElements(count) { part in
      let start = part.lowerBound
      unsafe withUnsafePointer(to: factors) { factors in
        unsafe w2svd_adamw(
          parameters.base + start, gradients.base + start, firstMoment.base + start,
          secondMoment.base + start, (ema?.base).map { unsafe $0 + start }, part.count, factors)
      }
    }
  }
}
