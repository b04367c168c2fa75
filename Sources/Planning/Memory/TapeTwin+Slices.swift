// Layers whose sums over what ranks cut are made in slices: twin of Autodiff/Operations/Tape+Slices.swift and of the
// exchanges that TensorSequence gives it.

import MeshLayout

/// What column-parallel layers leave with their input on the way back.
final class ColumnsTwin {
  struct Term {
    let outputGradient: PlannedLedger.Block
    let outputWidth: Int
    let update: UpdateTwin?
  }

  fileprivate let isInputTracked: Bool
  fileprivate var terms: [Term] = []

  init(isInputTracked: Bool) { self.isInputTracked = isInputTracked }

  func add(_ outputGradient: PlannedLedger.Block, outputWidth: Int, update: UpdateTwin?) {
    if isInputTracked || update?.isTrainable == true {
      terms.append(
        Term(outputGradient: outputGradient, outputWidth: outputWidth, update: update))
    }
  }
}

/// Rows that are own, those that layers run on, and who has the other slices.
struct SliceRowsTwin {
  let ownCount: Int
  let count: Int
  let degree: Int
  /// Every rank has all rows, and needs all sums.
  var isOfSamples = false
  /// Sums over blocks of own rows that a gradient holds beside itself.
  let ownPartials: Int

  var heldCount: Int { heldPartialCount(ofTree: degree) }
}

extension TapeTwin {
  /// Own rows to the rows that column-parallel layers run on.
  func columnInput(_ x: ValueTwin, width: Int, _ rows: SliceRowsTwin) -> ValueTwin {
    let isCut = rows.degree > 1
    let all = isCut ? result(rows.count * width) : x.block
    func countGather() {
      guard isCut, !rows.isOfSamples else { return }
      ledger.exchange(
        byteCount: 4 * (rows.degree - 1) * rows.ownCount * width, messageCount: rows.degree - 1)
    }
    countGather()
    guard isRecording else { return ValueTwin(constant: all) }
    let columns = ColumnsTwin(isInputTracked: x.isTracked)
    let gradient = x.node.map { nodes[$0].gradient }
    onWayBack { [unowned self, own = x.block] in
      let terms = columns.terms
      columns.terms = []
      finish(terms, width: width, gradient, rows)
      withExtendedLifetime((own, terms)) {}
    }
    let leaf =
      x.isTracked
      ? leaf(all, gradient: Gradient(all.count, isDropped: true)) : ValueTwin(constant: all)
    let remaking =
      isCut && !isRecomputing
      ? RemakingTwin(of: x.block) { [ledger, role] in
        countGather()
        return ledger.allocate(all.count, role, .activations)
      } : nil
    return ValueTwin(all, node: leaf.node, remaking: remaking, columns: columns)
  }

  private func finish(
    _ terms: [ColumnsTwin.Term], width: Int, _ gradient: Gradient?, _ rows: SliceRowsTwin
  ) {
    guard !terms.isEmpty else { return }
    let hidden = terms.map { term in
      term.update.map { update in
        let sum = scratch(rows.ownCount * update.rank)
        ledger.count(ProductWork(rows: rows.count, from: term.outputWidth, to: update.rank))
        self.sum(width: update.rank, rows)
        return sum
      }
    }
    if let gradient {
      let sum = gradient.block == nil ? nil : scratch(rows.ownCount * width)
      provide(gradient)
      for term in terms {
        ledger.count(ProductWork(rows: rows.count, from: term.outputWidth, to: width))
        ledger.count(ProductWork(rows: rows.ownCount, from: term.update?.rank ?? 0, to: width))
      }
      self.sum(width: width, rows)
      withExtendedLifetime(sum) {}
    }
    for update in terms.compactMap(\.update) where update.isTrainable {
      let partials = (0..<rows.ownPartials).map { _ in scratch(update.rank * width) }
      ledger.count(ProductWork(rows: rows.ownCount, from: update.rank, to: width))
      withExtendedLifetime(partials) {}
    }
    withExtendedLifetime(hidden) {}
  }

