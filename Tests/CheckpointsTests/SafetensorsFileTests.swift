import Basics
import DenseKernels
import Foundation
import TestSupport
import Testing

@testable import Checkpoints

/// Reader and writer together, and against files of the reference implementation.
struct SafetensorsFileTests {
  static let fixtures = URL(filePath: #filePath).deletingLastPathComponent()
    .appending(path: "../Fixtures/safetensors").standardizedFileURL

  static let shapes: [[Int]] = [[], [0], [1], [5], [3, 0, 2], [2, 3], [3, 1, 5]]

  private func roundTrip<Element: StorableElement & Equatable>(_ make: (Int) -> Element) throws {
    try withTemporaryFolder { folder in
      let url = folder.appending(path: "x.safetensors")
      let declarations = Self.shapes.enumerated().map {
        TensorDeclaration("t\($0)", Element.storedType, shape: $1)
      }
      let writer = try SafetensorsWriter(creating: url, tensors: declarations)
      for declaration in declarations {
        let values = (0..<declaration.count).map(make)
        // In two parts, as a streaming caller does.
        for part in [values.prefix(2), values.dropFirst(2)] {
          try Array(part).withBytes { try writer.append(bytes: $0, to: declaration.name) }
        }
      }
      try writer.finish()
      let reader = try SafetensorsReader(opening: url)
      #expect(Set(reader.tensors) == Set(declarations))
      for declaration in declarations {
        let count = declaration.count
        for lower in 0...count {
          for upper in lower...count {
            let target = Buffer<Element>(zeroed: upper - lower)
            try reader.readExactly(declaration.name, elements: lower..<upper, into: target)
            #expect(target.array == (lower..<upper).map(make))
          }
        }
      }
    }
  }

  @Test func `each element type survives the round trip in every shape and part`() throws {
    try roundTrip { Float($0) - 0.5 }
    try roundTrip { Double($0) / 3 }
    try roundTrip { Float16($0) / 4 }
    try roundTrip { Int64($0) << 40 - 1 }
    try roundTrip { Int32($0) - 70_000 }
    try roundTrip { Int16($0) - 300 }
    try roundTrip { Int8($0) - 5 }
    try roundTrip { UInt64($0) << 60 }
    try roundTrip { UInt32($0) + 3_000_000_000 }
    try roundTrip { UInt16($0) + 60_000 }
    try roundTrip { UInt8($0) + 200 }
  }

  @Test func `floats are rounded on the way out and widened on the way in, across chunks`() throws {
    try withTemporaryFolder { folder in
      let url = folder.appending(path: "x.safetensors")
      let values = RandomStream(seed: 3, purpose: .tests).normals(count: conversionChunk + 3)
      let types: [StoredType] = [.float32, .bfloat16, .float16, .float64]
      let writer = try SafetensorsWriter(
        creating: url,
        tensors: types.map { TensorDeclaration($0.rawValue, $0, shape: [values.count]) })
      for type in types { try writer.append(values, to: type.rawValue) }
      try writer.finish()
      let reader = try SafetensorsReader(opening: url)
      #expect(try reader.floats("F32") == values)
      #expect(try reader.floats("F64") == values)
      #expect(try reader.floats("F16") == values.map { Float(Float16($0)) })
      #expect(
        try reader.floats("BF16") == values.map { BFloat16.value(ofBits: BFloat16.bits(of: $0)) })
      let part = Buffer<Float>(zeroed: 5)
      try reader.read("BF16", elements: conversionChunk - 2..<conversionChunk + 3, into: part)
      #expect(try part.array == Array(reader.floats("BF16").suffix(5)))
    }
  }

