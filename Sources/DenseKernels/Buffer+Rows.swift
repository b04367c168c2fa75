// Strided rows as bytes, one after the other: what goes into messages and comes out of them.

extension Buffer {
  /// Writes `rowCount` rows of `width` elements, `stride` apart, into `bytes` from `offset` on.
  /// - Returns: the number of bytes written.
  /// - Precondition: the rows lie inside the buffer and fit `bytes`.
  package func packRows(
    _ rowCount: Int, width: Int, stride: Int, into bytes: inout MutableRawSpan, at offset: Int
  ) -> Int {
    let row = rowBytes(rowCount, width, stride, at: offset, of: bytes.byteCount)
    unsafe bytes.withUnsafeMutableBytes { target in
      guard row.length > 0, let start = target.baseAddress else { return }
      let source = unsafe UnsafeRawPointer(base)
      for index in 0..<rowCount {
        unsafe (start + offset + index * row.length).copyMemory(
          from: source + index * row.stride, byteCount: row.length)
      }
    }
    return rowCount * row.length
  }

  /// Reads `rowCount` rows of `width` elements from `bytes`, from `offset` on, to places `stride` apart.
  /// - Returns: the number of bytes read.
  /// - Precondition: the rows lie inside the buffer, and `bytes` holds as many.
  package func unpackRows(
    _ rowCount: Int, width: Int, stride: Int, from bytes: RawSpan, at offset: Int
  ) -> Int {
    let row = rowBytes(rowCount, width, stride, at: offset, of: bytes.byteCount)
    unsafe bytes.withUnsafeBytes { source in
      guard row.length > 0, let start = source.baseAddress else { return }
      let target = unsafe UnsafeMutableRawPointer(base)
      for index in 0..<rowCount {
        unsafe (target + index * row.stride).copyMemory(
          from: start + offset + index * row.length, byteCount: row.length)
      }
    }
    return rowCount * row.length
  }

  /// Length and stride of a row in bytes. Traps unless the rows lie in the buffer, and one after the
  /// other from `offset` on in as many bytes as given.
  private func rowBytes(
    _ rowCount: Int, _ width: Int, _ stride: Int, at offset: Int, of byteCount: Int
  ) -> (length: Int, stride: Int) {
    requireRows(rowCount, width, count, stride, "the buffer")
    let length = width * MemoryLayout<Element>.stride
    precondition(
      offset >= 0 && offset + rowCount * length <= byteCount,
      "\(rowCount) rows of \(length) bytes at \(offset) of \(byteCount)")
    return (length, stride * MemoryLayout<Element>.stride)
  }
}
