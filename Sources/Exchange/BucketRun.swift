// One exchange of a flat vector on its way, bucket by bucket: while bucket i travels, bucket i - 1 is
// finished and bucket i + 1 is coded.
//
// It moves on whenever somebody gives it a moment (`advance`), so that other work may go on beside it, or is
// waited for (`finish`). Runs of one exchange follow each other in the order of their starts, which is the same on all
// ranks, whatever each of them computes meanwhile.

import Compression
import MessagePassing
import ProcessMesh

/// An exchange that has been started. All ranks of the group start and finish the same ones in the same order.
package final class BucketRun {
  /// The messages of one bucket.
  enum Outgoing {
    /// By receiver; empty for this rank.
    case toEach([Payload])
    /// The same for all peers.
    case toAll(Payload)
  }

  /// What decoding one bucket took, coded messages apart.
  struct Received {
    var seconds = 0.0
    var codedRawByteCount = 0
    var codedSeconds = 0.0
  }

  typealias Code = (Int, inout ExchangeStatistics.Traffic) -> Outgoing
  typealias Finish = (Int, [Payload], inout Received) throws -> Void

  /// What is done for each bucket; nil when all is done, so that nothing is held any longer.
  private struct Work {
    let bucketCount: Int
    let prepare: () -> Void
    let code: Code
    let finish: Finish
    let completion: () -> Void
  }

  let operation: ExchangeOperation
  let kind: TrafficKind
  private unowned let exchange: BucketExchange
  private var work: Work?
  /// The bucket that is on its way, and what it took so far.
  private var bucket = 0
  private var pending: PendingOperation?
  private var sent = ExchangeStatistics.Traffic()
  /// The bucket after it.
  private var outgoing: Outgoing?
  private var next = ExchangeStatistics.Traffic()

  /// - Parameters:
  ///   - prepare: called once, before the first bucket leaves.
  ///   - completion: called once, when all buckets are finished.
  init(
    _ operation: ExchangeOperation, _ kind: TrafficKind, bucketCount: Int,
    of exchange: BucketExchange, prepare: @escaping () -> Void, code: @escaping Code,
    finish: @escaping Finish, completion: @escaping () -> Void
  ) {
    self.operation = operation
    self.kind = kind
    self.exchange = exchange
    work = Work(
      bucketCount: bucketCount, prepare: prepare, code: code, finish: finish,
      completion: completion)
  }

  package var isFinished: Bool { work == nil }
  /// Whether its first bucket has left.
  private(set) var hasBegun = false

  /// Waits until it, and what was started before it, is through.
  /// - Throws: what the transport throws; `CompressionError` when a message is damaged.
  package func finish() throws { try exchange.finish(self) }

  // MARK: For the exchange

  /// Sends the first bucket.
  func begin() throws {
    guard let work else { return }
    hasBegun = true
    work.prepare()
    if work.bucketCount == 0 { return complete(work) }
    outgoing = work.code(0, &next)
    try send(work)
  }

  /// Does what can be done without waiting.
  func advance() throws {
    while let work, try pending?.advance() ?? false {
      if let operation = pending.take() { try handle(operation.wait(), work) }
    }
  }

  /// Waits for all buckets.
  /// - Parameter isAlone: whether nothing else was done since it began, so that its waits say what the link does.
  func runToEnd(isAlone: Bool) throws {
    let clock = ContinuousClock()
    while let work {
      guard let operation = pending.take() else { return }
      let waiting = clock.now
      let arrived = try operation.wait()
      sent.waitSeconds += (clock.now - waiting).inSeconds
      // The first wait is mostly for ranks that arrive late, which says nothing of the link.
      if isAlone && (bucket > 0 || work.bucketCount == 1) {
        exchange.recordTransfer(self, sent)
      }
      try handle(arrived, work)
    }
  }

  /// Lets go of everything on the way out with an error.
  func abandon() {
    if let operation = pending.take() { operation.abandon() }
    work = nil
  }

  // MARK: Parts

  /// Sends the bucket that was coded last.
  private func send(_ work: Work) throws {
    guard let messages = outgoing.take() else { return }
    sent = next
    next = ExchangeStatistics.Traffic()
    let clock = ContinuousClock()
    let starting = clock.now
    pending = try exchange.start(messages)
    sent.waitSeconds += (clock.now - starting).inSeconds
    if bucket == 0 { codeNext(work) }
  }

  private func codeNext(_ work: Work) {
    if bucket + 1 < work.bucketCount { outgoing = work.code(bucket + 1, &next) }
  }

  /// Bucket `bucket` is here: the next one leaves before it is finished.
  private func handle(_ arrived: [Payload], _ work: Work) throws {
    exchange.statistics[kind] += sent
    let here = bucket
    bucket += 1
    if bucket < work.bucketCount { try send(work) }
    var received = Received()
    try work.finish(here, arrived, &received)
    exchange.note(received, of: self)
    if bucket == work.bucketCount { return complete(work) }
    codeNext(work)
  }

  private func complete(_ work: Work) {
    self.work = nil
    work.completion()
  }
}
