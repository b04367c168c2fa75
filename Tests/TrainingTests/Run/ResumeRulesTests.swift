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
        }.isEmpty)
      #expect(
        problems(phase: phase) {
          $0.seed = 9
          $0.batch.samples = 3
          $0.teach.steps = 8
        } == ["seed", "batch.samples", "teach.steps"])
    }
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