  @Test func `a file of the reference implementation reads with every type`() throws {
    let reader = try SafetensorsReader(
      opening: Self.fixtures.appending(path: "all-types.safetensors"))
    let exact: [Float] = [0, -0.0, 1, -2.5, 0.15625, 96, .infinity, -0x1p-10]
    for name in ["f32", "f64", "f16", "bf16"] {
      let found = try reader.floats(name)
      #expect(found.map(\.bitPattern) == exact.map(\.bitPattern), "\(name)")
    }
    func integers<Element: StorableElement>(_ name: String, _ type: Element.Type) throws
      -> [Element]
    {
      let target = Buffer<Element>(zeroed: try reader.declaration(of: name).count)
      try reader.readExactly(name, into: target)
      return target.array
    }
    #expect(try integers("i64", Int64.self) == [-(1 << 62), 7])
    #expect(try integers("i32", Int32.self) == [-5, .max, 0])
    #expect(try integers("i16", Int16.self) == [-300, 300])
    #expect(try integers("i8", Int8.self) == [-128, 127, 1])
    #expect(try integers("u8", UInt8.self) == [0, 255, 3])
    #expect(try reader.bytes("bool") == [1, 0, 1])
    #expect(try reader.declaration(of: "f16").shape == [2, 2, 2])
    #expect(try reader.declaration(of: "scalar").shape == [])
    #expect(try reader.floats("scalar") == [3.5])
    #expect(try reader.declaration(of: "empty").shape == [0, 4])
    #expect(try reader.floats("name \"with\" ünïcode\n") == [1])
    #expect(reader.header.metadata == ["format": "pt", "key ü": "a \"b\""])
  }

  @Test func `a file cut at any length is refused`() throws {
    let whole = try readWhole(Self.fixtures.appending(path: "all-types.safetensors"))
    try withTemporaryFolder { folder in
      let url = folder.appending(path: "x.safetensors")
      try Data(whole).write(to: url)
      let file = try PositionedFile(url.plainPath, for: .locking)
      for length in whole.indices.reversed() {
        try file.truncate(to: length)
        let error = #expect(throws: CheckpointError.self) { try SafetensorsReader(opening: url) }
        #expect(error?.code == .damaged)
      }
      try Data(whole + [0]).write(to: url)
      #expect(throws: CheckpointError.self) { try SafetensorsReader(opening: url) }
    }
  }

  @Test func `wrong requests say what is there`() throws {
    let url = Self.fixtures.appending(path: "all-types.safetensors")
    let reader = try SafetensorsReader(opening: url)
    func code(_ body: () throws -> Void) -> CheckpointError.Code? {
      do { try body() } catch { return (error as? CheckpointError)?.code }
      return nil
    }
    #expect(code { _ = try reader.floats("nothing") } == .notFound)
    #expect(code { _ = try reader.floats("i32") } == .unsupported)
    #expect(code { try reader.readExactly("f32", into: Buffer<Double>(zeroed: 8)) } == .unsupported)
    #expect(code { _ = try SafetensorsReader(opening: url.appending(path: "none")) } == .notFound)
    #expect(code { _ = try SafetensorsReader(opening: Self.fixtures) } != nil)
  }

  @Test func `a header beyond the limit is refused before it is read`() throws {
    try withTemporaryFolder { folder in
      let url = folder.appending(path: "x.safetensors")
      let length = UInt64(SafetensorsHeader.largestJSONByteCount + 1)
      let field = (0..<8).map { UInt8(truncatingIfNeeded: length >> (8 * $0)) }
      try Data(field + [0x7B, 0x7D]).write(to: url)
      let error = #expect(throws: CheckpointError.self) { try SafetensorsReader(opening: url) }
      #expect(error?.message.contains("more than 100000000") == true)
    }
  }

  @Test func `a full disk is told with the path and the bytes needed`() throws {
    let error = #expect(throws: CheckpointError.self) {
      try SafetensorsWriter(
        creating: URL(filePath: "/dev/full"),
        tensors: [TensorDeclaration("a", .float32, shape: [1000])])
    }
    #expect(error?.code == .diskFull)
    #expect(error?.message.contains("/dev/full") == true)
    #expect(error?.message.contains("it needs 4") == true)
  }
}
