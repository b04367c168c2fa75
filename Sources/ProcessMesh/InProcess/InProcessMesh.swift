// Ranks as threads of this process: what `swift test` and the one-process programs use instead of
// mpirun.

import Basics
import Foundation
import Synchronization

/// The transport of ranks that are threads.
package typealias InProcessTransport = LinkTransport<InProcessLink>

package enum InProcessMesh {
  /// Runs `body` on `size` threads, one per rank, and returns their results by rank.
  ///
  /// - Parameters:
  ///   - nodes: the pretended node of every rank; default: all on one.
  ///   - watchdog: a wait longer than this prints the last collectives; default: never.
  /// - Throws: the error that a rank threw first; waits of the other ranks end with `PeerError`.
  package static func run<Result: Sendable>(
    size: Int, nodes: [Int]? = nil, watchdog: Duration? = nil,
    _ body: @escaping @Sendable (any Transport) throws -> Result
  ) throws -> [Result] {
    require(size > 0, "a mesh of \(size) ranks")
    let nodes = nodes ?? Array(repeating: 0, count: size)
    require(nodes.count == size, "\(nodes.count) nodes for \(size) ranks")
    let mailboxes = (0..<size).map { _ in Mailbox() }
    let outcome = Outcome<Result>()
    let finished = DispatchGroup()
    for rank in 0..<size {
      finished.enter()
      let thread = Thread {
        let link = InProcessLink(
          rank: rank, members: Array(0..<size), group: GroupPath(), mailboxes: mailboxes,
          nodes: nodes, history: CollectiveHistory(worldRank: rank, limit: watchdog))
        do {
          let result = try body(LinkTransport(link))
          outcome.state.withLock { $0.results[rank] = result }
          for mailbox in mailboxes { mailbox.noteDeparture(ofWorldRank: rank) }
        } catch {
          // A rank that ends because a peer failed passes on that failure, not one of its own.
          let seen = outcome.state.withLock { state in
            if let first = state.firstFailure { return first }
            let first = PeerError(
              code: .rankFailed, rank: rank, message: "failed: \(error)", cause: error)
            state.firstFailure = first
            state.firstError = error
            return first
          }
          for mailbox in mailboxes { mailbox.fail(with: seen) }
        }
        finished.leave()
      }
      thread.name = "rank \(rank)"
      thread.stackSize = 64 << 20
      thread.start()
    }
    finished.wait()
    return try outcome.state.withLock { state in
      if let error = state.firstError { throw error }
      return (0..<size).compactMap { state.results[$0] }
    }
  }
}

/// What the threads of a run leave behind.
private final class Outcome<Result: Sendable>: Sendable {
  struct State: Sendable {
    var results: [Int: Result] = [:]
    var firstError: (any Error)?
    var firstFailure: PeerError?
  }
  let state = Mutex(State())
}
