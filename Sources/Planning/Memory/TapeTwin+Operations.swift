// Twin of Autodiff/Operations.

extension TapeTwin {
  /// Stores its input (and x Aᵀ with an update).
  /// - Parameter partials: sums over blocks of rows that each gradient of a parameter holds beside itself.
  func linear(
    _ x: ValueTwin, from inputWidth: Int, to outputWidth: Int, isTrainable: Bool,
    update: UpdateTwin? = nil, partials: Int = 0
  ) -> ValueTwin {
    linear(
      parts: [x], from: inputWidth, to: outputWidth, isTrainable: isTrainable, update: update,
      partials: partials)
  }

  /// The same of inputs side by side; the parts are tracked all or none.
  func linear(
    parts: [ValueTwin], from inputWidth: Int, to outputWidth: Int, isTrainable: Bool,
    update: UpdateTwin? = nil, partials: Int = 0
  ) -> ValueTwin {
    let rowCount = parts.reduce(0) { $0 + $1.count } / inputWidth
    let isTracked = parts.contains(where: \.isTracked)
    let blocks = parts.filter { $0.remaking == nil }.map(\.block)
    let remakings = parts.compactMap(\.remaking)
    let product = ProductWork(rows: rowCount, from: inputWidth, to: outputWidth)
    let output = result(rowCount * outputWidth)
    ledger.count(product)
    // Of one gradient at a time; the largest decides.
    let largest =
      isTrainable
      ? inputWidth * outputWidth
      : update.map { $0.isTrainable ? $0.rank * max(inputWidth, outputWidth) : 0 } ?? 0
    let sums = Array(repeating: largest, count: largest > 0 ? partials : 0)
    // With columns, gradients of the input, and of the lower factor, are made where it was made.
    let columns = parts[0].columns
    let wanted = (isTracked && columns == nil ? 1.0 : 0) + (isTrainable ? 1 : 0)
    let collecting = columns.map { columns in
      { columns.add($0, outputWidth: outputWidth, update: update) }
    }
    guard let update else {
      return record(
        output, from: parts, wantsParameterGradient: isTrainable, saving: blocks,
        remaking: remakings, scratch: sums, products: wanted * product,
        collecting: collecting)
    }
    let hidden = result(rowCount * update.rank)
    let down = ProductWork(rows: rowCount, from: inputWidth, to: update.rank)
    let up = ProductWork(rows: rowCount, from: update.rank, to: outputWidth)
    ledger.count(down + up)
    let trained = update.isTrainable ? 1.0 : 0
    let ways = (isTracked ? 1.0 : 0) + trained
    if let collecting {
      return record(
        output, from: parts, wantsParameterGradient: isTrainable || update.isTrainable,
        saving: blocks + [hidden], remaking: remakings, needsRemaking: isTrainable, scratch: sums,
        products: wanted * product + trained * up, collecting: collecting)
    }
    return record(
      output, from: parts, wantsParameterGradient: isTrainable || update.isTrainable,
      saving: blocks + [hidden], remaking: remakings,
      scratch: [rowCount * update.rank] + sums,
      products: wanted * product + ways * down + (1 + trained) * up)
  }

  /// An activation: stores its input.
  func apply(_ x: ValueTwin) -> ValueTwin {
    let output = result(x.count)
    return record(output, from: [x], saving: [x.block])
  }

  /// A sum with constant weights: stores nothing.
  /// - Parameter passed: terms whose weight is 1, which the gradient is handed on to.
  func combine(_ x: ValueTwin, _ y: ValueTwin, passingTo passed: [Int] = []) -> ValueTwin {
    let output = result(x.count)
    return record(output, from: [x, y], passingTo: passed)
  }

  /// A plain sum: hands its gradient on.
  func add(_ x: ValueTwin, _ y: ValueTwin) -> ValueTwin {
    let output = result(x.count)
    return record(output, from: [x, y], passingTo: [0, 1])
  }

  func concatenate(_ values: [ValueTwin]) -> ValueTwin {
    let output = result(values.reduce(0) { $0 + $1.count })
    return record(output, from: values)
  }

  /// Joins `count` elements out of copies of one parameter's value.
  func gather(_ value: ValueTwin, count: Int) -> ValueTwin {
    let output = result(count)
    return record(output, from: [value])
  }

  func slice(_ x: ValueTwin, count: Int) -> ValueTwin {
    let output = result(count)
    return record(output, from: [x])
  }

  func chunks(_ x: ValueTwin, count: Int) -> [ValueTwin] {
    (0..<count).map { _ in slice(x, count: x.count / count) }
  }

  func permuted(_ x: ValueTwin) -> ValueTwin {
    let output = result(x.count)
    return record(output, from: [x], scratchToAdd: x.count)
  }

  /// Rotary positions while two dimensions change places: stores nothing.
  func rotatedAndTransposed(_ x: ValueTwin) -> ValueTwin {
    let output = result(x.count)
    return record(output, from: [x])
  }

  func weightedTokenSum(_ x: ValueTwin, to count: Int) -> ValueTwin {
    let output = result(count)
    return record(output, from: [x])
  }

  /// Stores input, scale, and mean and deviation of each row.
  func layerNorm(
    _ x: ValueTwin, width: Int, scale: ValueTwin? = nil, shift: ValueTwin? = nil,
    isTrainable: Bool = false, partials: Int = 0
  ) -> ValueTwin {
    let rowCount = x.count / width
    let output = result(x.count)
    let mean = result(rowCount)
    let inverseDeviation = result(rowCount)
    return record(
      output, from: [x] + [scale, shift].compactMap(\.self), wantsParameterGradient: isTrainable,
      saving: [x.block, mean, inverseDeviation] + (scale.map { [$0.block] } ?? []),
      scratch: [scale, shift].compactMap(\.self).filter(\.isTracked).flatMap {
        Array(repeating: $0.count, count: partials)
      })
  }

  /// Stores input and the inverse root of each head.
  func headNorm(
    _ x: ValueTwin, headWidth: Int, isTrainable: Bool, partials: Int = 0
  ) -> ValueTwin {
    let output = result(x.count)
    let inverseRoot = result(x.count / headWidth)
    return record(
      output, from: [x], wantsParameterGradient: isTrainable, saving: [x.block, inverseRoot],
      scratch: Array(repeating: headWidth, count: isTrainable ? partials : 0))
  }

  /// Stores gate and branch.
  func gatedResidual(
    _ x: ValueTwin, gate: ValueTwin, _ h: ValueTwin, partials: Int = 0
  ) -> ValueTwin {
    let output = result(x.count)
    return record(
      output, from: [x, gate, h], passingTo: [0], saving: [gate.block, h.block],
      scratch: Array(repeating: gate.count, count: gate.isTracked ? partials : 0))
  }

  /// Stores query, key, value, output, and one number for each row and head. Two products forward,
  /// five on the way back.
  func attention(
    query: ValueTwin, key: ValueTwin, value: ValueTwin, headCount: Int, sampleCount: Int,
    width: Int
  ) -> ValueTwin {
    let output = result(query.count)
    let queryCount = query.count / width
    let logSumExp = result(queryCount * headCount)
    // A part of the tokens may be none.
    let keyCount = key.count / width / max(sampleCount, 1)
    let product = 2 * Double(queryCount) * Double(keyCount) * Double(width)
    ledger.countAttention(2 * product)
    return record(
      output, from: [query, key, value],
      saving: [query.block, key.block, value.block, output, logSumExp],
      scratch: [query, key, value].filter { !$0.isTracked }.map(\.count),
      attentionOperationCount: 5 * product)
  }
}
