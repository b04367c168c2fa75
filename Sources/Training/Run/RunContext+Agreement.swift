// What the ranks of a run tell each other between turns: losses, what was sent, wishes to stop, and failures.

import Basics
import Exchange
import MeshLayout
import ProcessMesh

extension RunContext {
  /// What all ranks know after a step.
  package struct StepAgreement: Sendable {
    /// Loss of each microbatch, in order.
    package let losses: [Double]
    /// Further numbers of each microbatch by name, in the same order.
    package let readings: [String: [Double]]
    /// What became of the step's updates, by network, as the ranks that made them tell.
    package let outcomes: [String: StepOutcome]
    package let shouldStop: Bool
    /// Resident memory at its peak, summed over ranks.
    package let peakByteCount: Int

    /// The mean in the fixed tree, the same bits on any number of ranks.
    package var meanLoss: Double { Self.sum(losses) / Double(max(losses.count, 1)) }

    /// The sum of a reading over all microbatches, in the fixed tree; 0 where there is none.
    package func sum(of name: String) -> Double { Self.sum(readings[name] ?? []) }

    /// The mean of a reading over all microbatches, in the fixed tree; 0 where there is none.
    package func mean(of name: String) -> Double {
      sum(of: name) / Double(max(readings[name]?.count ?? 0, 1))
    }

    private static func sum(_ values: [Double]) -> Double { treeReduce(values, combine: +) ?? 0 }
  }

  /// What this rank has sent since the last call.
  private func takeOwnTraffic() -> ExchangeStatistics {
    var sent = ranks.takeStatistics()
    if let roles { sent += roles.takeStatistics() }
    return sent
  }

  /// Joins the losses and other numbers of all microbatches, and the wishes to stop.
  /// - Parameters:
  ///   - losses: of this rank's microbatches, in order.
  ///   - readings: further numbers of them by name, in the same order.
  ///   - outcomes: updates that this rank took part in, by network.
  ///   - set: the ranks whose microbatches the numbers belong to; nil: all ranks training together.
  /// - Throws: `JobError`, on every rank, what any rank's `attempt` has failed at.
  /// - Collective: over the transport, once a turn.
  package func agreeOnStep(
    losses: [Double], readings: [String: [Double]] = [:], outcomes: [String: StepOutcome] = [:],
    in set: RankSet? = nil
  ) throws -> StepAgreement {
    if let abandonment { throw abandonment }
    try finishWorkBeside()
    let set = set ?? ranks
    // Others may have computed these microbatches with this rank.
    let isSpeaker = set.isSpeaker
    let reports = try transport.allGather(
      value: StepReport(
        microbatches: set.microbatches,
        lossBits: isSpeaker ? losses.map(\.bitPattern) : [],
        readingBits: readings.mapValues { isSpeaker ? $0.map(\.bitPattern) : [] },
        outcomes: outcomes,
        wantsStop: isStopRequested(),
        peakByteCount: ResourceUsage.current()?.peakByteCount ?? 0,
        traffic: takeOwnTraffic(), failure: failure))
    reports.forEach { traffic += $0.traffic }
    if let failure = reports.lazy.compactMap(\.failure).first { throw failure }
    let names = reports.reduce(into: Set()) { $0.formUnion($1.readingBits.keys) }
    return StepAgreement(
      losses: Self.inOrder(reports.map { ($0.microbatches, $0.lossBits) }),
      readings: Dictionary(
        uniqueKeysWithValues: names.map { name in
          (name, Self.inOrder(reports.map { ($0.microbatches, $0.readingBits[name] ?? []) }))
        }),
      outcomes: reports.reduce(into: [:]) { $0.merge($1.outcomes) { first, _ in first } },
      shouldStop: reports.contains(where: \.wantsStop),
      peakByteCount: reports.reduce(0) { $0 + $1.peakByteCount })
  }

  /// The numbers of all microbatches in their order, given those of each rank in its order.
  private static func inOrder(_ parts: [(microbatches: [Int], bits: [UInt64])]) -> [Double] {
    parts.flatMap { Array(zip($0.microbatches, $0.bits)) }.sorted { $0.0 < $1.0 }
      .map { Double(bitPattern: $0.1) }
  }

  /// Tells all ranks what each has sent since the last agreement.
  /// - Collective: over the transport.
  func joinTraffic() throws {
    try transport.allGather(value: takeOwnTraffic()).forEach { traffic += $0 }
  }

  /// What all ranks have sent since the last call, as far as agreements told.
  func takeTraffic() -> ExchangeStatistics { traffic.take() }

  /// Whether the last update of some network was left out because its gradient was not finite.
  var isSkipping: Bool { skips.isSkipping }

  /// Takes note of an update, which all ranks know alike: says when the first in a row is left out.
  /// - Throws: `JobError`, on every rank, when too many in a row are.
  func note(_ outcome: StepOutcome, of network: String, in phase: String, step: Int) throws {
    if let word = try skips.note(outcome, of: network, in: phase, step: step) {
      reporter.say(word)
    }
  }

  /// Does what this rank does alone, between collectives. All ranks hear of a failure at the next
  /// agreement, or before the next checkpoint, so that none counts a step that is not written down.
  func attempt(_ body: () throws -> Void) {
    guard failure == nil else { return }
    do { try body() } catch { failure = JobError(error) }
  }

  /// Does what other ranks take part in, in the middle of a pass, which cannot throw. A rank that fails at it
  /// is out of step with the others, who would wait for it: it ends the job for all.
  func exchangeInPass(_ body: () throws -> Void) {
    guard abandonment == nil else { return }
    do {
      try body()
    } catch {
      abandonment = error
      transport.abandon(error)
    }
  }

  /// Moves on what goes on beside a pass.
  func advanceWorkBeside() {
    exchangeInPass {
      try ranks.advance()
      try roles?.ranks.advance()
    }
  }

  /// Waits for it: all ranks may leave after an agreement.
  private func finishWorkBeside() throws {
    try ranks.finishWorkBeside()
    try roles?.ranks.finishWorkBeside()
  }

  /// - Throws: `JobError`, on every rank, what an `attempt` of any rank has failed at.
  /// - Collective: over the transport.
  func throwSharedFailure() throws {
    if let abandonment { throw abandonment }
    try finishWorkBeside()
    let failures = try transport.allGather(value: failure)
    if let failure = failures.lazy.compactMap(\.self).first { throw failure }
  }

  /// - Throws: what an `attempt` of this rank has failed at.
  func throwFailure() throws {
    if let failure { throw failure }
  }

  /// Leaves, on all ranks, when any was asked to stop. What was finished is on the disk.
  /// - Collective: over the transport.
  func stopIfAsked() throws {
    if try agreeOnStep(losses: []).shouldStop { throw StoppedOnSignal() }
  }

  private struct StepReport: Codable {
    let microbatches: [Int]
    let lossBits: [UInt64]
    let readingBits: [String: [UInt64]]
    let outcomes: [String: StepOutcome]
    let wantsStop: Bool
    let peakByteCount: Int
    let traffic: ExchangeStatistics
    let failure: JobError?
  }
}

/// All ranks saved and leave, to be started again.
package struct StoppedOnSignal: Error {
  package init() {}
}
