// TensorBoard event files with scalars.
//
// A file is a sequence of records: u64 length, u32 masked CRC-32C of the length's bytes, the data,
// u32 masked CRC-32C of the data; all little-endian. The first record names the file version, each
// further one holds the scalars of a step. Files are never reopened: a resumed run writes another
// one beside the first, and TensorBoard joins those of a folder in the order of their names.
// - Source: tensorflow/core/lib/io/record_writer.cc, tsl/lib/hash/crc32c.h (the mask).

import Compression
package import Foundation
import SwiftProtobuf

package final class EventFileWriter {
  package let url: URL
  private let file: FileHandle
  private let clock: () -> Double

  /// Makes `events.out.tfevents.<seconds>.<suffix>` in a folder that exists; where that is taken, a
  /// number is added.
  ///
  /// - Parameter clock: seconds since 1970.
  /// - Throws: `MetricsError`.
  package init(
    folder: URL, suffix: String = "w2svd",
    clock: @escaping () -> Double = { Date().timeIntervalSince1970 }
  ) throws {
    let now = clock()
    let seconds = String(format: "%010d", Int(now))
    var url = folder.appending(path: "events.out.tfevents.\(seconds).\(suffix)")
    var attempt = 1
    while FileManager.default.fileExists(atPath: url.path) {
      url = folder.appending(path: "events.out.tfevents.\(seconds).\(suffix).\(attempt)")
      attempt += 1
    }
    self.url = url
    self.clock = clock
    do {
      try Data().write(to: url, options: .withoutOverwriting)
      file = try FileHandle(forWritingTo: url)
    } catch {
      throw MetricsError(
        code: .cannotOpen,
        message: "cannot make the event file \(url.path); \(MetricsError.advice)",
        cause: error)
    }
    var event = TensorBoardEvent()
    event.wallTime = now
    event.fileVersion = "brain.Event:2"
    try write(event)
  }

  deinit { try? file.close() }

  /// Writes the scalars of one step, in their order, and hands them to the system at once.
  ///
  /// - Parameter scalars: tag, such as `teach/loss`, and value; TensorBoard keeps 32 bits of it.
  package func write(step: Int, scalars: [(tag: String, value: Double)]) throws {
    var event = TensorBoardEvent()
    event.wallTime = clock()
    event.step = Int64(step)
    event.summary.value = scalars.map { scalar in
      var value = TensorBoardSummary.Value()
      value.tag = scalar.tag
      value.simpleValue = Float(scalar.value)
      return value
    }
    try write(event)
  }

  private func write(_ event: TensorBoardEvent) throws {
    do {
      let message: [UInt8] = try event.serializedBytes()
      try file.write(contentsOf: Data(Self.record(message)))
    } catch {
      throw MetricsError(
        code: .cannotWrite, message: "cannot write to \(url.path); \(MetricsError.advice)",
        cause: error)
    }
  }

  /// A message framed by its length and both checksums.
  static func record(_ message: [UInt8]) -> [UInt8] {
    let length = littleEndian(UInt64(message.count))
    return length + littleEndian(maskedChecksum(length)) + message
      + littleEndian(maskedChecksum(message))
  }

  /// CRC-32C rotated right by 15 plus a constant: checksums of data that holds checksums are weak.
  static func maskedChecksum(_ bytes: [UInt8]) -> UInt32 {
    let checksum = CRC32C.checksum(of: bytes)
    return (checksum >> 15 | checksum << 17) &+ 0xa282_ead8
  }

  private static func littleEndian(_ value: some FixedWidthInteger) -> [UInt8] {
    (0..<(value.bitWidth / 8)).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
  }
}
