// What ranks exchange inside a block on its way forth, in elements over all tokens, heads and samples of a
// microbatch: what an axis makes of it is `LayoutCosts`.

/// Tensors of one size.
package struct ExchangedTensors: Equatable, Sendable {
  package var count: Double
  package var elementCount: Double

  package init(_ count: Double, of elementCount: Double) {
    self.count = count
    self.elementCount = elementCount
  }
}

package struct UnitExchanges: Equatable, Sendable {
  /// Tokens against heads: all-to-alls over `sp`.
  package var scattered: [ExchangedTensors]
  /// Keys and values that go round a ring.
  package var circulated: Double
  /// Own tokens to all that cut weights: all-gathers over `tp`, made once more on the way back, where they are not kept.
  package var gathered: [ExchangedTensors]
  /// Sums of what these make, to own tokens or columns: reduce-scatters over `tp`.
  package var reduced: [ExchangedTensors]
  /// Own columns of modulations, of samples: all-gathers over `tp`.
  package var columns: [ExchangedTensors]
  /// Keys and values that all ranks need whole: all-gathers over `sp`, then over a ring.
  package var shared: ExchangedTensors
  /// Whether those over `sp` are needless, since each of its ranks has them of its own heads.
  package var hasSharedHeads: Bool

  package init(
    scattered: [ExchangedTensors], circulated: Double, gathered: [ExchangedTensors],
    reduced: [ExchangedTensors], columns: [ExchangedTensors] = [],
    shared: ExchangedTensors = ExchangedTensors(0, of: 0), hasSharedHeads: Bool = false
  ) {
    self.scattered = scattered
    self.circulated = circulated
    self.gathered = gathered
    self.reduced = reduced
    self.columns = columns
    self.shared = shared
    self.hasSharedHeads = hasSharedHeads
  }

  /// Of one attention over all tokens, with an MLP behind it (2 layers in a row, hence 2 gathers and sums) or
  /// beside it (1).
  /// - Parameters:
  ///   - hidden: elements of the hidden states of each stream.
  ///   - modulations: elements of the columns of each modulation.
  static func joint(
    _ hidden: [Double], layersInARow: Double = 2, modulations: [Double] = []
  ) -> UnitExchanges {
    let all = hidden.reduce(0, +)
    let tensors = hidden.map { ExchangedTensors(layersInARow, of: $0) }
    return UnitExchanges(
      scattered: [ExchangedTensors(4, of: all)], circulated: 2 * all, gathered: tensors,
      reduced: tensors, columns: modulations.map { ExchangedTensors(1, of: $0) })
  }
}
