// Float32 to and from the 16-bit formats, which are carried as bits. Round to nearest even; NaN
// stays NaN, infinity infinity; too large for half becomes infinity.

import CKernels

package enum FloatFormats {
  package static func encodeBFloat16(_ x: Buffer<Float>, into y: Buffer<UInt16>) {
    requireCount(y.count, x.count, "y")
    unsafe w2svd_float_to_bfloat16(x.base, y.base, x.count)
  }

  package static func decodeBFloat16(_ x: Buffer<UInt16>, into y: Buffer<Float>) {
    requireCount(y.count, x.count, "y")
    unsafe w2svd_bfloat16_to_float(x.base, y.base, x.count)
  }

  package static func encodeHalf(_ x: Buffer<Float>, into y: Buffer<UInt16>) {
    requireCount(y.count, x.count, "y")
    unsafe w2svd_float_to_half(x.base, y.base, x.count)
  }

  package static func decodeHalf(_ x: Buffer<UInt16>, into y: Buffer<Float>) {
    requireCount(y.count, x.count, "y")
    unsafe w2svd_half_to_float(x.base, y.base, x.count)
  }
}
