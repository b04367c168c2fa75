// Messages between processes, carried by MPI.

import Basics
package import MessagePassing

/// The transport of ranks that are MPI processes.
package typealias MPITransport = LinkTransport<MPILink>

/// A rank's ends of the messages of an MPI communicator.
package final class MPILink: MessageLink {
  package let history: CollectiveHistory
  private let communicator: Communicator
  /// The node of every rank of the group, as the lowest world rank on it.
  private let nodes: [Int]

  package init(_ communicator: Communicator, nodes: [Int], history: CollectiveHistory) {
    require(
      nodes.count == communicator.size, "\(nodes.count) nodes for \(communicator.size) ranks")
    self.communicator = communicator
    self.nodes = nodes
    self.history = history
  }

  package var rank: Int { communicator.rank }
  package var size: Int { communicator.size }

  /// Never: a failed process ends the job.
  package var isBroken: Bool { false }

  package func adoptThread() { MPIThread.adoptCurrent() }

  package func abandon(_ error: any Error) { MPIProgram.abort(error, history, code: 1) }

  package func isSameNode(_ peer: Int) -> Bool { nodes[peer] == nodes[rank] }

  package func startSend(
    _ payload: Payload, to peers: [Int], tag: Int
  ) throws -> [any LinkMessage] {
    try communicator.startSend(payload, to: peers, tag: tag).map {
      MPIMessage($0, communicator: communicator)
    }
  }

  package func startReceive(from peer: Int, tag: Int) throws -> any LinkMessage {
    MPIMessage(try communicator.startReceive(from: peer, tag: tag), communicator: communicator)
  }

  package func wait(for messages: [any LinkMessage]) throws {
    try communicator.wait(
      for: messages.map { message in
        guard let message = message as? MPIMessage else {
          trap("a message of another link")
        }
        return message.message
      },
      onLongWait: history.noteWait)
  }

  package func split(color: Int, key: Int) throws -> MPILink {
    let part = try communicator.split(color: color, key: key)
    return MPILink(part, nodes: try part.allGather(nodes[rank]), history: history)
  }
}

private final class MPIMessage: LinkMessage {
  let message: ByteMessage
  private let communicator: Communicator

  init(_ message: ByteMessage, communicator: Communicator) {
    self.message = message
    self.communicator = communicator
  }

  func advance() throws -> Bool {
    if !message.isComplete { try communicator.advance() }
    return message.isComplete
  }

  func received() -> Payload { message.received() }
}
