// Moving floats: strided rows and permutations.
//
// A permutation is first reduced to as few dimensions as it has; then either runs of the last
// dimension move as they are, or blocks of two dimensions are transposed.

import CKernels

extension Float {
  package static func copyRows(
    _ source: Buffer<Self>, stride sourceStride: Int, to target: Buffer<Self>,
    stride targetStride: Int, rowCount: Int, width: Int
  ) {
    requireRows(rowCount, width, source.count, sourceStride, "source")
    requireRows(rowCount, width, target.count, targetStride, "target")
    KernelThreads.splitRows(groups: 1, rows: rowCount, width: width) { _, rows in
      let first = rows.lowerBound
      unsafe w2svd_copy_rows(
        source.base + first * sourceStride, sourceStride, target.base + first * targetStride,
        targetStride, rows.count, width)
    }
  }

  package static func addRows(
    _ source: Buffer<Self>, stride sourceStride: Int, to target: Buffer<Self>,
    stride targetStride: Int, rowCount: Int, width: Int
  ) {
    requireRows(rowCount, width, source.count, sourceStride, "source")
    requireRows(rowCount, width, target.count, targetStride, "target")
    KernelThreads.splitRows(groups: 1, rows: rowCount, width: width) { _, rows in
      let first = rows.lowerBound
      unsafe w2svd_add_rows(
        source.base + first * sourceStride, sourceStride, target.base + first * targetStride,
        targetStride, rows.count, width)
    }
  }

  package static func permute(
    _ x: Buffer<Self>, shape: [Int], axes: [Int], into y: Buffer<Self>
  ) {
    requirePermutation(x.count, y.count, shape: shape, axes: axes)
    guard y.count > 0 else { return }
    var walk = Walk.reduced(shape: shape, axes: axes)
    guard let last = walk.popLast() else { return y.copy(from: x) }
    if last.sourceStride == 1 {
      let rows = walk.popLast() ?? Walk(count: 1, sourceStride: 0, targetStride: 0)
      Walk.forEachOffset(of: walk) { source, target in
        unsafe w2svd_copy_rows(
          x.base + source, rows.sourceStride, y.base + target, rows.targetStride, rows.count,
          last.count)
      }
    } else if let fast = walk.firstIndex(where: { $0.sourceStride == 1 }) {
      let columns = walk.remove(at: fast)
      Walk.forEachOffset(of: walk) { source, target in
        unsafe w2svd_transpose(
          x.base + source, last.sourceStride, y.base + target, columns.targetStride, last.count,
          columns.count)
      }
    }
  }
}

/// One dimension of a permutation as the target walks it.
private struct Walk {
  var count: Int
  var sourceStride: Int
  var targetStride: Int

  /// The dimensions in target order, without those of one element, neighbors that are also
  /// neighbors in the source merged. One of them has source stride 1 unless all counts are 1.
  static func reduced(shape: [Int], axes: [Int]) -> [Walk] {
    var strides = [Int](repeating: 1, count: shape.count)
    for d in shape.indices.dropLast().reversed() { strides[d] = strides[d + 1] * shape[d + 1] }
    var walk: [Walk] = []
    for axis in axes where shape[axis] != 1 {
      if let previous = walk.last, previous.sourceStride == strides[axis] * shape[axis] {
        walk[walk.count - 1].count *= shape[axis]
        walk[walk.count - 1].sourceStride = strides[axis]
      } else {
        walk.append(Walk(count: shape[axis], sourceStride: strides[axis], targetStride: 0))
      }
    }
    var stride = 1
    for d in walk.indices.reversed() {
      walk[d].targetStride = stride
      stride *= walk[d].count
    }
    return walk
  }

  /// Calls `body` with source and target offset of every combination of indices, in target order.
  static func forEachOffset(of walk: [Walk], _ body: (_ source: Int, _ target: Int) -> Void) {
    var indices = [Int](repeating: 0, count: walk.count)
    var (source, target) = (0, 0)
    while true {
      body(source, target)
      var d = walk.count - 1
      while d >= 0 {
        indices[d] += 1
        source += walk[d].sourceStride
        target += walk[d].targetStride
        if indices[d] < walk[d].count { break }
        source -= walk[d].sourceStride * walk[d].count
        target -= walk[d].targetStride * walk[d].count
        indices[d] = 0
        d -= 1
      }
      if d < 0 { return }
    }
  }
}
