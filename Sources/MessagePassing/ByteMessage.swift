// One message of any size on its way, out or in.
//
// On the wire: a front part of 8 bytes of size (little endian) and the first bytes of the payload,
// small enough that MPI sends it eagerly; then the rest in parts below MPI's 32-bit limit. So a
// short message is one MPI message, and a receiver never needs to know sizes beforehand.

import COpenMPI

/// A started message. While under way it is kept alive by the process's list of messages, so
/// MPI never writes to memory that is gone, even when the caller has left with an error.
@safe
package final class ByteMessage {
  private let peer: Int
  private let tag: Int
  private let partByteCount: Int
  private let communicator: MPI_Comm
  private var payload: Payload?
  /// Parts under way: the request and, for a receive, how many bytes must come.
  private var requests: [(handle: MPI_Request, expected: Int?)] = unsafe []
  private var awaitsFront = false
  package private(set) var isComplete = false

  init(peer: Int, tag: Int, communicator: MPI_Comm, partByteCount: Int) {
    self.peer = peer
    self.tag = tag
    self.partByteCount = partByteCount
    unsafe self.communicator = unsafe communicator
  }

  /// What came in.
  /// - Precondition: a receive that is complete.
  package func received() -> Payload {
    guard isComplete, let payload else {
      preconditionFailure("a message was read before it was here")
    }
    return payload
  }

  func startSending(_ payload: Payload) throws(MPIError) {
    self.payload = payload
    for range in parts(ofFrameByteCount: unsafe payload.frame.count) {
      let part = unsafe UnsafeRawBufferPointer(rebasing: payload.frame[range])
      let request = try unsafe Checked.startSend(part, to: peer, tag: tag, over: communicator)
      unsafe requests.append((request, nil))
    }
  }

  func startReceiving() throws(MPIError) {
    let front = Payload(byteCount: Payload.frontByteCount - Payload.headerByteCount)
    payload = front
    awaitsFront = true
    let request = try unsafe Checked.startReceive(
      into: front.frame, from: peer, tag: tag, over: communicator)
    unsafe requests.append((request, nil))
  }

  /// Tests what is under way and starts what can follow; true when the message is through.
  func step() throws(MPIError) -> Bool {
    while let request = unsafe requests.first {
      guard let count = try unsafe Checked.test(request.handle) else { return false }
      unsafe requests.removeFirst()
      if awaitsFront {
        awaitsFront = false
        try receiveRest(frontByteCount: count)
      } else if let expected = unsafe request.expected, expected != count {
        throw malformed("a part of \(count) bytes where \(expected) were announced")
      }
    }
    isComplete = true
    return true
  }

  private func receiveRest(frontByteCount: Int) throws(MPIError) {
    guard let front = payload, frontByteCount >= Payload.headerByteCount else {
      throw malformed("a front of \(frontByteCount) bytes, too short for its header")
    }
    let whole = Payload(byteCount: front.announcedByteCount)
    let ranges = unsafe parts(ofFrameByteCount: whole.frame.count)
    guard ranges[0].count == frontByteCount else {
      throw malformed("a front of \(frontByteCount) bytes where \(ranges[0].count) were announced")
    }
    unsafe whole.frame.copyMemory(
      from: UnsafeRawBufferPointer(rebasing: front.frame[..<frontByteCount]))
    payload = whole
    for range in ranges.dropFirst() {
      let part = unsafe UnsafeMutableRawBufferPointer(rebasing: whole.frame[range])
      let request = try unsafe Checked.startReceive(
        into: part, from: peer, tag: tag, over: communicator)
      unsafe requests.append((request, range.count))
    }
  }

  /// The front, then parts of at most `partByteCount`.
  private func parts(ofFrameByteCount byteCount: Int) -> [Range<Int>] {
    let front = min(byteCount, Payload.frontByteCount)
    return [0..<front]
      + stride(from: front, to: byteCount, by: partByteCount).map {
        $0..<min($0 + partByteCount, byteCount)
      }
  }

  private func malformed(_ message: String) -> MPIError {
    MPIError(
      code: .malformedMessage, call: "MPI_Irecv",
      rank: (try? unsafe Checked.rank(in: communicator)) ?? -1,
      message: "from rank \(peer), tag \(tag): \(message)")
  }
}
