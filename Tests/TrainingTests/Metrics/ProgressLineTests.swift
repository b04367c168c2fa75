import Testing

@testable import Training

private final class Terminal {
  var time = 100.0
  var text = ""

  func line(_ style: ProgressLine.Style) -> ProgressLine {
    ProgressLine(style: style, clock: { self.time }, output: { self.text += $0 })
  }
}

@Suite struct ProgressLineTests {
  @Test func `a line tells phase, share, time left, loss, speed and memory`() {
    let progress = ProgressLine.Progress(
      phase: "teach", step: 800, stepCount: 1900, loss: 0.67123, tokensPerSecond: 1834.4,
      byteCount: 3 << 29)
    #expect(
      ProgressLine.text(for: progress, secondsLeft: 185)
        == "teach  42% 800/1900  3m05s left  loss 0.6712  1834 tokens/s  1.5 GiB")
    #expect(
      ProgressLine.text(
        for: .init(phase: "prepare", step: 0, stepCount: 6, byteCount: 5 << 20), secondsLeft: nil)
        == "prepare   0% 0/6  5 MiB")
  }

  @Test func `durations are short`() {
    #expect(
      [0, 59.4, 59.6, 3599.4, 7620].map(ProgressLine.duration)
        == ["0s", "59s", "1m00s", "59m59s", "2h07m"])
    #expect(ProgressLine.duration(.infinity) == "?")
  }

  @Test func `time left follows the steps of this run, not those that were resumed`() {
    let progress = ProgressLine.Progress(phase: "teach", step: 60, stepCount: 100)
    #expect(ProgressLine.secondsLeft(progress, startStep: 50, elapsed: 20) == 80)
    #expect(ProgressLine.secondsLeft(progress, startStep: 60, elapsed: 20) == nil)
  }

  @Test func `elsewhere than on a terminal lines are rare, and the last one is always there`() {
    let terminal = Terminal()
    var line = terminal.line(.plain(interval: 10))
    line.begin(phase: "teach")
    for step in 1...25 {
      terminal.time += 1
      line.update(.init(phase: "teach", step: step, stepCount: 25))
    }
    line.finish()
    #expect(
      terminal.text == """
        teach  40% 10/25  15s left
        teach  80% 20/25  5s left
        teach 100% 25/25  0s left

        """)
    line.finish()
    #expect(terminal.text.split(separator: "\n").count == 3)
  }

  @Test func `on a terminal one line is overwritten, cut to the width and left at the end`() {
    let terminal = Terminal()
    var line = terminal.line(.terminal(width: 20))
    for step in 1...3 {
      terminal.time += 0.06
      line.update(.init(phase: "teach", step: step, stepCount: 3, loss: 1))
    }
    line.finish()
    // 0.06 s apart: the first is shown, the second waits, the third is 0.12 s after the first.
    #expect(
      terminal.text == "\r\u{1B}[2Kteach  33% 1/3  los\r\u{1B}[2Kteach 100% 3/3  0s \n")
  }

  @Test func `another phase leaves the line of the first`() {
    let terminal = Terminal()
    var line = terminal.line(.plain(interval: 10))
    line.update(.init(phase: "teach", step: 1, stepCount: 2))
    line.update(.init(phase: "distill", step: 1, stepCount: 2))
    #expect(terminal.text.hasPrefix("teach  50% 1/2"))
    line.finish()
    #expect(terminal.text.split(separator: "\n").count == 2)
  }
}
