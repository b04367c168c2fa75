// What a rank does in a step, counted by the twins: what a time is made of (`StepTime`).

/// Sums over a step, or means over steps, of one rank.
package struct StepWork: Codable, Equatable, Sendable {
  /// Floating-point operations of matrix products and attention.
  package var operationCount = 0.0
  /// Of these, those of attention.
  package var attentionOperationCount = 0.0
  /// Bytes of weights, in Float32, that products read, or write the gradients of, however few rows they have.
  package var weightByteCount = 0.0
  /// Operations of the tape there and back.
  package var tapeOperationCount = 0.0
  /// Bytes that elementwise operations read and write; each operand counts once.
  package var movedByteCount = 0.0
  /// Bytes that sums of gradients over microbatches read and write.
  package var summedByteCount = 0.0
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
      \.operationCount, \.attentionOperationCount, \.weightByteCount, \.tapeOperationCount,
      \.movedByteCount, \.summedByteCount, \.optimizerByteCount,
      \.sentByteCount, \.messageCount, \.waitCount, \.copiedByteCount,
      \.updateByteCount, \.updateMessageCount,
      \.besideByteCount, \.besideMessageCount, \.besideUpdateByteCount,
      \.besideUpdateMessageCount,
    ]
  }
}

/// Products of matrices, one of which stands for weights.
struct ProductWork {
  var operationCount = 0.0
  /// Of what stands for weights, once for each product.
  var weightElementCount = 0.0

  init() {}

  /// One of rows × inner and inner × outer; of the three there and back each has these numbers.
  init(rows: Int, from inner: Int, to outer: Int) {
    weightElementCount = Double(inner) * Double(outer)
    operationCount = 2 * Double(rows) * weightElementCount
  }

  static func + (left: ProductWork, right: ProductWork) -> ProductWork {
    var sum = left
    sum.operationCount += right.operationCount
    sum.weightElementCount += right.weightElementCount
    return sum
  }

  static func * (factor: Double, work: ProductWork) -> ProductWork {
    var product = work
    product.operationCount *= factor
    product.weightElementCount *= factor
    return product
  }
}
