import Foundation
import TestSupport
import Testing

@testable import DenseKernels

struct PositionedFileTests {
  @Test func `what is written at an offset is read at that offset`() throws {
    try withTemporaryFolder { folder in
      let path = folder.appending(path: "x").path(percentEncoded: false)
      let file = try PositionedFile(path, for: .creating)
      try [Int32(7), 8, 9].withBytes { try file.write($0, at: 4) }
      try file.synchronize()
      #expect(try file.byteCount == 16)
      let target = Buffer<Int32>(zeroed: 2)
      try target.withMutableBytes { try PositionedFile(path, for: .reading).read(into: &$0, at: 8) }
      #expect(target.array == [8, 9])
      // Past the end there is nothing to fill the target with.
      let error = #expect(throws: SystemCallError.self) {
        try target.withMutableBytes { try file.read(into: &$0, at: 12) }
      }
      #expect(error?.code == 0)
    }
  }

  @Test func `failures carry the call, the path and the reason`() throws {
    let missing = #expect(throws: SystemCallError.self) {
      try PositionedFile("/nowhere/x", for: .reading)
    }
    #expect(missing?.isMissing == true)
    #expect(missing?.description == "open /nowhere/x: No such file or directory")
    let full = #expect(throws: SystemCallError.self) {
      try [UInt8(1)].withBytes {
        try PositionedFile("/dev/full", for: .creating).write($0, at: 0)
      }
    }
    #expect(full?.isOutOfSpace == true)
  }

  @Test func `a lock is free again when its file is closed`() throws {
    try withTemporaryFolder { folder in
      let path = folder.appending(path: "x").path(percentEncoded: false)
      var first: PositionedFile? = try PositionedFile(path, for: .locking)
      #expect(try first?.lockIfFree() == true)
      let second = try PositionedFile(path, for: .locking)
      #expect(try !second.lockIfFree())
      first = nil
      #expect(try second.lockIfFree())
    }
  }
}
