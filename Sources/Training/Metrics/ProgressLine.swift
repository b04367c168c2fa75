// What a person sees of a running phase: one line that refreshes itself on a terminal, and a plain
// line every few seconds elsewhere, so that logs of batch jobs stay short.

import Foundation

package struct ProgressLine {
  /// How a phase stands after a step.
  package struct Progress: Hashable, Sendable {
    package var phase: String
    package var step: Int
    package var stepCount: Int
    package var loss: Double?
    package var tokensPerSecond: Double?
    package var byteCount: Int?

    package init(
      phase: String, step: Int, stepCount: Int, loss: Double? = nil,
      tokensPerSecond: Double? = nil, byteCount: Int? = nil
    ) {
      self.phase = phase
      self.step = step
      self.stepCount = stepCount
      self.loss = loss
      self.tokensPerSecond = tokensPerSecond
      self.byteCount = byteCount
    }
  }

  package enum Style: Hashable, Sendable {
    /// One line that is overwritten, cut to the width of the terminal.
    case terminal(width: Int)
    /// Lines at most every `interval` seconds.
    case plain(interval: Double)

    /// `terminal` when standard output is one, else `plain` every 10 seconds.
    package static var ofStandardOutput: Self {
      guard isatty(STDOUT_FILENO) == 1 else { return .plain(interval: 10) }
      let columns = ProcessInfo.processInfo.environment["COLUMNS"].flatMap(Int.init)
      return .terminal(width: max(columns ?? 80, 20))
    }
  }

  /// Between two refreshes of a terminal line, in seconds.
  static let refreshInterval = 0.1

  private let style: Style
  private let clock: () -> Double
  private let output: (String) -> Void
  private var phase: String?
  private var startTime = 0.0
  private var startStep = 0
  private var lastOutputTime = -Double.infinity
  private var latest: Progress?
  private var latestIsShown = true

  /// - Parameters:
  ///   - clock: seconds that only grow.
  ///   - output: writes text as it is, without adding a newline, and flushes.
  package init(
    style: Style, clock: @escaping () -> Double, output: @escaping (String) -> Void
  ) {
    self.style = style
    self.clock = clock
    self.output = output
  }

  /// Starts the clock of a phase whose first `step` steps are there already.
  package mutating func begin(phase: String, step: Int = 0) {
    finish()
    self.phase = phase
    startTime = clock()
    startStep = step
    lastOutputTime = style.isTerminal ? -.infinity : startTime
  }

  /// Shows the progress when it is time to; a phase that was not begun begins here.
  package mutating func update(_ progress: Progress) {
    if phase != progress.phase { begin(phase: progress.phase, step: max(progress.step - 1, 0)) }
    latest = progress
    latestIsShown = false
    let interval =
      switch style {
      case .terminal: Self.refreshInterval
      case .plain(let interval): interval
      }
    if clock() - lastOutputTime >= interval { show(progress) }
  }

  /// Shows the last progress of the phase if it was not, and leaves the line.
  package mutating func finish() {
    if let latest, !latestIsShown { show(latest) }
    if latest != nil, style.isTerminal { output("\n") }
    phase = nil
    latest = nil
    latestIsShown = true
  }

  private mutating func show(_ progress: Progress) {
    let now = clock()
    let text = Self.text(
      for: progress,
      secondsLeft: Self.secondsLeft(progress, startStep: startStep, elapsed: now - startTime))
    switch style {
    case .terminal(let width): output("\r\u{1B}[2K" + String(text.prefix(width - 1)))
    case .plain: output(text + "\n")
    }
    lastOutputTime = now
    latestIsShown = true
  }

  // MARK: Pure parts

  /// Time for the steps left at the mean rate since `startStep`; nil while nothing was measured.
  static func secondsLeft(_ progress: Progress, startStep: Int, elapsed: Double) -> Double? {
    guard progress.step > startStep, elapsed > 0 else { return nil }
    let left = max(progress.stepCount - progress.step, 0)
    return elapsed / Double(progress.step - startStep) * Double(left)
  }

  /// `teach  42% 800/1900  3m05s left  loss 0.6712  1.8k tokens/s  1.4 GiB`.
  static func text(for progress: Progress, secondsLeft: Double?) -> String {
    let share =
      progress.stepCount > 0
      ? min(max(progress.step, 0), progress.stepCount) * 100 / progress.stepCount : 100
    let percent = String(repeating: " ", count: share < 10 ? 2 : share < 100 ? 1 : 0) + "\(share)%"
    var parts = ["\(progress.phase) \(percent) \(progress.step)/\(progress.stepCount)"]
    if let secondsLeft { parts.append("\(duration(secondsLeft)) left") }
    if let loss = progress.loss { parts.append("loss \(String(format: "%.4f", loss))") }
    if let rate = progress.tokensPerSecond {
      parts.append(
        rate >= 10_000
          ? String(format: "%.1fk tokens/s", rate / 1000) : String(format: "%.0f tokens/s", rate))
    }
    if let bytes = progress.byteCount {
      let gibibytes = Double(bytes) / 0x1p30
      parts.append(
        gibibytes >= 1
          ? String(format: "%.1f GiB", gibibytes)
          : String(format: "%.0f MiB", Double(bytes) / 0x1p20))
    }
    return parts.joined(separator: "  ")
  }

  /// `45s`, `3m05s`, `2h07m`.
  static func duration(_ seconds: Double) -> String {
    guard seconds.isFinite, seconds < 1e9 else { return "?" }
    let whole = Int(max(seconds, 0).rounded())
    if whole < 60 { return "\(whole)s" }
    return whole < 3600
      ? String(format: "%dm%02ds", whole / 60, whole % 60)
      : String(format: "%dh%02dm", whole / 3600, whole % 3600 / 60)
  }
}

extension ProgressLine.Style {
  fileprivate var isTerminal: Bool {
    if case .terminal = self { true } else { false }
  }
}
