import Testing

@testable import Training

@Suite struct SkippedUpdatesTests {
  @Test func `the first of a row is told, the fiftieth ends the job, an update ends the row`()
    throws
  {
    let done = StepOutcome.updated(gradientNorm: 1, clippedTo: nil)
    var skips = SkippedUpdates()
    var words: [String] = []
    func note(_ outcome: StepOutcome, of network: String, step: Int) throws {
      if let word = try skips.note(outcome, of: network, in: "distill", step: step) {
        words.append(word)
      }
    }
    for step in 0..<49 { try note(.skippedNonFinite, of: "fake DiT", step: step) }
    // Rows of two networks are two rows.
    try note(.skippedNonFinite, of: "generator", step: 49)
    #expect(skips.isSkipping)
    try note(done, of: "fake DiT", step: 49)
    #expect(skips.isSkipping)
    try note(done, of: "generator", step: 50)
    #expect(!skips.isSkipping)
    #expect(words.count == 2)
    #expect(words[0].contains("distill step 1: the gradient of the fake DiT is not finite"))
    #expect(words[1].contains("distill step 50: the gradient of the generator"))

    for step in 51..<100 { try note(.skippedNonFinite, of: "fake DiT", step: step) }
    let error = #expect(throws: JobError.self) {
      try note(.skippedNonFinite, of: "fake DiT", step: 100)
    }
    #expect(error?.exitCode == .other)
    #expect(error?.message.contains("last 50 updates of the fake DiT") == true)
    #expect(words.count == 3)
  }
}
