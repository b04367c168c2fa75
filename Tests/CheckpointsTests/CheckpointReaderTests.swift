import DenseKernels
import Foundation
import TestSupport
import Testing

@testable import Checkpoints

struct CheckpointReaderTests {
  /// Every way to cut `count` elements into `writerCount` ranges, empty ones included.
  private func allCuts(_ count: Int, _ writerCount: Int) -> [[Int]] {
    (1..<writerCount).reduce([[]]) { cuts, _ in
      cuts.flatMap { cut in ((cut.last ?? 0)...count).map { cut + [$0] } }
    }
  }

  /// All tensors of one writer count lie in one checkpoint: thousands of cuts, one save.
  @Test(arguments: 1...4)
  func `what any cut saved, any other cut reads`(writerCount: Int) throws {
    let mostElements = [27, 27, 9, 4][writerCount - 1]
    var shapes: [String: [Int]] = [:]
    var pieces = [[TensorPiece]](repeating: [], count: writerCount)
    for shape in smallShapes(from: 1) {
      let count = shape.reduce(1, *)
      guard count <= mostElements else { continue }
      for cuts in allCuts(count, writerCount) {
        let name = "\(shape) cut at \(cuts)"
        shapes[name] = shape
        for (writer, range) in ranges(of: count, cutAt: cuts).enumerated() {
          pieces[writer].append(
            TensorPiece(name, shape: shape, .elements(range), elements(range)))
        }
      }
    }
    try withTemporaryFolder { folder in
      let store = CheckpointStore(folder)
      try save(pieces, step: 1, in: store)
      let reader = try #require(store.newestValid().reader)
      try reader.requireTensors(shapes)
      #expect(reader.verify(deep: true).isEmpty)
      for (name, shape) in shapes {
        let count = shape.reduce(1, *)
        // Every reader layout of contiguous shards is made of such ranges.
        for lower in 0...count {
          for upper in lower...count {
            let target = Buffer<Float>(zeroed: upper - lower)
            target.fill(with: .nan)
            try reader.read(name, elements: lower..<upper, into: target)
            guard target.array == elements(lower..<upper) else {
              Issue.record("\(name), read \(lower)..<\(upper): \(target.array)")
              return
            }
          }
        }
      }
    }
  }

  @Test func `boxes of tensor parallelism read back as ranges and as other boxes`() throws {
    let shape = [4, 3, 6]
    let all = elements(0..<72)
    func values(_ box: TensorBox) -> [Float] {
      box.runs(in: shape).flatMap { all[$0.tensorRange] }
    }
    let columns = [0..<1, 1..<4, 4..<6].map {
      TensorBox(offset: [0, 0, $0.lowerBound], shape: [4, 3, $0.count])
    }
    try withTemporaryFolder { folder in
      let store = CheckpointStore(folder)
      try save(
        columns.map { [TensorPiece("w", shape: shape, .box($0), values($0))] }, step: 1, in: store)
      let reader = try #require(store.newestValid().reader)
      for parts in 1...5 {
        for range in evenRanges(of: 72, parts) {
          let target = Buffer<Float>(zeroed: range.count)
          try reader.read("w", elements: range, into: target)
          #expect(target.array == Array(all[range]))
        }
      }
      let box = TensorBox(offset: [1, 0, 2], shape: [2, 2, 3])
      let target = Buffer<Float>(zeroed: box.count)
      try reader.read("w", box: box, into: target)
      #expect(target.array == values(box))
    }
  }

