import Testing

@testable import Training

@Suite struct ClipGeneratorTests {
  @Test(arguments: [(28, 4), (4, 4), (1, 4), (1, 1), (28, 1)])
  func `no two samplers of a run have one name, whatever the numbers of steps`(
    _ teacherSteps: Int, _ studentSteps: Int
  ) {
    for method in RunConfiguration.Method.allCases {
      var configuration = RunConfiguration()
      configuration.distill.method = method
      configuration.distill.generatorSteps = studentSteps
      configuration.sample.teacherSteps = teacherSteps
      let slugs = NamedSampler.all(configuration).map(\.slug)
      #expect(Set(slugs).count == slugs.count, "\(slugs)")
      #expect(slugs.contains("teacher-\(teacherSteps)"))
      #expect(slugs.contains("teacher-1"))
      #expect(slugs.contains("student-\(studentSteps)") == (method != .euler))
    }
  }
}
