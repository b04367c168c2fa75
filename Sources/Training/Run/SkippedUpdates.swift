// Updates that were left out because a gradient was not finite: the first of a row is told, and a row
// that does not end ends the job, since nothing is learned any more.

struct SkippedUpdates {
  /// Updates of one network that may be left out in a row.
  static let limit = 50

  private var rows: [String: Int] = [:]

  /// Whether a row of some network goes on.
  var isSkipping: Bool { rows.values.contains { $0 > 0 } }

  /// - Parameter step: counted from 0.
  /// - Returns: what to tell the user, if anything.
  /// - Throws: `JobError` at the end of the longest row that is borne.
  mutating func note(
    _ outcome: StepOutcome, of network: String, in phase: String, step: Int
  ) throws(JobError) -> String? {
    guard outcome == .skippedNonFinite else {
      rows[network] = 0
      return nil
    }
    let count = rows[network, default: 0] + 1
    rows[network] = count
    if count >= Self.limit {
      throw JobError(
        exitCode: .other,
        "\(phase): the gradients of the last \(count) updates of the \(network) were not finite, the "
          + "last at step \(step + 1), so it learns nothing any more; the checkpoints of before are "
          + "kept. Start anew with a smaller learning rate, under another --run")
    }
    return count == 1
      ? "\(phase) step \(step + 1): the gradient of the \(network) is not finite, so this update is "
        + "left out" : nil
  }
}
