import Checkpoints
import MeshLayout
import ProcessMesh
import Testing
import VideoData

@testable import Training

@Suite struct JobErrorTests {
  /// What each rank gets, as text.
  func outcomes(
    _ size: Int, _ body: @escaping @Sendable (any Transport) throws -> String
  ) throws -> [String] {
    try InProcessMesh.run(size: size) { transport in
      do { return try body(transport) } catch let error as JobError {
        return "\(error.exitCode.rawValue): \(error.message)"
      }
    }
  }

  @Test func `the root's value or error reaches every rank`() throws {
    for size in 1...4 {
      let values = try outcomes(size) { transport in
        try transport.onRoot { () throws -> String in "made on \(transport.rank)" }
      }
      #expect(values == Array(repeating: "made on 0", count: size))
      let errors = try outcomes(size) { transport in
        try transport.onRoot { () throws -> String in
          throw VideoError(.tooShort, "short")
        }
      }
      #expect(errors == Array(repeating: "2: short", count: size))
    }
  }

  @Test func `an error on any rank is thrown on all, and the transport works on`() throws {
    for size in 1...4 {
      for failing in 0..<size {
        let errors = try outcomes(size) { transport in
          do {
            return try transport.onEveryRank { () throws -> String in
              if transport.rank == failing {
                throw CheckpointError(.diskFull, "full on \(failing)")
              }
              return "fine"
            }
          } catch let error as JobError {
            let ranks = try transport.allGather(value: transport.rank)
            return "\(error.message), then \(ranks)"
          }
        }
        #expect(
          errors
            == Array(repeating: "full on \(failing), then \(Array(0..<size))", count: size))
      }
    }
  }

  @Test func `the cause is told, not what it led to on a lower rank`() throws {
    let errors = try outcomes(3) { transport in
      try transport.onEveryRank { () throws -> String in
        switch transport.rank {
        case 0: throw CheckpointError(.notFound, "gone")
        case 1: return "fine"
        default: throw CheckpointError(.diskFull, "full")
        }
      }
    }
    #expect(errors == ["1: full", "1: full", "1: full"])
  }

  @Test func `exit codes follow who can mend it`() {
    let cases: [(any Error, ExitCode)] = [
      (ConfigurationError([.init("a", "b")]), .configuration),
      (VideoError(.missingFile, ""), .configuration), (VideoError(.broken, ""), .configuration),
      (VideoError(.toolMissing, ""), .other), (VideoError(.unwritable, ""), .other),
      (VideoError(.damagedSet, ""), .other), (CheckpointError(.wrongModel, ""), .configuration),
      (CheckpointError(.diskFull, ""), .other), (CheckpointError(.folderInUse, ""), .other),
      (MeshLayoutError(code: .moreRanksThanMicrobatches, message: ""), .configuration),
      (StoppedOnSignal(), .other),
    ]
    for (error, code) in cases { #expect(JobError(error).exitCode == code, "\(error)") }
    #expect(ExitCode.resumeMe.rawValue == 75)
  }

  @Test func `a bad file is a problem of the option that names it`() {
    #expect {
      try blaming("data.text") { throw CheckpointError(.damaged, "torn") }
    } throws: { error in
      (error as? ConfigurationError)?.problems == [ConfigurationProblem("data.text", "torn")]
    }
    #expect(throws: VideoError.self) {
      try blaming("data.text") { throw VideoError(.broken, "") }
    }
  }
}
