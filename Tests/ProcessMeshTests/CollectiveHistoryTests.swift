import Foundation
import ProcessMesh
import Synchronization
import Testing

struct CollectiveHistoryTests {
  @Test func `the ring keeps the last entries, oldest first`() {
    let history = CollectiveHistory(worldRank: 0, limit: nil, capacity: 3)
    for index in 0..<5 { history.record("c\(index)", groupSize: 2, byteCount: index * 10) }
    #expect(
      history.recent.map(\.description) == [
        "#2 c2, group of 2, 20 bytes", "#3 c3, group of 2, 30 bytes", "#4 c4, group of 2, 40 bytes",
      ])
  }

  @Test func `a wait beyond the limit is reported once, with the ring`() {
    let reports = Mutex<[String]>([])
    let history = CollectiveHistory(worldRank: 3, limit: .seconds(5)) { text in
      reports.withLock { $0.append(text) }
    }
    history.record("allGather", groupSize: 4, byteCount: 12)
    history.noteWait(of: .seconds(5))
    let early = reports.withLock(\.self)
    #expect(early.isEmpty)
    history.noteWait(of: .seconds(6))
    history.noteWait(of: .seconds(7))
    let texts = reports.withLock(\.self)
    #expect(
      texts == [
        """
        rank 3 has waited 6.0 seconds for its peers; its last collectives:
          #0 allGather, group of 4, 12 bytes

        """
      ])
  }

  @Test func `without a limit nothing is reported`() {
    let history = CollectiveHistory(worldRank: 0, limit: nil) { Issue.record("reported \($0)") }
    history.noteWait(of: .seconds(1_000_000))
    #expect(history.recent.isEmpty)
  }
}
