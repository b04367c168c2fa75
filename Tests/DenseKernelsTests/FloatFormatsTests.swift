import Basics
import DenseKernels
import Testing

struct FloatFormatsTests {
  @Test func `every half decodes to its value and encodes back`() {
    let bits = Buffer((0..<65536).map { UInt16($0) })
    let values = Buffer<Float>(zeroed: 65536)
    FloatFormats.decodeHalf(bits, into: values)
    let back = Buffer<UInt16>(zeroed: 65536)
    FloatFormats.encodeHalf(values, into: back)
    for i in 0..<65536 {
      let exponent = (i >> 10) & 31
      let mantissa = Double(i & 1023)
      let sign = i >> 15 == 1 ? -1.0 : 1.0
      if exponent == 31 && mantissa != 0 {
        if !values[i].isNaN || back[i] & 0x7fff <= 0x7c00 { Issue.record("NaN \(i)") }
        continue
      }
      var expected = Double.infinity
      if exponent < 31 {
        expected =
          exponent == 0
          ? mantissa * 0x1p-24
          : (1024 + mantissa) * Double(sign: .plus, exponent: exponent - 25, significand: 1)
      }
      if Double(values[i]) != sign * expected || back[i] != UInt16(i) { Issue.record("half \(i)") }
    }
  }

  /// Random bit patterns around the edges, against rounding by definition in Float64.
  @Test func `halves are rounded to the nearest even one`() {
    let values: [(Float, UInt16)] = [
      (1 + 0x1p-11, 0x3c00), (1 + 0x1p-11 + 0x1p-20, 0x3c01), (1 + 3 * 0x1p-11, 0x3c02),
      (65504, 0x7bff), (65519.996, 0x7bff), (65520, 0x7c00), (1e10, 0x7c00), (-1e10, 0xfc00),
      (0x1p-25, 0), (0x1.000002p-25, 1), (3 * 0x1p-25, 2), (0x1p-14 - 0x1p-25, 0x0400),
      (-0.0, 0x8000),
      (.infinity, 0x7c00),
    ]
    let encoded = Buffer<UInt16>(zeroed: values.count)
    FloatFormats.encodeHalf(Buffer(values.map(\.0)), into: encoded)
    #expect(encoded.array == values.map(\.1))
  }

  @Test func `bfloat16 is rounded to the nearest even one`() {
    let values: [(UInt32, UInt16)] = [
      (0x3f80_0000, 0x3f80), (0x3f80_8000, 0x3f80), (0x3f81_8000, 0x3f82), (0x3f80_8001, 0x3f81),
      (0x7f7f_ffff, 0x7f80), (0x7f80_0000, 0x7f80), (0xff80_0000, 0xff80), (0x0000_8000, 0),
      (0x0001_8000, 2), (0x8000_0000, 0x8000),
    ]
    let encoded = Buffer<UInt16>(zeroed: values.count)
    FloatFormats.encodeBFloat16(Buffer(values.map { Float(bitPattern: $0.0) }), into: encoded)
    #expect(encoded.array == values.map(\.1))
    let nan = Buffer<UInt16>(zeroed: 1)
    FloatFormats.encodeBFloat16(Buffer([Float(bitPattern: 0x7f80_0001)]), into: nan)
    #expect(nan[0] & 0x7fff > 0x7f80)
  }

  @Test func `every bfloat16 comes back`() {
    let bits = Buffer((0..<65536).map { UInt16($0) }.filter { $0 & 0x7fff <= 0x7f80 })
    let (values, back) = (Buffer<Float>(zeroed: bits.count), Buffer<UInt16>(zeroed: bits.count))
    FloatFormats.decodeBFloat16(bits, into: values)
    FloatFormats.encodeBFloat16(values, into: back)
    #expect(back.array == bits.array)
    #expect(values[0x3f80] == 1)
  }
}
