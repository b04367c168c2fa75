import Foundation
import Testing

@testable import Training

@Suite struct StopSignalTests {
  @Test func `signals set the flag, from the first instant on, and end nothing`() async {
    await #expect(processExitsWith: .exitCode(7)) {
      StopSignal.install()
      let wasReceived = StopSignal.isReceived
      kill(getpid(), SIGUSR1)
      // Some other thread takes it: those that run tests let no signal through.
      let end = ContinuousClock.now + .seconds(10)
      while !StopSignal.isReceived && ContinuousClock.now < end { usleep(1_000) }
      kill(getpid(), SIGTERM)
      usleep(100_000)
      exit(StopSignal.isReceived && !wasReceived ? 7 : 1)
    }
  }
}
