import Foundation
import TestSupport
import Testing

@testable import Training

private func record(_ phase: String, _ step: Int) -> MetricsRecord {
  MetricsRecord(
    phase: phase, step: step, loss: 1 / Double(step), tokensPerSecond: 10, seconds: 0.5,
    peakByteCount: 7)
}

@Suite struct MetricsLogTests {
  @Test func `a line holds the fixed fields first and numbers that read back to the same bits`() {
    let record = MetricsRecord(
      phase: "te\"ach\n", step: 3, loss: 0.1 + 0.2, tokensPerSecond: 1e300,
      seconds: .leastNonzeroMagnitude,
      peakByteCount: 1 << 40,
      further: [
        ("critic_loss", .number(.nan)), ("skipped", .integer(-1)), ("note", .text("é\u{1}\\")),
      ])
    #expect(
      record.jsonLine
        == #"{"phase":"te\"ach\n","step":3,"loss":0.30000000000000004,"tokens_per_s":1e+300,"#
        + #""seconds":5e-324,"peak_bytes":1099511627776,"critic_loss":null,"skipped":-1,"#
        + #""note":"é\u0001\\"}"#)
  }

  @Test func `a line is JSON`() throws {
    for loss in [0.1, -0.0, 1.0 / 3, 2.2250738585072014e-308, 1.7976931348623157e308] {
      var record = record("teach", 1)
      record.loss = loss
      let object = try JSONSerialization.jsonObject(with: Data(record.jsonLine.utf8))
      let read = (object as? [String: Any])?["loss"] as? NSNumber
      #expect(read?.doubleValue == loss)
    }
  }

  @Test func `a resumed run's file equals that of an undisturbed one`() throws {
    try withTemporaryFolder { folder in
      let undisturbed = folder.appending(path: "a.jsonl")
      let disturbed = folder.appending(path: "b.jsonl")
      let all = (1...5).map { record("teach", $0) } + (1...4).map { record("distill", $0) }
      let log = try MetricsLog(url: undisturbed)
      for record in all { try log.append(record) }
      let expected = try Data(contentsOf: undisturbed)

      // Killed after every possible number of bytes, with a checkpoint of distill step 2 (and of
      // teach step 3 while it was that early).
      let reached = all.prefix(7).reduce(0) { $0 + $1.jsonLine.utf8.count + 1 }
      let early = all.prefix(3).reduce(0) { $0 + $1.jsonLine.utf8.count + 1 }
      for length in stride(from: early, through: expected.count, by: 7) {
        try expected.prefix(length).write(to: disturbed)
        let isLate = length >= reached
        let resumed = try MetricsLog(
          url: disturbed,
          resumingAt: isLate
            ? .init(phase: "distill", step: 2)
            : .init(phase: "teach", step: 3, laterPhases: ["distill"]))
        for record in all.dropFirst(isLate ? 7 : 3) { try resumed.append(record) }
        #expect(try Data(contentsOf: disturbed) == expected, "killed after \(length) bytes")
      }
    }
  }

  @Test func `steps after the checkpoint go, other phases and whole lines stay`() {
    let lines = """
      {"phase":"teach","step":1}
      {"phase":"teach","step":2}
      {"phase":"teach","st{"phase":"teach","step":2}
      {"phase":"distill","step":9}
      {"phase":"teach","step":3}
      {"phase":"teach","step":
      """
    let trimmed = MetricsLog.trimmed(Array(lines.utf8), to: .init(phase: "teach", step: 1))
    #expect(
      String(decoding: trimmed, as: UTF8.self)
        == "{\"phase\":\"teach\",\"step\":1}\n{\"phase\":\"distill\",\"step\":9}\n")
    #expect(MetricsLog.trimmed(Array("{\"phase\":\"a\",\"step\":1}".utf8), to: nil) == [])
    #expect(MetricsLog.trimmed([], to: nil) == [])
  }

  @Test func `a file that needs no trimming is not rewritten`() throws {
    try withTemporaryFolder { folder in
      let url = folder.appending(path: "metrics.jsonl")
      try MetricsLog(url: url).append(record("teach", 1))
      func inode() throws -> NSNumber? {
        try FileManager.default.attributesOfItem(atPath: url.path)[.systemFileNumber] as? NSNumber
      }
      let before = try inode()
      _ = try MetricsLog(url: url, resumingAt: .init(phase: "teach", step: 1))
      #expect(try inode() == before)
    }
  }

  @Test func `a folder that is not there is an error`() throws {
    try withTemporaryFolder { folder in
      let error = #expect(throws: MetricsError.self) {
        try MetricsLog(url: folder.appending(path: "none/metrics.jsonl"))
      }
      #expect(error?.code == .cannotOpen)
    }
  }
}
