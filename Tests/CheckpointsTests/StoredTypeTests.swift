import Foundation
import Testing

@testable import Checkpoints

struct StoredTypeTests {
  @Test func `every bfloat16 that is a number survives the way to Float32 and back`() {
    for bits in UInt16.min...UInt16.max {
      let value = BFloat16.value(ofBits: bits)
      if value.isNaN {
        #expect(BFloat16.value(ofBits: BFloat16.bits(of: value)).isNaN)
      } else {
        #expect(BFloat16.bits(of: value) == bits)
      }
    }
  }

  @Test func `rounding to bfloat16 goes to the nearest, ties to even`() {
    for bits: UInt16 in [0x3F80, 0x3F81, 0x0001, 0x7F7E, 0xBF81] {
      let low = UInt32(bits) << 16
      func rounded(_ offset: UInt32) -> UInt16 {
        BFloat16.bits(of: Float(bitPattern: low + offset))
      }
      #expect(rounded(0x7FFF) == bits)
      #expect(rounded(0x8000) == (bits & 1 == 0 ? bits : bits + 1))
      #expect(rounded(0x8001) == bits + 1)
    }
    #expect(BFloat16.bits(of: Float.greatestFiniteMagnitude) == 0x7F80)
    // A NaN whose payload lies in the lower half only must not become infinity.
    #expect(BFloat16.value(ofBits: BFloat16.bits(of: Float(bitPattern: 0x7F80_0001))).isNaN)
  }
}
