// What ranks lose at an exchange of activations between two products beside its messages: the operating system's turns,
// tests before a message is seen, that they do not get there at the same time; and for its bytes, which are packed into
// messages and out of them. Pairs of neighbors alternate a product and an exchange of some bytes; of a run are taken off what
// the products take alone, on all ranks at once as well, and the link's part.
//
// One process has nobody to wait for, so `w2svd plan` takes the numbers from a machine (`MachineModel.exchangeWait` and
// `.packingBandwidth`, which `w2svd-worker bench collectives` measures).

import DenseKernels
import Exchange
import Foundation
import MeshLayout
package import Planning
package import ProcessMesh

package struct ExchangeProbe: Equatable, Sendable {
  /// Seconds that a rank loses at each exchange.
  package let wait: Double
  /// Seconds for a sent byte beside the link.
  package let secondsPerByte: Double

  /// A product of a tenth of a millisecond or two, as they stand between the exchanges of a block of few tokens.
  package static let rowCount = 128
  package static let width = 256
  /// Elements of an exchange that has next to none, and of one of a microbatch of some hundred tokens.
  package static let elementCounts = (few: 16, many: 1 << 16)

  /// Of the slowest pair; zero on one rank.
  ///
  /// - Parameters:
  ///   - link: as it was measured.
  ///   - repeatCount: exchanges of a run. Default: 50, a tenth of a second in all.
  ///   - product: what is computed between two exchanges.
  /// - Collective: over the transport; the link must agree.
  /// - Throws: what the transport throws.
  package static func measure(
    on transport: any Transport, link: Link, repeatCount: Int = 50,
    product: () -> Void = KernelProbe.square(rowCount: rowCount, width: width)
  ) throws -> ExchangeProbe {
    guard transport.size > 1 else { return ExchangeProbe(wait: 0, secondsPerByte: 0) }
    let pair = try transport.split(color: transport.rank / 2, key: transport.rank)
    let exchange = TokenExchange(transport: pair)
    let clock = ContinuousClock()
    /// Of a product with what is done after it, a mean.
    func seconds(_ body: () throws -> Void) throws -> Double {
      try transport.barrier()
      return try clock.measure {
        for _ in 0..<repeatCount {
          product()
          try body()
        }
      } / .seconds(1) / Double(repeatCount)
    }
    /// What exchanges add to products. The first run of either takes memory and opens connections; of the others the
    /// middle one.
    func added(elementCount: Int) throws -> Double {
      let layout = TokenLayout(
        sampleCount: 1, segments: [pair.size], width: elementCount, partCount: pair.size)
      let byteCount = 4 * elementCount * (pair.size + 1)
      let copyCount = min(KernelProbe.coldByteCount / byteCount, repeatCount)
      let tensors = (0..<copyCount).map { _ in
        (
          own: Buffer<Float>(zeroed: elementCount),
          all: Buffer<Float>(zeroed: elementCount * pair.size)
        )
      }
      var next = 0
      func gather() throws {
        let tensor = tensors[next % copyCount]
        next += 1
        try exchange.gatherTokens(tensor.own, layout: layout, into: tensor.all)
      }
      let runs = try (0..<4).map { _ in
        (alone: try seconds {}, together: try seconds(gather))
      }.dropFirst()
      func middle(_ seconds: [Double]) throws -> Double {
        try transport.allReduce(max: seconds).sorted()[1]
      }
      return try middle(runs.map(\.together)) - middle(runs.map(\.alone))
    }
    let (few, many) = (
      try added(elementCount: elementCounts.few), try added(elementCount: elementCounts.many)
    )
    let byteCount = Double(4 * (elementCounts.many - elementCounts.few))
    return ExchangeProbe(
      wait: max(0, few - link.latency),
      secondsPerByte: max(0, (many - few) / byteCount - link.secondsPerByte))
  }
}
