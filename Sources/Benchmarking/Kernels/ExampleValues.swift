// Numbers to compute with: normal ones, the same every time.

import Basics
import DenseKernels

enum ExampleValues {
  /// `count` normal numbers; a block of them is repeated, since drawing takes longer than computing.
  static func buffer(_ count: Int, _ sample: Int, scale: Float = 1) -> Buffer<Float> {
    let stream = RandomStream(seed: 0, purpose: .benchmarks, step: 1, sample: sample)
    let block = stream.normals(count: min(count, 1 << 16)).map { scale * Float($0) }
    let buffer = Buffer<Float>(zeroed: count)
    for first in stride(from: 0, to: count, by: block.count) {
      let end = min(first + block.count, count)
      buffer[first..<end].copy(from: Array(block[0..<(end - first)]))
    }
    return buffer
  }
}
