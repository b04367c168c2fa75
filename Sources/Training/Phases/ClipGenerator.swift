// Clips from a sampler: the teacher with N steps, or the student with its own few.
//
// A clip is a function of (seed, sampler, clip number), up to the order of sums where ranks make it together: whoever
// makes it makes the same one.

import Basics
package import Diffusion
package import Models
package import Tensors
package import VideoData

/// A row of the tables: who samples, how many steps, by which rule.
package struct NamedSampler: Sendable {
  package enum Role: Sendable { case teacher, student }

  package let name: String
  /// For file names.
  package let slug: String
  package let role: Role
  package let sampler: Sampler

  package init(_ role: Role, steps: Int, rule: SamplerRule, shift: Double) {
    self.role = role
    sampler = Sampler(
      schedule: SamplingSchedule(stepCount: steps, shift: shift), rule: rule)
    let who = role == .teacher ? "teacher" : "student"
    name =
      "\(who), \(steps) \(steps == 1 ? "step" : "steps")"
      + (rule == .renoise && steps > 1 ? ", re-noising" : role == .student ? ", Euler" : "")
    slug = "\(who)-\(steps)" + (role == .student && rule == .euler && steps > 1 ? "-euler" : "")
  }

  /// The samplers of every run: teacher full, teacher few, student few, both with one step. Settings
  /// that make two of them the same leave one.
  package static func all(_ configuration: RunConfiguration) -> [NamedSampler] {
    let options = configuration.distill
    let shift = options.flowShift
    let few = options.generatorSteps
    var result = [
      NamedSampler(
        .teacher, steps: configuration.sample.teacherSteps, rule: .euler, shift: shift),
      NamedSampler(.teacher, steps: few, rule: .euler, shift: shift),
    ]
    if options.method != .euler {
      result.append(
        NamedSampler(.student, steps: few, rule: configuration.sample.rule, shift: shift))
    }
    if few > 1 {
      result.append(NamedSampler(.teacher, steps: 1, rule: .euler, shift: shift))
      if options.method != .euler {
        result.append(NamedSampler(.student, steps: 1, rule: .euler, shift: shift))
      }
    }
    var slugs: Set<String> = []
    return result.filter { slugs.insert($0.slug).inserted }
  }
}

package struct ClipGenerator {
  package let context: RunContext
  package let teacher: ConditionedTransformer<Float>
  package let student: ConditionedTransformer<Float>
  package let codec: any LatentCodec
  /// C, F, H, W.
  package let latentShape: [Int]

  package init(
    context: RunContext, teacher: ConditionedTransformer<Float>,
    student: ConditionedTransformer<Float>, codec: any LatentCodec, latentShape: [Int]
  ) {
    self.context = context
    self.teacher = teacher
    self.student = student
    self.codec = codec
    self.latentShape = latentShape
  }

  /// The latents of the clips of some numbers, one condition each: [numbers, C, F, H, W].
  /// - Collective: over the ranks that compute a microbatch together, all of which get them.
  package func latents(
    _ numbers: [Int], sampler: NamedSampler, conditions: [Condition<Float>]
  ) -> Tensor<Float> {
    let booking = Booking(.common, .activations)
    let noise: Tensor<Float> = normalTensor(
      numbers.map { RandomStream(seed: context.seed, purpose: .samplingNoise, sample: $0) },
      sampleShape: latentShape, in: context.arena, booking: booking)
    let model = sampler.role == .teacher ? teacher : student
    return sampler.sampler.sample(
      from: noise,
      denoiser: BoundDenoiser(model, conditions: conditions, sequence: context.sequence),
      on: context.tape(sampler.role == .teacher ? .base : .generator, isRecording: false)
    ) { step in
      normalTensor(
        numbers.map {
          RandomStream(
            seed: context.seed, purpose: .samplingRenoise, step: step, sample: $0)
        }, sampleShape: latentShape, in: context.arena, booking: booking)
    }
  }

  /// The clip at a position of latents.
  package func clip(_ position: Int, of latents: Tensor<Float>) -> Video {
    codec.decode(
      Latents(
        channelCount: latentShape[0], frameCount: latentShape[1], height: latentShape[2],
        width: latentShape[3], values: latents.rows(position..<(position + 1)).array))
  }
}