  @Test func `integers and doubles keep every bit, and floats widen`() throws {
    try withTemporaryFolder { folder in
      let store = CheckpointStore(folder)
      let (longs, doubles): ([Int64], [Double]) = ([.min, -1, .max], [.pi, -0.1])
      try save(
        [
          [
            TensorPiece("i", shape: [3], longs), TensorPiece("d", shape: [2], doubles),
            TensorPiece("h", shape: [1], [Float16(0.5)]),
          ]
        ], step: 1, in: store)
      let reader = try #require(store.newestValid().reader)
      let i = Buffer<Int64>(zeroed: 3)
      try reader.readExactly("i", elements: 0..<3, into: i)
      #expect(i.array == longs)
      let d = Buffer<Double>(zeroed: 2)
      try reader.readExactly("d", elements: 0..<2, into: d)
      #expect(d.array == doubles)
      #expect(try reader.floats("d") == doubles.map { Float($0) })
      #expect(try reader.floats("h") == [0.5])
      #expect(throws: CheckpointError.self) { try reader.floats("i") }
    }
  }

  @Test func `every flipped byte of a shard is seen and named`() throws {
    try withTemporaryFolder { folder in
      let store = CheckpointStore(folder)
      try save(smallModel(step: 1, writerCount: 2), step: 1, in: store)
      let url = store.folder(ofStep: 1).appending(path: "rank-00001.safetensors")
      let whole = try readWhole(url)
      let manifest = try CheckpointReader(opening: store.folder(ofStep: 1)).manifest
      let headerByteCount = try #require(manifest.files.last).headerByteCount
      for index in whole.indices {
        var flipped = whole
        flipped[index] ^= 1 << (index % 8)
        try Data(flipped).write(to: url)
        let problems = CheckpointStore.verify(store.folder(ofStep: 1), deep: true)
        #expect(problems.count == 1, "byte \(index)")
        #expect(problems.first?.file == "rank-00001.safetensors")
        #expect((problems.first?.tensor == nil) == (index < headerByteCount), "byte \(index)")
      }
    }
  }

  @Test func `a flipped bit stops the read that would touch it, and only that`() throws {
    try withTemporaryFolder { folder in
      let store = CheckpointStore(folder)
      try save(smallModel(step: 1, writerCount: 2), step: 1, in: store)
      let url = store.folder(ofStep: 1).appending(path: "rank-00001.safetensors")
      let slice = try #require(
        CheckpointReader(opening: store.folder(ofStep: 1)).manifest.tensors["a.weight"]?.slices.last
      )
      var bytes = try readWhole(url)
      bytes[slice.bytes.upperBound - 1] ^= 1
      try Data(bytes).write(to: url)
      let reader = try CheckpointReader(opening: store.folder(ofStep: 1))
      let seventh = Buffer<Float>(zeroed: 7)
      try reader.read("a.weight", elements: 0..<7, into: seventh)
      #expect(seventh.array == elements(0..<7).map { $0 + 1 })
      // The first element of the damaged slice is itself whole; it is refused with its slice.
      let start = try #require(slice.box.runs(in: [3, 5]).first).tensorStart
      let error = #expect(throws: CheckpointError.self) {
        try reader.read("a.weight", elements: start..<start + 1, into: Buffer<Float>(zeroed: 1))
      }
      #expect(error?.code == .damaged)
      for part in ["rank-00001.safetensors", "a.weight", "\(slice.box.offset)"] {
        #expect(error?.message.contains(part) == true)
      }
    }
  }

  @Test func `another model is told with all differences`() throws {
    try withTemporaryFolder { folder in
      let store = CheckpointStore(folder)
      try save(smallModel(step: 1), step: 1, in: store)
      let reader = try #require(store.newestValid().reader)
      let error = #expect(throws: CheckpointError.self) {
        try reader.requireTensors(["a.weight": [5, 3], "d": [1], "c": [2, 0], "e": []])
      }
      #expect(error?.code == .wrongModel)
      for part in [
        "d is missing", "e is missing", "b is unexpected",
        "a.weight has shape [3, 5] instead of [5, 3]",
      ] {
        #expect(error?.message.contains(part) == true, "\(part)")
      }
      try reader.requireTensors(["b": []], allowingOthers: true)
      #expect(throws: CheckpointError.self) { try reader.requireModel(fingerprint: "2-00") }
      #expect(throws: CheckpointError.self) { try reader.floats("nothing") }
    }
  }
}
