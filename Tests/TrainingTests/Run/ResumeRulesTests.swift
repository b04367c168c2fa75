import Exchange
import Foundation
import Testing

@testable import Training

@Suite struct ResumeRulesTests {
  func problems(
    phase: String, _ change: (inout RunConfiguration) -> Void
  ) -> [String] {
    do {
      try ResumeRules.check(
        TinyRun.configuration(change), against: TinyRun.configuration().yaml, phase: phase,
        folder: URL(filePath: "/run/step"))
      return []
    } catch let error as ConfigurationError {
      return error.problems.map(\.key)
    } catch {
      return ["\(error)"]
    }
  }

  @Test func `what changes the way of working may change, what changes the result may not`() {
    for phase in [TeachPhase.name, DistillPhase.name] {
      #expect(problems(phase: phase) { _ in }.isEmpty)
      #expect(
        problems(phase: phase) {
          $0.checkpoint.everySteps = 7
          $0.exchange.codec = .off
          $0.mesh.zero = .fixed(2)
          $0.log.everySeconds = 1
          $0.evaluate.samples = 9
          $0.model.recompute = true
        }.isEmpty)
      #expect(
        problems(phase: phase) {
          $0.seed = 9
          $0.batch.samples = 3
          $0.teach.steps = 8
        } == ["seed", "batch.samples", "teach.steps"])
      // How sums are made changes their last bits, and with them the run.
      #expect(
        problems(phase: phase) {
          $0.mesh.sp = .fixed(2)
          $0.mesh.sums = .canonical
        } == ["mesh.sums"])
    }
  }

  @Test func `a run keeps the precision that it began with`() throws {
    for isFast in [false, true] {
      for made in [nil, RunConfiguration.PrecisionChoice.auto] {
        #expect(
          try PrecisionRule.resolve(.auto, made: made, isFast: isFast) == (isFast ? .bf16 : .fp32))
      }
      #expect(try PrecisionRule.resolve(.auto, made: .fp32, isFast: isFast) == .fp32)
      #expect(try PrecisionRule.resolve(.bf16, made: .bf16, isFast: isFast) == .bf16)
      #expect((PrecisionRule.warning(.bf16, isFast: isFast) == nil) == isFast)
      #expect(PrecisionRule.warning(.fp32, isFast: isFast) == nil)
    }
    #expect(try PrecisionRule.resolve(.auto, made: .bf16, isFast: true) == .bf16)
    let error = #expect(throws: ConfigurationError.self) {
      try PrecisionRule.resolve(.auto, made: .bf16, isFast: false)
    }
    #expect(error?.problems.map(\.key) == ["compute.precision"])
    #expect("\(error as Any)".contains("set compute.precision=bf16"))
  }

  @Test func `another precision than the checkpoint's is refused, auto is its`() throws {
    func keys(_ now: RunConfiguration.PrecisionChoice, _ saved: String) -> [String] {
      do {
        try ResumeRules.check(
          TinyRun.configuration {
            $0.compute.precision = now
            $0.distill.depths = .shared
            $0.distill.schedule = .constant
          }, against: saved, phase: DistillPhase.name, folder: URL(filePath: "/run/step"))
        return []
      } catch let error as ConfigurationError {
        return error.problems.map(\.key)
      } catch {
        return ["\(error)"]
      }
    }
    let made = TinyRun.configuration {
      $0.compute.precision = .fp32
      $0.distill.depths = .shared
      $0.distill.schedule = .constant
    }.yaml
    // As written before there were these options.
    let later = ["precision:", "threads:", "packedWeights:", "compute:", "depths:", "schedule:"]
    let old = made.split(separator: "\n").filter { !later.contains(where: $0.contains) }
      .joined(separator: "\n")
    for saved in [made, old] {
      #expect(keys(.auto, saved).isEmpty)
      #expect(keys(.fp32, saved).isEmpty)
      #expect(keys(.bf16, saved) == ["compute.precision"])
    }
    #expect(problems(phase: DistillPhase.name) { $0.compute.precision = .bf16 }.isEmpty)
  }

  @Test func `a checkpoint of the teach phase serves any distillation`() {
    func change(_ configuration: inout RunConfiguration) {
      configuration.distill.method = .lcm
      configuration.sample.clips = 3
    }
    #expect(problems(phase: TeachPhase.name, change).isEmpty)
    #expect(problems(phase: DistillPhase.name, change) == ["distill.method", "sample.clips"])
  }
}
