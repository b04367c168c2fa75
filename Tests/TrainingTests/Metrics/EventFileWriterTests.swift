import Compression
import Foundation
import SwiftProtobuf
import TestSupport
import Testing

@testable import Training

/// The messages of an event file, after checking every length and checksum.
private func messages(_ bytes: [UInt8]) throws -> [[UInt8]] {
  func integer(_ range: Range<Int>) -> UInt64 {
    bytes[range].reversed().reduce(0) { $0 << 8 | UInt64($1) }
  }
  func masked(_ range: Range<Int>) -> UInt64 {
    let checksum = CRC32C.checksum(of: Array(bytes[range]))
    return UInt64((checksum >> 15 | checksum << 17) &+ 0xa282_ead8)
  }
  var result: [[UInt8]] = []
  var offset = 0
  while offset < bytes.count {
    try #require(offset + 12 <= bytes.count)
    let length = Int(integer(offset..<(offset + 8)))
    #expect(integer((offset + 8)..<(offset + 12)) == masked(offset..<(offset + 8)))
    let start = offset + 12
    try #require(start + length + 4 <= bytes.count)
    #expect(integer((start + length)..<(start + length + 4)) == masked(start..<(start + length)))
    result.append(Array(bytes[start..<(start + length)]))
    offset = start + length + 4
  }
  return result
}

@Suite struct EventFileWriterTests {
  @Test func `the records read back, the version first`() throws {
    try withTemporaryFolder { folder in
      var now = 1_700_000_000.5
      let writer = try EventFileWriter(folder: folder, clock: { now })
      #expect(writer.url.lastPathComponent == "events.out.tfevents.1700000000.w2svd")
      for step in 1...3 {
        now += 1
        try writer.write(
          step: step, scalars: [("teach/loss", 1 / Double(step)), ("teach/tokens_per_s", 1e5)])
        // Everything is in the file after each step, without closing it.
        let events = try messages([UInt8](Data(contentsOf: writer.url))).map {
          try TensorBoardEvent(serializedBytes: $0)
        }
        #expect(events.count == step + 1)
        #expect(events[0].fileVersion == "brain.Event:2")
        #expect(events[0].wallTime == 1_700_000_000.5)
        let last = try #require(events.last)
        #expect(last.step == Int64(step) && last.wallTime == now)
        #expect(last.summary.value.map(\.tag) == ["teach/loss", "teach/tokens_per_s"])
        #expect(last.summary.value.map(\.simpleValue) == [1 / Float(step), 1e5])
      }
    }
  }

  @Test func `the first record has the bytes that TensorBoard writes`() throws {
    var event = TensorBoardEvent()
    event.wallTime = 1
    event.fileVersion = "brain.Event:2"
    let bytes: [UInt8] = try event.serializedBytes()
    // Field 1 as a little-endian double, field 3 as 13 characters.
    #expect(
      bytes == [0x09, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0x1a, 13] + Array("brain.Event:2".utf8))
    #expect(
      EventFileWriter.record(bytes).prefix(12) == [24, 0, 0, 0, 0, 0, 0, 0, 0xa3, 0x7f, 0x4b, 0x22])
  }

  @Test func `a second writer of the same second makes a file of its own`() throws {
    try withTemporaryFolder { folder in
      let first = try EventFileWriter(folder: folder, clock: { 5 })
      let second = try EventFileWriter(folder: folder, clock: { 5 })
      #expect(first.url.lastPathComponent == "events.out.tfevents.0000000005.w2svd")
      #expect(second.url.lastPathComponent == "events.out.tfevents.0000000005.w2svd.1")
    }
  }

  @Test func `a folder that is not there is an error`() throws {
    try withTemporaryFolder { folder in
      let error = #expect(throws: MetricsError.self) {
        try EventFileWriter(folder: folder.appending(path: "none"))
      }
      #expect(error?.code == .cannotOpen)
    }
  }
}
