// Scaled dot-product attention over heads that lie side by side in the width.

package import DenseKernels
import Tensors

extension Tape {
  /// softmax(q kᵀ / √K) v per head; no Lq × Lk matrix is stored.
  /// - Shapes: query [B, Lq, N·K], key and value [B, Lk, N·K] → [B, Lq, N·K].
  package func attention(
    query: Value<Scalar>, key: Value<Scalar>, value: Value<Scalar>, headCount: Int,
    mask: AttentionMask? = nil
  ) -> Value<Scalar> {
    precondition(
      query.shape.count == 3 && key.shape == value.shape && key.shape.count == 3
        && key.shape[0] == query.shape[0] && key.shape[2] == query.shape[2]
        && query.shape[2] % headCount == 0,
      "query \(query.shape), key \(key.shape), value \(value.shape) with \(headCount) heads")
    let shape = AttentionShape(
      sampleCount: query.shape[0], queryCount: query.shape[1], keyCount: key.shape[1],
      headCount: headCount, headWidth: query.shape[2] / headCount)
    let output = result(query.shape)
    let logSumExp = result([shape.sampleCount, headCount, shape.queryCount])
    Scalar.attention(
      query: query.tensor.buffer, key: key.tensor.buffer, value: value.tensor.buffer, mask: mask,
      shape: shape, precision: precision, into: output.buffer, logSumExp: logSumExp.buffer)
    return record(output, from: [query, key, value]) { [unowned self] outputGradient, gradients in
      guard output.count > 0 else {
        // Without a query nothing would overwrite the gradients of keys and values.
        for index in 0..<3 { _ = gradients.addend(of: index) }
        return
      }
      func place(_ index: Int, _ value: Value<Scalar>) -> GradientBuffer<Scalar> {
        gradients.place(of: index)
          ?? GradientBuffer(scratch(value.shape).buffer, accumulates: false)
      }
      Scalar.attentionBackward(
        outputGradient: outputGradient.buffer, query: query.tensor.buffer,
        key: key.tensor.buffer, value: value.tensor.buffer, output: output.buffer,
        logSumExp: logSumExp.buffer, mask: mask, shape: shape, precision: precision,
        queryGradient: place(0, query), keyGradient: place(1, key),
        valueGradient: place(2, value))
    }
  }
}
