// A group of ranks that exchange byte messages. Messages are started, then waited for by testing
// with back-off; while a rank waits for some, all its started messages move on, so the order in
// which ranks wait does not matter.

import COpenMPI

/// All started messages of this process, over all communicators.
final class Progress {
  private var active: [ByteMessage] = []

  func add(_ message: ByteMessage) { active.append(message) }

  /// Moves every message on; true if any went through.
  func advance() throws(MPIError) -> Bool {
    var remaining: [ByteMessage] = []
    remaining.reserveCapacity(active.count)
    for message in active where try !message.step() { remaining.append(message) }
    defer { active = remaining }
    return remaining.count < active.count
  }
}

/// A communicator. Freed only by `free()`, which is collective, never by going out of scope.
@safe
package final class Communicator {
  package let rank: Int
  package let size: Int
  /// The longest part in which a message travels; the same on all ranks. Default 2³⁰ bytes, below
  /// MPI's limit of 2³¹ - 1; tests set it small.
  package var partByteCount = 1 << 30
  private let handle: MPI_Comm
  private let progress: Progress

  init(_ handle: MPI_Comm, progress: Progress) throws(MPIError) {
    unsafe self.handle = handle
    self.progress = progress
    rank = try unsafe Checked.rank(in: handle)
    size = try unsafe Checked.size(of: handle)
  }

  // MARK: Messages

  /// Starts sending the same payload to every one of `peers`.
  ///
  /// At most one message per peer and tag may be under way in each direction.
  package func startSend(
    _ payload: Payload, to peers: [Int], tag: Int
  ) throws(MPIError) -> [ByteMessage] {
    var messages: [ByteMessage] = []
    for peer in peers {
      let message = unsafe ByteMessage(
        peer: peer, tag: tag, communicator: handle, partByteCount: partByteCount)
      try message.startSending(payload)
      progress.add(message)
      messages.append(message)
    }
    return messages
  }

  /// Starts receiving a message of any size.
  package func startReceive(from peer: Int, tag: Int) throws(MPIError) -> ByteMessage {
    let message = unsafe ByteMessage(
      peer: peer, tag: tag, communicator: handle, partByteCount: partByteCount)
    try message.startReceiving()
    progress.add(message)
    return message
  }

  /// Moves all started messages of this process on, without waiting.
  package func advance() throws(MPIError) { _ = try progress.advance() }

  /// Waits until all of `messages` are through, testing, yielding, then sleeping.
  ///
  /// - Parameter onLongWait: told the time waited so far, whenever the wait is about to sleep.
  package func wait(
    for messages: [ByteMessage], onLongWait: (Duration) -> Void = { _ in }
  ) throws(MPIError) {
    var backOff = BackOff()
    while true {
      if try progress.advance() { backOff.noteProgress() }
      if messages.allSatisfy(\.isComplete) { return }
      backOff.pause()
      if backOff.isSleeping { onLongWait(backOff.elapsed) }
    }
  }

  // MARK: Groups

  /// - Collective: over the communicator. Ranks with one color form a group, by key, then rank.
  package func split(color: Int, key: Int) throws(MPIError) -> Communicator {
    try unsafe derived(
      Checked.split(handle, color: Checked.int(color), key: Checked.int(key)))
  }

  /// The ranks that share this rank's node.
  /// - Collective: over the communicator.
  package func splitByNode() throws(MPIError) -> Communicator {
    try unsafe derived(Checked.splitByNode(handle))
  }

  /// The same ranks with messages of their own.
  /// - Collective: over the communicator.
  package func duplicate() throws(MPIError) -> Communicator {
    try unsafe derived(Checked.duplicate(handle))
  }

  /// One integer of every rank, by rank. For set-up: MPI's own wait spins.
  /// - Collective: over the communicator.
  package func allGather(_ value: Int) throws(MPIError) -> [Int] {
    try unsafe Checked.allGather(Int64(value), count: size, over: handle).map(Int.init)
  }

  /// Gives the communicator back; it must not be used afterwards.
  /// - Collective: over the communicator.
  package func free() throws(MPIError) { try unsafe Checked.free(handle) }

  private func derived(_ handle: MPI_Comm) throws(MPIError) -> Communicator {
    let result = try unsafe Communicator(handle, progress: progress)
    result.partByteCount = partByteCount
    return result
  }
}
