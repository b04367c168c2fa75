// The bytes of a message, in memory that MPI sends from and receives into.

/// The bytes of one message, behind room for their number: nothing is copied on the way to MPI.
///
/// Once it is sent nobody may change it: a receiver in the same process reads the same memory.
@safe
package final class Payload {
  static let headerByteCount = 8
  /// Below Open MPI's shared-memory eager limit of 4096 with its own header.
  static let frontByteCount = 3840

  package let count: Int
  private let memory: UnsafeMutableRawPointer

  /// Memory for a payload, to be received into.
  init(byteCount: Int) {
    count = byteCount
    unsafe memory = .allocate(byteCount: Self.headerByteCount + byteCount, alignment: 64)
  }

  /// What `write` writes into at most `capacity` bytes; it returns how many it wrote.
  package init<Failure: Error>(
    capacity: Int, _ write: (inout MutableRawSpan) throws(Failure) -> Int
  ) throws(Failure) {
    let memory = UnsafeMutableRawPointer.allocate(
      byteCount: Self.headerByteCount + capacity, alignment: 64)
    unsafe self.memory = unsafe memory
    var room = unsafe UnsafeMutableRawBufferPointer(
      start: memory + Self.headerByteCount, count: capacity
    ).mutableBytes
    do {
      count = try write(&room)
    } catch {
      unsafe memory.deallocate()
      throw error
    }
    precondition(count >= 0 && count <= capacity, "\(count) bytes written into \(capacity)")
    unsafe memory.storeBytes(of: UInt64(count).littleEndian, as: UInt64.self)
  }

  package convenience init(_ bytes: [UInt8]) {
    self.init(capacity: bytes.count) { room in
      unsafe room.withUnsafeMutableBytes { unsafe $0.copyBytes(from: bytes) }
      return bytes.count
    }
  }

  deinit { unsafe memory.deallocate() }

  package func withBytes<Result, Failure: Error>(
    _ body: (RawSpan) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    let bytes = unsafe UnsafeRawBufferPointer(start: memory + Self.headerByteCount, count: count)
    return try body(unsafe bytes.bytes)
  }

  package var array: [UInt8] {
    unsafe Array(UnsafeRawBufferPointer(start: memory + Self.headerByteCount, count: count))
  }

  /// Header and bytes: what travels.
  var frame: UnsafeMutableRawBufferPointer {
    unsafe UnsafeMutableRawBufferPointer(start: memory, count: Self.headerByteCount + count)
  }

  /// The number of bytes that a received header tells.
  var announcedByteCount: Int {
    Int(UInt64(littleEndian: unsafe memory.load(as: UInt64.self)))
  }
}
