// Strided rows as bytes, one after the other: what goes into messages and comes out of them.

extension Buffer {
  /// Writes `rowCount` rows of `width` elements, `stride` apart, into `bytes` from `offset` on.
  /// - Returns: the number of bytes written.
  /// - Precondition: the rows lie inside the buffer and fit `bytes`.
  package func packRows(
    _ rowCount: Int, width: Int, stride: Int, into bytes: inout MutableRawSpan, at offset: Int
  ) -> Int {
    requireRows(rowCount, width, count, stride, "the buffer")
    let (rowLength, rowStride) = (Self.byteCount(width), Self.byteCount(stride))
    precondition(
      offset >= 0 && offset + rowCount * rowLength <= bytes.byteCount,
      "\(rowCount) rows of \(rowLength) bytes at \(offset) of \(bytes.byteCount)")
    unsafe bytes.withUnsafeMutableBytes { target in
      guard rowLength > 0, let start = target.baseAddress else { return }
      let source = unsafe UnsafeRawPointer(base)
      for row in 0..<rowCount {
        unsafe (start + offset + row * rowLength).copyMemory(
          from: source + row * rowStride, byteCount: rowLength)
      }
    }
    return rowCount * rowLength
  }

  /// Reads `rowCount` rows of `width` elements from `bytes`, from `offset` on, to places `stride` apart.
  /// - Returns: the number of bytes read.
  /// - Precondition: the rows lie inside the buffer, and `bytes` holds as many.
  package func unpackRows(
    _ rowCount: Int, width: Int, stride: Int, from bytes: RawSpan, at offset: Int
  ) -> Int {
    requireRows(rowCount, width, count, stride, "the buffer")
    let (rowLength, rowStride) = (Self.byteCount(width), Self.byteCount(stride))
    precondition(
      offset >= 0 && offset + rowCount * rowLength <= bytes.byteCount,
      "\(rowCount) rows of \(rowLength) bytes at \(offset) of \(bytes.byteCount)")
    unsafe bytes.withUnsafeBytes { source in
      guard rowLength > 0, let start = source.baseAddress else { return }
      let target = unsafe UnsafeMutableRawPointer(base)
      for row in 0..<rowCount {
        unsafe (target + row * rowStride).copyMemory(
          from: start + offset + row * rowLength, byteCount: rowLength)
      }
    }
    return rowCount * rowLength
  }

  private static func byteCount(_ count: Int) -> Int { count * MemoryLayout<Element>.stride }
}
