// What a ring makes of a neighbor that sends something else than it should.

import DenseKernels
import Exchange
import ProcessMesh
import Testing

struct TokenExchangeRingTests {
  private func block(_ count: Int) -> KeysAndValues<Float> {
    KeysAndValues(keys: Buffer(zeroed: count), values: Buffer(zeroed: count))
  }

  @Test(arguments: [false, true])
  func `a block of another size ends the exchange with an error that names the sender`(
    isBackward: Bool
  ) {
    let error = #expect(throws: PeerError.self) {
      _ = try InProcessMesh.run(size: 3) { transport in
        let damaging = TamperingTransport(transport) { message in
          transport.rank == 1 ? Array(message.dropLast()) : message
        }
        let exchange = TokenExchange(transport: damaging)
        let counts = [4, 4, 4]
        if isBackward {
          try exchange.circulate(
            block(4), gradients: block(4), elementCounts: counts, room: block(4), sums: block(4)
          ) { _, _, _ in }
        } else {
          try exchange.circulate(block(4), elementCounts: counts, room: block(4)) { _, _ in }
        }
      }
    }
    #expect(error?.code == .malformedPayload && error?.rank == 1)
  }
}
