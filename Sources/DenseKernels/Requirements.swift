// The size checks at the entry of every kernel, shared by the fast and the slow ones.

@inline(__always)
func requireCount(_ count: Int, _ expected: Int, _ name: @autoclosure () -> String) {
  precondition(count == expected, "\(name()) has \(count) elements, its shape \(expected)")
}

@inline(__always)
func requireRows(
  _ rowCount: Int, _ width: Int, _ count: Int, _ stride: Int, _ name: @autoclosure () -> String
) {
  precondition(
    rowCount >= 0 && width >= 0 && stride >= width
      && (rowCount == 0 || width == 0 || (rowCount - 1) * stride + width <= count),
    "\(rowCount) rows of \(width) at stride \(stride) do not fit the \(count) of \(name())")
}

/// Rows of whole heads, rotated by `cosines.count` angles each.
func requireHeads<Element>(of width: Int, cosines: Buffer<Element>, sines: Buffer<Element>) {
  requireCount(sines.count, cosines.count, "sines")
  precondition(
    cosines.count > 0 && width % (2 * cosines.count) == 0,
    "\(cosines.count) angles do not rotate heads of a row of \(width)")
}

func requirePermutation(_ count: Int, _ targetCount: Int, shape: [Int], axes: [Int]) {
  requireCount(count, shape.reduce(1, *), "x")
  requireCount(targetCount, count, "y")
  precondition(
    axes.sorted() == Array(shape.indices), "axes \(axes) do not permute the shape \(shape)")
}

/// Rows, inner size and columns of c = a b, checked against each other.
func productSizes<Element>(
  _ a: Matrix<Element>, _ b: Matrix<Element>, _ c: Matrix<Element>
) -> (rows: Int, inner: Int, columns: Int) {
  let (left, right) = (a.logicalSize, b.logicalSize)
  precondition(!c.isTransposed, "a product cannot be written transposed")
  precondition(
    left.columns == right.rows && c.rowCount == left.rows && c.columnCount == right.columns,
    "\(left.rows)×\(left.columns) times \(right.rows)×\(right.columns) "
      + "into \(c.rowCount)×\(c.columnCount)")
  return (left.rows, left.columns, right.columns)
}

extension ModulationShape {
  /// Elements of the whole x.
  var elementCount: Int { groupCount * rowsPerGroup * width }
  var rowCount: Int { groupCount * rowsPerGroup }

  /// Where the vector of a group has its factor for element `index` of x.
  func groupElement(of index: Int) -> Int {
    index / (rowsPerGroup * width) * width + index % width
  }

  func require<Element>(
    rows: [(name: String, buffer: Buffer<Element>?)],
    groups: [(name: String, buffer: Buffer<Element>?)],
    statistics: [(name: String, buffer: Buffer<Element>?)] = []
  ) {
    for (name, buffer) in rows where buffer != nil {
      requireCount(buffer?.count ?? 0, elementCount, name)
    }
    for (name, buffer) in groups where buffer != nil {
      requireCount(buffer?.count ?? 0, groupCount * width, name)
    }
    for (name, buffer) in statistics { requireCount(buffer?.count ?? 0, rowCount, name) }
  }
}

extension HeadNormShape {
  var elementCount: Int { sampleCount * tokenCount * headCount * headWidth }
  /// Number of normalized vectors.
  var vectorCount: Int { sampleCount * tokenCount * headCount }

  func require<Element>(
    rows: [(name: String, buffer: Buffer<Element>?)],
    gain: Buffer<Element>?, gainGradient: Buffer<Element>? = nil,
    cosines: Buffer<Element>, sines: Buffer<Element>, inverseRoot: Buffer<Element>
  ) {
    precondition(
      rotatedCount >= 0 && rotatedCount <= tokenCount,
      "\(rotatedCount) rotated tokens of \(tokenCount)")
    precondition(
      rotatedCount == 0 || headWidth % 2 == 0, "a head of odd width \(headWidth) has no pairs")
    for (name, buffer) in rows where buffer != nil {
      requireCount(buffer?.count ?? 0, elementCount, name)
    }
    precondition(
      sliceCount > 0 && headCount % sliceCount == 0, "\(sliceCount) slices of \(headCount) heads")
    if let gain { requireCount(gain.count, headWidth, "gain") }
    if let gainGradient { requireCount(gainGradient.count, sliceCount * headWidth, "gainGradient") }
    requireCount(cosines.count, rotatedCount * headWidth / 2, "cosines")
    requireCount(sines.count, rotatedCount * headWidth / 2, "sines")
    requireCount(inverseRoot.count, vectorCount, "inverseRoot")
  }
}

extension AttentionShape {
  func require<Element>(
    queries: [(name: String, buffer: Buffer<Element>)],
    keys: [(name: String, buffer: Buffer<Element>)], logSumExp: Buffer<Element>,
    mask: AttentionMask?
  ) {
    for (name, buffer) in queries {
      requireCount(buffer.count, sampleCount * queryCount * headCount * headWidth, name)
    }
    for (name, buffer) in keys {
      requireCount(buffer.count, sampleCount * keyCount * headCount * headWidth, name)
    }
    requireCount(logSumExp.count, sampleCount * headCount * queryCount, "logSumExp")
    precondition(keyCount > 0 || queryCount == 0, "\(queryCount) queries and no key")
    guard let mask else { return }
    requireCount(mask.visibleKeys.count, sampleCount * keyCount, "visibleKeys")
    if !mask.isolatedQueries.isEmpty {
      requireCount(mask.isolatedQueries.count, sampleCount * queryCount, "isolatedQueries")
    }
  }
}

extension AttentionShape {
  /// How many keys there are does not matter.
  func require<Element>(
    _ otherOutput: Buffer<Element>, _ otherLogSumExp: Buffer<Element>,
    joining output: Buffer<Element>, _ logSumExp: Buffer<Element>
  ) {
    let rowCount = sampleCount * headCount * queryCount
    for (name, buffer) in [("output", output), ("the other output", otherOutput)] {
      requireCount(buffer.count, rowCount * headWidth, name)
    }
    for (name, buffer) in [("logSumExp", logSumExp), ("the other logSumExp", otherLogSumExp)] {
      requireCount(buffer.count, rowCount, name)
    }
  }
}

extension AttentionMask {
  func isIsolated(_ query: Int, sample: Int, shape: AttentionShape) -> Bool {
    !isolatedQueries.isEmpty && isolatedQueries[sample * shape.queryCount + query] != 0
  }
}
