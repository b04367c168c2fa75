import Testing

@testable import Basics

struct PausableBodyTests {
  /// What bodies write down, each in its turn.
  private final class Log { var lines: [String] = [] }

  @Test func `bodies go on where they paused, in the order of their turns`() {
    let log = Log()
    var bodies: [PausableBody] = []
    for name in ["a", "b"] {
      let index = bodies.count
      bodies.append(
        PausableBody(adopt: { log.lines.append("adopted") }) {
          for step in 0..<3 {
            log.lines.append("\(name)\(step)")
            bodies[index].pause()
          }
          log.lines.append("\(name) ends")
        })
    }
    for turn in [0, 1, 1, 0, 0, 1, 1, 0] { bodies[turn].resume() }
    #expect(bodies.allSatisfy { $0.isFinished })
    #expect(
      log.lines.filter { $0 != "adopted" }
        == ["a0", "b0", "b1", "a1", "a2", "b2", "b ends", "a ends"])
    // A body's thread takes over at each of its turns, and the caller's behind each.
    #expect(log.lines.count { $0 == "adopted" } == 16)
  }

  @Test func `what a body holds is let go with its end`() {
    final class Held {}
    weak var held: Held?
    var body: PausableBody?
    do {
      let object = Held()
      held = object
      body = PausableBody(adopt: {}) { withExtendedLifetime(object) {} }
    }
    #expect(held != nil)
    body?.resume()
    #expect(held == nil)
  }
}
