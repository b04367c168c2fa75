// Who holds how many bytes: every block of tensor storage is booked here by role and category.
// `w2svd plan` prints the same table before a run (contract 4.5).

import Basics

/// Whose memory it is.
package enum MemoryRole: String, CaseIterable, Codable, Sendable {
  /// The frozen base W, which real and fake share.
  case base = "real+base"
  case fake
  case generator
  /// Anything else: batches, features, tables.
  case common
}

/// What the memory is for.
package enum MemoryCategory: String, CaseIterable, Codable, Sendable {
  case parameters, gradients, optimizer, ema, activations, exchange, workspace
}

/// The account that an allocation is booked on.
package struct Booking: Hashable, Codable, Sendable {
  package var role: MemoryRole
  package var category: MemoryCategory

  package init(_ role: MemoryRole, _ category: MemoryCategory) {
    self.role = role
    self.category = category
  }

  var index: Int {
    let roleIndex = MemoryRole.allCases.firstIndex(of: role) ?? 0
    let categoryIndex = MemoryCategory.allCases.firstIndex(of: category) ?? 0
    return roleIndex * MemoryCategory.allCases.count + categoryIndex
  }
}

/// Live and peak bytes by account, and in all.
package struct MemoryLedger: Sendable {
  /// One account of the table.
  package struct Entry: Codable, Sendable {
    package let role: MemoryRole
    package let category: MemoryCategory
    package let liveByteCount: Int
    package let peakByteCount: Int
  }

  private var live: [Int]
  private var peak: [Int]
  package private(set) var totalLiveByteCount = 0
  package private(set) var totalPeakByteCount = 0

  package init() {
    let accountCount = MemoryRole.allCases.count * MemoryCategory.allCases.count
    live = Array(repeating: 0, count: accountCount)
    peak = live
  }

  mutating func book(_ byteCount: Int, on booking: Booking) {
    let account = booking.index
    live[account] += byteCount
    totalLiveByteCount += byteCount
    peak[account] = max(peak[account], live[account])
    totalPeakByteCount = max(totalPeakByteCount, totalLiveByteCount)
  }

  mutating func release(_ byteCount: Int, from booking: Booking) {
    live[booking.index] -= byteCount
    totalLiveByteCount -= byteCount
    require(live[booking.index] >= 0, "\(booking) gave back more bytes than it holds")
  }

  package func liveByteCount(of booking: Booking) -> Int { live[booking.index] }
  package func peakByteCount(of booking: Booking) -> Int { peak[booking.index] }

  /// Forgets the peaks: from now on they are what is live.
  package mutating func resetPeaks() {
    peak = live
    totalPeakByteCount = totalLiveByteCount
  }

  /// The accounts that ever held a byte since the last reset, in table order.
  package var entries: [Entry] {
    MemoryRole.allCases.flatMap { role in
      MemoryCategory.allCases.compactMap { category in
        let account = Booking(role, category).index
        guard peak[account] > 0 else { return nil }
        return Entry(
          role: role, category: category, liveByteCount: live[account],
          peakByteCount: peak[account])
      }
    }
  }
}
