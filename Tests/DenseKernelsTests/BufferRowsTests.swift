import DenseKernels
import Testing

struct BufferRowsTests {
  @Test func `rows packed and unpacked are where they were, and nothing else changes`() {
    let source = Buffer((0..<20).map(Double.init))
    let bytes = Buffer<Double>(zeroed: 8)
    bytes.withMutableBytes { bytes in
      // Three rows of two, five apart, behind one element.
      #expect(source[1..<20].packRows(3, width: 2, stride: 5, into: &bytes, at: 8) == 48)
    }
    #expect(bytes.array == [0, 1, 2, 6, 7, 11, 12, 0])
    let target = Buffer<Double>(zeroed: 9)
    bytes.withBytes { bytes in
      #expect(target[1..<9].unpackRows(3, width: 2, stride: 3, from: bytes, at: 8) == 48)
    }
    #expect(target.array == [0, 1, 2, 0, 6, 7, 0, 11, 12])
  }

  @Test func `no rows and rows of nothing move nothing`() {
    let empty = Buffer<Float>(zeroed: 0)
    empty.withMutableBytes { bytes in
      #expect(empty.packRows(0, width: 4, stride: 4, into: &bytes, at: 0) == 0)
      #expect(empty.packRows(3, width: 0, stride: 0, into: &bytes, at: 0) == 0)
    }
  }

  @Test func `rows beyond the bytes trap`() async {
    await #expect(processExitsWith: .failure) {
      let rows = Buffer<Float>(zeroed: 8)
      Buffer<Float>(zeroed: 3).withMutableBytes { bytes in
        _ = rows.packRows(2, width: 2, stride: 4, into: &bytes, at: 0)
      }
    }
  }
}
