// The memory that kernels read and write: a counted range of an allocation which it keeps alive.
//
// This is the one handle type with pointer arithmetic. A buffer is a reference: copies of it see
// the same elements. Its owner frees the memory when the last buffer into it is gone, so safe code
// cannot reach freed memory; every range is checked when a buffer is cut.

/// `count` elements of an allocation, 64-byte aligned when it is a whole one.
@safe
package struct Buffer<Element: BitwiseCopyable> {
  /// Keeps the memory alive; its `deinit` gives it back.
  private let owner: AnyObject
  let base: UnsafeMutablePointer<Element>
  package let count: Int

  /// - Precondition: `base` points to `count` initialized elements that live as long as `owner`.
  @unsafe
  package init(unsafeBase base: UnsafeMutablePointer<Element>, count: Int, owner: AnyObject) {
    unsafe self.base = base
    self.count = count
    self.owner = owner
  }

  /// A zeroed allocation of its own, outside any arena: for tests, tables and tools.
  package init(zeroed count: Int) {
    let allocation = HeapAllocation(byteCount: count * MemoryLayout<Element>.stride)
    unsafe self.init(
      unsafeBase: allocation.base.bindMemory(to: Element.self, capacity: count), count: count,
      owner: allocation)
  }

  package init(_ elements: some Collection<Element>) {
    self.init(zeroed: elements.count)
    let isCopied: Void? = elements.withContiguousStorageIfAvailable { stored in
      if let start = stored.baseAddress { unsafe base.update(from: start, count: count) }
    }
    if isCopied == nil { copy(from: Array(elements)) }
  }

  package subscript(index: Int) -> Element {
    get {
      precondition(index >= 0 && index < count, "index \(index) of a buffer of \(count)")
      return unsafe base[index]
    }
    nonmutating set {
      precondition(index >= 0 && index < count, "index \(index) of a buffer of \(count)")
      unsafe base[index] = newValue
    }
  }

  /// The same memory, cut to `range`.
  package subscript(range: Range<Int>) -> Buffer {
    precondition(
      range.lowerBound >= 0 && range.upperBound <= count, "range \(range) of a buffer of \(count)")
    return unsafe Buffer(unsafeBase: base + range.lowerBound, count: range.count, owner: owner)
  }

  package var array: [Element] {
    unsafe Array(UnsafeBufferPointer(start: base, count: count))
  }

  package func copy(from source: Buffer) {
    precondition(source.count == count, "copying \(source.count) elements into \(count)")
    unsafe base.update(from: source.base, count: count)
  }

  package func copy(from source: [Element]) {
    precondition(source.count == count, "copying \(source.count) elements into \(count)")
    unsafe source.withUnsafeBufferPointer { pointer in
      guard let start = pointer.baseAddress else { return }
      unsafe base.update(from: start, count: count)
    }
  }

  /// All bits zero.
  package func clear() {
    unsafe UnsafeMutableRawPointer(base).initializeMemory(
      as: UInt8.self, repeating: 0, count: count * MemoryLayout<Element>.stride)
  }

  package func fill(with value: Element) { unsafe base.update(repeating: value, count: count) }

  /// The elements as bytes, for writing, hashing and sending.
  package func withBytes<Result, Failure: Error>(
    _ body: (RawSpan) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    let bytes = unsafe UnsafeRawBufferPointer(
      start: base, count: count * MemoryLayout<Element>.stride)
    return try body(unsafe bytes.bytes)
  }

  /// The elements as bytes to fill, for reading and receiving.
  package func withMutableBytes<Result, Failure: Error>(
    _ body: (inout MutableRawSpan) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    let bytes = unsafe UnsafeMutableRawBufferPointer(
      start: base, count: count * MemoryLayout<Element>.stride)
    var span = unsafe bytes.mutableBytes
    return try body(&span)
  }
}

/// Zeroed, 64-byte aligned memory.
@safe
private final class HeapAllocation {
  let base: UnsafeMutableRawPointer

  init(byteCount: Int) {
    unsafe base = .allocate(byteCount: max(byteCount, 64), alignment: 64)
    unsafe base.initializeMemory(as: UInt8.self, repeating: 0, count: max(byteCount, 64))
  }

  deinit { unsafe base.deallocate() }
}
