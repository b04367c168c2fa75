// One message of any size on its way, out or in.
//
// On the wire: a front part of 8 bytes of size (little endian) and the first bytes of the payload,
// small enough that MPI sends it eagerly; then the rest in parts below MPI's 32-bit limit. So a
// short message is one MPI message, and a receiver never needs to know sizes beforehand.

import COpenMPI

/// Memory that MPI reads or writes; freed when the last message over it is through and gone.
@safe
final class Frame {
  static let headerByteCount = 8
  /// Below Open MPI's shared-memory eager limit of 4096 with its own header.
  static let frontByteCount = 3840

  let bytes: UnsafeMutableRawBufferPointer

  init(byteCount: Int) {
    unsafe bytes = .allocate(byteCount: byteCount, alignment: 64)
  }

  /// The frame of a payload: its size, then its bytes.
  convenience init(_ payload: [UInt8]) {
    self.init(byteCount: Self.headerByteCount + payload.count)
    unsafe bytes.storeBytes(of: UInt64(payload.count).littleEndian, as: UInt64.self)
    unsafe payload.withUnsafeBytes { source in
      unsafe UnsafeMutableRawBufferPointer(rebasing: bytes[Self.headerByteCount...])
        .copyMemory(from: source)
    }
  }

  deinit { unsafe bytes.deallocate() }

  /// The payload's size as the front says.
  var announcedByteCount: Int {
    Int(UInt64(littleEndian: unsafe bytes.load(as: UInt64.self)))
  }

  func payload() -> [UInt8] { unsafe Array(bytes[Self.headerByteCount...]) }
}

/// A started message. While under way it is kept alive by the process's list of messages, so
/// MPI never writes to memory that is gone, even when the caller has left with an error.
@safe
package final class ByteMessage {
  private let peer: Int
  private let tag: Int
  private let partByteCount: Int
  private let communicator: MPI_Comm
  private var frame: Frame?
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
  package func payload() -> [UInt8] {
    guard isComplete, let frame else {
      preconditionFailure("a message was read before it was here")
    }
    return frame.payload()
  }

  func startSending(_ frame: Frame) throws(MPIError) {
    self.frame = frame
    for range in parts(ofFrameByteCount: unsafe frame.bytes.count) {
      let part = unsafe UnsafeRawBufferPointer(rebasing: frame.bytes[range])
      let request = try unsafe Checked.startSend(part, to: peer, tag: tag, over: communicator)
      unsafe requests.append((request, nil))
    }
  }

  func startReceiving() throws(MPIError) {
    let front = Frame(byteCount: Frame.frontByteCount)
    frame = front
    awaitsFront = true
    let request = try unsafe Checked.startReceive(
      into: front.bytes, from: peer, tag: tag, over: communicator)
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
    // A sender's copy is not needed any more; a receiver's is, for `payload()`.
    return true
  }

  private func receiveRest(frontByteCount: Int) throws(MPIError) {
    guard let front = frame, frontByteCount >= Frame.headerByteCount else {
      throw malformed("a front of \(frontByteCount) bytes, too short for its header")
    }
    let whole = Frame(byteCount: Frame.headerByteCount + front.announcedByteCount)
    let ranges = unsafe parts(ofFrameByteCount: whole.bytes.count)
    guard ranges[0].count == frontByteCount else {
      throw malformed("a front of \(frontByteCount) bytes where \(ranges[0].count) were announced")
    }
    unsafe whole.bytes.copyMemory(
      from: UnsafeRawBufferPointer(rebasing: front.bytes[..<frontByteCount]))
    frame = whole
    for range in ranges.dropFirst() {
      let part = unsafe UnsafeMutableRawBufferPointer(rebasing: whole.bytes[range])
      let request = try unsafe Checked.startReceive(
        into: part, from: peer, tag: tag, over: communicator)
      unsafe requests.append((request, range.count))
    }
  }

  /// The front, then parts of at most `partByteCount`.
  private func parts(ofFrameByteCount byteCount: Int) -> [Range<Int>] {
    let front = min(byteCount, Frame.frontByteCount)
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
