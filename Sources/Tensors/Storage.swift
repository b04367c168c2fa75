// Where tensor memory comes from. An arena keeps freed blocks by size and hands them out again, so
// that a steady training step allocates nothing from the system; each block is booked while it
// is in use. Under a limit it gives free blocks of other sizes back before it takes a new one. The only file of this module
// that touches pointers.
//
// An arena belongs to one rank and one thread: it is deliberately not Sendable.

import Basics
package import DenseKernels
import Glibc

/// A pool of memory blocks with a ledger.
package final class Arena {
  package private(set) var ledger = MemoryLedger()
  private var freeBlocks: [Int: [MemoryBlock]] = [:]
  /// Bytes obtained from the system and not returned to it, in use or pooled.
  package private(set) var reservedByteCount = 0
  /// Bytes that are reserved at most, while what is in use leaves a choice.
  private let limit: Int
  private var hasLimit: Bool { limit < .max }

  /// - Parameter limit: nil: nothing is returned to the system before `trim`.
  package init(limit: Int? = nil) { self.limit = limit ?? .max }

  /// `count` elements with unspecified content, or zeros when `zeroed`.
  package func allocate<Element: BitwiseCopyable>(
    _ type: Element.Type, count: Int, booking: Booking, zeroed: Bool = false
  ) -> Buffer<Element> {
    require(count >= 0, "cannot allocate \(count) elements")
    let byteCount = Self.blockByteCount(forAtLeast: count * MemoryLayout<Element>.stride)
    let block: MemoryBlock
    if let pooled = freeBlocks[byteCount]?.popLast() {
      block = pooled
    } else {
      makeRoom(for: byteCount)
      block = MemoryBlock(byteCount: byteCount, hasOwnPages: hasLimit)
      reservedByteCount += byteCount
    }
    ledger.book(byteCount, on: booking)
    if zeroed { block.clear(count * MemoryLayout<Element>.stride) }
    let loan = Loan(block: block, arena: self, booking: booking)
    return unsafe Buffer(
      unsafeBase: block.base.bindMemory(to: Element.self, capacity: count), count: count,
      owner: loan)
  }

  /// Returns pooled blocks to the system.
  package func trim() {
    reservedByteCount -= freeBlocks.reduce(0) { $0 + $1.key * $1.value.count }
    freeBlocks.removeAll()
  }

  /// Returns free blocks, the largest first, until so many bytes more keep within the limit.
  private func makeRoom(for byteCount: Int) {
    while reservedByteCount > limit - byteCount,
      let largest = freeBlocks.lazy.filter({ !$0.value.isEmpty }).map(\.key).max()
    {
      freeBlocks[largest]?.removeLast()
      reservedByteCount -= largest
    }
  }

  package func resetPeaks() { ledger.resetPeaks() }

  fileprivate func takeBack(_ block: MemoryBlock, booking: Booking) {
    ledger.release(block.byteCount, from: booking)
    freeBlocks[block.byteCount, default: []].append(block)
  }

  /// Rounded up by at most a 64th (never less than 64 bytes), so that similar requests share
  /// blocks and the ledger stays within 2 % of what was asked for.
  private static func blockByteCount(forAtLeast byteCount: Int) -> Int {
    let wanted = max(byteCount, 64)
    let step = max(64, (1 << (Int.bitWidth - 1 - wanted.leadingZeroBitCount)) / 64)
    return (wanted + step - 1) / step * step
  }
}

/// A block in use: gives it back to its arena when the last buffer into it is gone.
private final class Loan {
  let block: MemoryBlock
  let arena: Arena
  let booking: Booking

  init(block: MemoryBlock, arena: Arena, booking: Booking) {
    self.block = block
    self.arena = arena
    self.booking = booking
  }

  deinit { arena.takeBack(block, booking: booking) }
}

/// 64-byte aligned memory from the system.
@safe
private final class MemoryBlock {
  /// From this size on a block can have pages of its own. Those of the heap stay with the process when it is gone, cut into
  /// what came after it.
  private static let smallestPagedByteCount = 1 << 18

  let base: UnsafeMutableRawPointer
  let byteCount: Int
  private let isPaged: Bool

  init(byteCount: Int, hasOwnPages: Bool) {
    self.byteCount = byteCount
    isPaged = hasOwnPages && byteCount >= Self.smallestPagedByteCount
    guard isPaged else {
      unsafe base = .allocate(byteCount: byteCount, alignment: 64)
      return
    }
    let pages = unsafe mmap(
      nil, byteCount, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    guard let pages = unsafe pages, unsafe pages != MAP_FAILED else {
      trap("the system has no \(byteCount) bytes of memory left")
    }
    unsafe base = pages
  }

  func clear(_ count: Int) {
    unsafe base.initializeMemory(as: UInt8.self, repeating: 0, count: count)
  }

  deinit {
    if isPaged {
      unsafe munmap(base, byteCount)
    } else {
      unsafe base.deallocate()
    }
  }
}
