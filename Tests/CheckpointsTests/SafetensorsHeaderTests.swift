import Testing

@testable import Checkpoints

struct SafetensorsHeaderTests {
  @Test func `a header lays out by falling element size, then by name, aligned`() throws {
    let tensors = [
      TensorDeclaration("b", .bfloat16, shape: [3]), TensorDeclaration("z", .float64, shape: [1]),
      TensorDeclaration("a", .bfloat16, shape: []),
      TensorDeclaration("e", .float32, shape: [0, 2]),
    ]
    let header = SafetensorsHeader(layingOut: tensors, metadata: ["k\"": "v"])
    #expect(header.entries.map(\.tensor.name) == ["z", "e", "a", "b"])
    let encoded = header.encoded()
    #expect(encoded.count == header.dataStart)
    #expect(header.dataStart % 8 == 0)
    for entry in header.entries {
      #expect(entry.bytes.lowerBound % entry.tensor.type.byteCount == 0)
    }

    let parsed = try SafetensorsHeader(
      parsing: Array(encoded.dropFirst(8)), fileByteCount: header.fileByteCount, path: "x")
    #expect(
      parsed.entries.sorted { $0.tensor.name < $1.tensor.name }
        == header.entries.sorted { $0.tensor.name < $1.tensor.name })
    #expect(parsed.metadata == ["k\"": "v"])
  }

  @Test func `a file without tensors is whole`() throws {
    let header = SafetensorsHeader(layingOut: [], metadata: [:])
    let parsed = try SafetensorsHeader(
      parsing: Array(header.encoded().dropFirst(8)), fileByteCount: header.fileByteCount, path: "x")
    #expect(parsed.entries.isEmpty)
  }

  /// Each header breaks one rule; the data after it has eight bytes.
  @Test(arguments: [
    (#" {"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, "does not start with {"),
    (#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#, "missing"),
    (#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}} x"#, "text after the end"),
    (#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#, "F32 [3] needs 12"),
    (#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#, "tells of"),
    (#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#, "hole of 4 bytes"),
    (#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,12]}}"#, "tells of"),
    (
      #"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#,
      "overlaps"
    ),
    (
      #"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#,
      "a comes twice"
    ),
    (#"{"a":{"dtype":"F32","shape":[2],"shape":[2],"data_offsets":[0,8]}}"#, "has shape twice"),
    (#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}"#, "no data_offsets"),
    (#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8,9]}}"#, "no data_offsets"),
    (#"{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}"#, "no shape"),
    (#"{"a":{"dtype":"F32","shape":2,"data_offsets":[0,8]}}"#, "no shape"),
    (#"{"a":{"shape":[2],"data_offsets":[0,8]}}"#, "no dtype"),
    (#"{"a":[]}"#, "is not an object"),
    (
      #"{"a":{"dtype":"F32","shape":[4611686018427387904,4611686018427387904],"data_offsets":[0,8]}}"#,
      "beyond all memory"
    ),
    (
      #"{"__metadata__":{"a":1},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#,
      "not a string"
    ),
    (
      #"{"__metadata__":{"a":"1","a":"2"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#,
      "has a twice"
    ),
    (#"[]"#, "does not start with {"),
  ])
  func `a header that breaks a rule is refused with the rule`(json: String, reason: String) {
    let bytes = Array(json.utf8)
    let error = #expect(throws: CheckpointError.self) {
      try SafetensorsHeader(parsing: bytes, fileByteCount: 8 + bytes.count + 8, path: "x")
    }
    #expect(error?.code == .damaged)
    #expect(error?.message.contains(reason) == true, "\(error?.message ?? "")")
  }

  @Test func `an unknown element type is named`() {
    let json = Array(#"{"a":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}}"#.utf8)
    let error = #expect(throws: CheckpointError.self) {
      try SafetensorsHeader(parsing: json, fileByteCount: 8 + json.count + 1, path: "x")
    }
    #expect(error?.code == .unsupported)
    #expect(error?.message.contains("F4") == true)
  }
}
