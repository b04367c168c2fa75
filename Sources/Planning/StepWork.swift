// What a rank does in a step, counted by the twins: what a time is made of (`StepTime`).

/// Sums over a step, or means over steps, of one rank.
package struct StepWork: Codable, Equatable, Sendable {
  /// Floating-point operations of matrix products and attention.
  package var operationCount = 0.0
  /// Of these, those of attention.
  package var attentionOperationCount = 0.0
  /// Bytes that elementwise operations read and write; each operand counts once.
  package var movedByteCount = 0.0
  /// Bytes that optimizers read and write.
  package var optimizerByteCount = 0.0
  /// Bytes of activations sent to other ranks.
  package var sentByteCount = 0.0
  package var messageCount = 0.0
  /// How often it waits for activations of others: exchanges inside blocks, states, velocities and gradients of stages.
  package var waitCount = 0.0
  /// Bytes read and written where a block's elements are copied out of the own shard, and gradients into it.
  package var copiedByteCount = 0.0
  /// Bytes of gradients and parameters sent to other ranks, before coding.
  package var updateByteCount = 0.0
  package var updateMessageCount = 0.0
  /// Of both, what can travel while something is computed.
  package var besideByteCount = 0.0
  package var besideMessageCount = 0.0
  package var besideUpdateByteCount = 0.0
  package var besideUpdateMessageCount = 0.0

  package init() {}

  static func + (left: StepWork, right: StepWork) -> StepWork {
    var sum = left
    for path in fields { sum[keyPath: path] += right[keyPath: path] }
    return sum
  }

  static func * (factor: Double, work: StepWork) -> StepWork {
    var product = work
    for path in fields { product[keyPath: path] *= factor }
    return product
  }

  private static var fields: [WritableKeyPath<StepWork, Double>] {
    [
      \.operationCount, \.attentionOperationCount, \.movedByteCount, \.optimizerByteCount,
      \.sentByteCount, \.messageCount, \.waitCount, \.copiedByteCount,
      \.updateByteCount, \.updateMessageCount,
      \.besideByteCount, \.besideMessageCount, \.besideUpdateByteCount,
      \.besideUpdateMessageCount,
    ]
  }
}

extension StepWork {
  /// What a ledger has counted so far.
  init(of ledger: PlannedLedger) {
    operationCount = ledger.operationCount
    attentionOperationCount = ledger.attentionOperationCount
    movedByteCount = ledger.movedByteCount
    optimizerByteCount = ledger.optimizerByteCount
    sentByteCount = ledger.sentByteCount
    messageCount = ledger.messageCount
    waitCount = ledger.waitCount
    copiedByteCount = ledger.copiedByteCount
    updateByteCount = ledger.updateByteCount
    updateMessageCount = ledger.updateMessageCount
    besideByteCount = ledger.besideByteCount
    besideMessageCount = ledger.besideMessageCount
    besideUpdateByteCount = ledger.besideUpdateByteCount
    besideUpdateMessageCount = ledger.besideUpdateMessageCount
  }
}
