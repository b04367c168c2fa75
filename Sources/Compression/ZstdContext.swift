// The checked floor over zstd: a C context has one owner, which frees it and reuses it for all
// frames.
//
// The compressor entropy-codes and does nothing else: a very negative level makes the match finder
// give up at once, and forced literal compression (experimental parameter 5) makes zstd
// Huffman-code what is left, which negative levels otherwise store. A library that refuses the
// parameter gets level 1, which is four times slower and shrinks as well.

import Basics
import CZstd

/// The library that is linked.
package enum ZstdLibrary {
  /// As "1.5.4".
  package static var version: String { unsafe String(cString: ZSTD_versionString()) }
}

/// Codes single planes.
@safe
final class ZstdCompressor {
  private let context: OpaquePointer

  init() {
    guard let context = unsafe ZSTD_createCCtx() else {
      fatalError("zstd: no memory for a context")
    }
    unsafe self.context = context
    let isForced = unsafe Self.set(context, ZSTD_c_experimentalParam5, 1)
    let isSet = unsafe Self.set(context, ZSTD_c_compressionLevel, isForced ? -1_000 : 1)
    require(isSet, "zstd refuses its own compression levels")
  }

  deinit { unsafe ZSTD_freeCCtx(context) }

  /// The coded byte count, or nil when the coded form does not fit `target`.
  func compress(_ plane: UnsafeRawBufferPointer, into target: UnsafeMutableRawBufferPointer) -> Int?
  {
    let count = unsafe ZSTD_compress2(
      context, target.baseAddress, target.count, plane.baseAddress, plane.count)
    return ZSTD_isError(count) == 0 ? count : nil
  }

  private static func set(_ context: OpaquePointer, _ key: ZSTD_cParameter, _ value: Int32) -> Bool
  {
    unsafe ZSTD_isError(ZSTD_CCtx_setParameter(context, key, value)) == 0
  }
}

/// Decodes single planes.
@safe
final class ZstdDecompressor {
  private let context: OpaquePointer

  init() {
    guard let context = unsafe ZSTD_createDCtx() else {
      fatalError("zstd: no memory for a context")
    }
    unsafe self.context = context
  }

  deinit { unsafe ZSTD_freeDCtx(context) }

  /// Fills `target` exactly.
  ///
  /// - Throws: `badPlane` when the bytes are no frame or hold another number of bytes.
  func decompress(
    _ coded: UnsafeRawBufferPointer, into target: UnsafeMutableRawBufferPointer
  ) throws(CompressionError) {
    let count = unsafe ZSTD_decompressDCtx(
      context, target.baseAddress, target.count, coded.baseAddress, coded.count)
    guard ZSTD_isError(count) == 0 else {
      let reason = unsafe String(cString: ZSTD_getErrorName(count))
      throw CompressionError(.badPlane, "zstd: \(reason); the sender has to send it again")
    }
    guard count == target.count else {
      throw CompressionError(
        .badPlane, "a plane of \(count) bytes where \(target.count) belong")
    }
  }
}