  /// Partial sums of all rows, and what the tree over the ranks holds while they meet.
  private func sum(width: Int, _ rows: SliceRowsTwin) {
    guard rows.degree > 1 else { return }
    let partial = scratch(rows.count * width)
    let room = scratch(
      width * (rows.isOfSamples ? rows.degree * rows.count : rows.heldCount * rows.ownCount))
    let sentCount = rows.isOfSamples ? (rows.degree - 1) * rows.count : rows.count - rows.ownCount
    ledger.exchange(byteCount: 4 * width * sentCount, messageCount: rows.degree - 1)
    withExtendedLifetime((partial, room)) {}
  }

  /// The sum of row-parallel layers, each of parts side by side with own columns.
  /// - Parameter partials: sums over blocks of all rows that the gradient of what is cut holds beside itself.
  func rowLinear(
    _ layers: [[ValueTwin]], from inputWidth: Int, to outputWidth: Int, isTrainable: Bool,
    update: UpdateTwin?, _ rows: SliceRowsTwin, partials: Int
  ) -> ValueTwin {
    let parts = layers.flatMap(\.self)
    let isTracked = parts.contains(where: \.isTracked)
    let layerCount = Double(layers.count)
    let product = layerCount * ProductWork(rows: rows.count, from: inputWidth, to: outputWidth)
    let output = result(rows.ownCount * outputWidth)
    ledger.count(product)
    sum(width: outputWidth, rows)
    let hidden = update.map { update in
      layers.map { _ in
        let hidden = result(rows.ownCount * update.rank)
        ledger.count(ProductWork(rows: rows.count, from: inputWidth, to: update.rank))
        ledger.count(ProductWork(rows: rows.ownCount, from: update.rank, to: outputWidth))
        sum(width: update.rank, rows)
        return hidden
      }
    }
    // Of one gradient at a time; the largest decides.
    let rank = update.map { $0.isTrainable ? $0.rank : 0 } ?? 0
    let cut = (isTrainable ? outputWidth : rank) * inputWidth
    let largest = max(cut * partials, rank * outputWidth * rows.ownPartials)
    let wanted = (isTracked ? 1.0 : 0) + (isTrainable ? 1 : 0)
    let ways = (isTracked ? 1.0 : 0) + (rank > 0 ? 1 : 0)
    let low =
      update.map {
        ProductWork(rows: rows.count, from: $0.rank, to: outputWidth)
          + ways * ProductWork(rows: rows.count, from: $0.rank, to: inputWidth)
          + ProductWork(rows: rows.ownCount, from: rank, to: outputWidth)
      } ?? ProductWork()
    let gathered = rows.degree > 1 ? [rows.count * outputWidth] : []
    return record(
      output, from: parts, wantsParameterGradient: isTrainable || rank > 0,
      saving: parts.map(\.block) + (hidden ?? []),
      scratch: gathered + (update.map { [rows.count * $0.rank] } ?? []) + [largest],
      products: wanted * product + layerCount * low,
      sentByteCount: 4 * Double((rows.degree - 1) * rows.ownCount * outputWidth),
      messageCount: rows.degree - 1)
  }

  /// A norm of heads whose gain's gradient is summed over slices in every block.
  /// - Parameters:
  ///   - sliceCount: own slices.
  ///   - blockCount: of the tokens of all rows.
  func headNorm(
    _ x: ValueTwin, headWidth: Int, isTrainable: Bool, sliceCount: Int, blockCount: Int,
    _ rows: SliceRowsTwin
  ) -> ValueTwin {
    let output = result(x.count)
    let inverseRoot = result(x.count / headWidth)
    let ownBlocks = blockCount / rows.degree
    let exchanged = rows.degree > 1 ? [ownBlocks, rows.heldCount * ownBlocks] : []
    let sent = isTrainable && rows.degree > 1
    return record(
      output, from: [x], wantsParameterGradient: isTrainable, saving: [x.block, inverseRoot],
      scratch: isTrainable ? ([blockCount, sliceCount] + exchanged).map { $0 * headWidth } : [],
      sentByteCount: sent ? 4 * Double((blockCount - ownBlocks) * headWidth) : 0,
      messageCount: sent ? rows.degree - 1 : 0)
  }
}
