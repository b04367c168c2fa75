import Foundation
import Testing

@testable import Training

@Suite struct StopSignalTests {
  @Test func `a signal sets the flag, from the first instant on, and ends nothing`() async {
    await #expect(processExitsWith: .exitCode(7)) {
      StopSignal.install()
      raise(SIGUSR1)
      let isReceived = StopSignal.isReceived
      raise(SIGTERM)
      exit(isReceived ? 7 : 1)
    }
  }
}
