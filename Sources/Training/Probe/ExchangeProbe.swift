// What ranks lose at an exchange between two products beside its messages: the operating system's turns, tests before a
// message is seen, and that they do not get there at the same time. Pairs of neighbors alternate a product and an exchange
// of some bytes; of a run are taken off what the products take alone, on all ranks at once as well, and the messages'
// latency.
//
// One process has nobody to wait for, so `w2svd plan` takes the number from a machine (`MachineModel.exchangeWait`,
// which `w2svd-worker bench collectives` measures).

import Foundation
package import ProcessMesh

package enum ExchangeProbe {
  /// A product of a tenth of a millisecond or two, as they stand between the exchanges of a block of few tokens.
  package static let rowCount = 128
  package static let width = 256
  static let byteCount = 64

  /// Seconds of a wait, on the slowest pair; 0 on one rank.
  ///
  /// - Parameters:
  ///   - latency: seconds of a message, as the links were measured.
  ///   - repeatCount: exchanges of a run. Default: 50, some hundredths of a second in all.
  ///   - product: what is computed between two exchanges.
  /// - Collective: over the transport; the number must agree.
  /// - Throws: what the transport throws.
  package static func measure(
    on transport: any Transport, latency: Double, repeatCount: Int = 50,
    product: () -> Void = KernelProbe.square(rowCount: rowCount, width: width)
  ) throws -> Double {
    guard transport.size > 1 else { return 0 }
    let pair = try transport.split(color: transport.rank / 2, key: transport.rank)
    let payload = [UInt8](repeating: 7, count: byteCount)
    let clock = ContinuousClock()
    func seconds(_ isExchanging: Bool) throws -> Double {
      try transport.barrier()
      return try clock.measure {
        for _ in 0..<repeatCount {
          product()
          if isExchanging {
            _ = try pair.allToAll((0..<pair.size).map { $0 == pair.rank ? [] : payload })
          }
        }
      } / .seconds(1)
    }
    // The first of both takes memory and opens connections; of the others the middle one.
    let runs = try (0..<4).map { _ in try (alone: seconds(false), together: seconds(true)) }
      .dropFirst()
    func middle(_ seconds: [Double]) throws -> Double {
      try transport.allReduce(max: seconds).sorted()[1]
    }
    let alone = try middle(runs.map(\.alone))
    return max(0, (try middle(runs.map(\.together)) - alone) / Double(repeatCount) - latency)
  }
}
