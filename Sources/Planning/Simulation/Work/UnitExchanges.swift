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
  /// Own tokens to all that cut weights, or a sum of theirs: all-gathers and reduce-scatters over `tp`.
  package var gathered: [ExchangedTensors]
  /// Keys and values that all ranks need whole: all-gathers over `sp`, then over a ring.
  package var shared: ExchangedTensors
  /// Whether those over `sp` are needless, since each of its ranks has them of its own heads.
  package var hasSharedHeads: Bool

  package init(
    scattered: [ExchangedTensors], circulated: Double, gathered: [ExchangedTensors],
    shared: ExchangedTensors = ExchangedTensors(0, of: 0), hasSharedHeads: Bool = false
  ) {
    self.scattered = scattered
    self.circulated = circulated
    self.gathered = gathered
    self.shared = shared
    self.hasSharedHeads = hasSharedHeads
  }

  /// Of one attention over all tokens, with the MLP behind it or beside it.
  /// - Parameter hidden: elements of hidden states.
  static func joint(_ hidden: Double) -> UnitExchanges {
    UnitExchanges(
      scattered: [ExchangedTensors(4, of: hidden)], circulated: 2 * hidden,
      gathered: [ExchangedTensors(4, of: hidden)])
  }
}
