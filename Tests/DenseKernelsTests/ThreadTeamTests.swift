import Foundation
import Synchronization
import Testing

@testable import DenseKernels

struct ThreadTeamTests {
  /// Rounds with and without pauses, so that helpers are met looking and asleep.
  @Test func `every part runs once in each round, each on a thread of its own`() {
    let team = ThreadTeam(size: 3)
    let runs = Mutex<[Int: [String: Int]]>([:])
    let roundCount = 2000
    for round in 0..<roundCount {
      if round % 100 == 0 { Thread.sleep(forTimeInterval: 0.002) }
      team.run(3) { part in
        let thread = "\(ObjectIdentifier(Thread.current))"
        runs.withLock { $0[part, default: [:]][thread, default: 0] += 1 }
      }
    }
    let threads = runs.withLock { $0 }
    #expect(threads.count == 3)
    #expect(threads.values.allSatisfy { $0.count == 1 && $0.values.first == roundCount })
    #expect(Set(threads.values.flatMap(\.keys)).count == 3)
  }

  @Test func `fewer parts than threads leave the others idle`() {
    let team = ThreadTeam(size: 4)
    let parts = Mutex<[Int]>([])
    for _ in 0..<100 { team.run(2) { part in parts.withLock { $0.append(part) } } }
    #expect(
      parts.withLock { $0.sorted() } == Array(repeating: 0, count: 100)
        + Array(repeating: 1, count: 100))
  }
}
