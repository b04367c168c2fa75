// The arena and its ledger over numbers: the twin of Tensors/Storage.swift and MemoryLedger.swift.
//
// A block is booked for as long as a reference to it lives, as in the arena; nothing is allocated.

/// Whose memory it is; the names are the ledger's.
package enum PlannedRole: String, CaseIterable, Codable, Sendable {
  case base = "real+base"
  case fake
  case generator
  case common
}

/// What the memory is for; the names are the ledger's.
package enum PlannedCategory: String, CaseIterable, Codable, Sendable {
  case parameters, gradients, optimizer, ema, activations, exchange, workspace
}

/// Bytes of one account at their peak.
package struct PlannedAccount: Codable, Equatable, Sendable {
  package let role: PlannedRole
  package let category: PlannedCategory
  package let peakByteCount: Int
}

/// Peaks of a phase: of every account, and of all together (they peak at different moments, so the
/// total is less than their sum).
package struct PlannedMemory: Codable, Equatable, Sendable {
  package let accounts: [PlannedAccount]
  package let totalPeakByteCount: Int
  /// Bytes of the arena: it keeps blocks by size, so of each size as many as were in use at once.
  package let poolByteCount: Int
  /// Bytes sent by the exchanges of activations that are on their way at once, at most.
  package let largestSendByteCount: Int

  package init(
    accounts: [PlannedAccount], totalPeakByteCount: Int, poolByteCount: Int = 0,
    largestSendByteCount: Int = 0
  ) {
    self.accounts = accounts
    self.totalPeakByteCount = totalPeakByteCount
    self.poolByteCount = poolByteCount
    self.largestSendByteCount = largestSendByteCount
  }

  package func peakByteCount(_ role: PlannedRole, _ category: PlannedCategory) -> Int {
    accounts.first { $0.role == role && $0.category == category }?.peakByteCount ?? 0
  }
}

/// Bytes of the arena's block for `elementCount` Float32 elements: at least 64, else rounded up to a
/// 64th of the power of two below.
package func blockByteCount(elementCount: Int) -> Int {
  let wanted = max(elementCount * 4, 64)
  let step = max(64, (1 << (Int.bitWidth - 1 - wanted.leadingZeroBitCount)) / 64)
  return (wanted + step - 1) / step * step
}

/// Books blocks and counts operations while a twin runs.
final class PlannedLedger {
  fileprivate struct Account: Hashable {
    let role: PlannedRole
    let category: PlannedCategory
  }

  private var live: [Account: Int] = [:]
  private var peaks: [Account: Int] = [:]
  private var total = 0
  private var totalPeak = 0
  private var liveBlocks: [Int: Int] = [:]
  private var pool: [Int: Int] = [:]
  private var largestSend = 0.0
  /// What was done so far.
  var work = StepWork()
  /// Bytes of activations that have left and not arrived.
  var travelingByteCount = 0.0 {
    didSet { largestSend = max(largestSend, travelingByteCount) }
  }

  /// Where activations are kept outside of memory; nil: nowhere.
  var activationStore: ActivationStoreTwin?

  /// Activations that go to other ranks, whose own are waited for.
  func exchange(byteCount: Int, messageCount: Int, waitCount: Int = 1) {
    guard messageCount > 0 else { return }
    send(byteCount: Double(byteCount))
    work.messageCount += Double(messageCount)
    work.waitCount += Double(waitCount)
  }

  /// Products that are made now.
  func count(_ products: ProductWork) {
    work.operationCount += products.operationCount
    work.weightByteCount += 4 * products.weightElementCount
  }

  /// Attention that is computed now.
  func countAttention(_ operationCount: Double) {
    work.operationCount += operationCount
    work.attentionOperationCount += operationCount
  }

  /// Bytes of activations that go to other ranks at once.
  func send(byteCount: Double) {
    work.sentByteCount += byteCount
    largestSend = max(largestSend, byteCount)
  }

  /// A block of Float32 elements; it lives as long as the result is referred to.
  func allocate(_ count: Int, _ role: PlannedRole, _ category: PlannedCategory) -> Block {
    let byteCount = blockByteCount(elementCount: count)
    let account = Account(role: role, category: category)
    live[account, default: 0] += byteCount
    peaks[account] = max(peaks[account] ?? 0, live[account] ?? 0)
    total += byteCount
    totalPeak = max(totalPeak, total)
    liveBlocks[byteCount, default: 0] += 1
    pool[byteCount] = max(pool[byteCount] ?? 0, liveBlocks[byteCount] ?? 0)
    return Block(ledger: self, account: account, count: count, byteCount: byteCount)
  }

  /// What was seen so far.
  var memory: PlannedMemory {
    PlannedMemory(
      accounts: PlannedRole.allCases.flatMap { role in
        PlannedCategory.allCases.compactMap { category in
          peaks[Account(role: role, category: category)].map {
            PlannedAccount(role: role, category: category, peakByteCount: $0)
          }
        }
      }, totalPeakByteCount: totalPeak, poolByteCount: pool.reduce(0) { $0 + $1.key * $1.value },
      largestSendByteCount: Int(largestSend))
  }

  /// A stretch of booked memory.
  final class Block {
    let count: Int
    private let ledger: PlannedLedger
    private let account: Account
    private let byteCount: Int

    fileprivate init(ledger: PlannedLedger, account: Account, count: Int, byteCount: Int) {
      self.ledger = ledger
      self.account = account
      self.count = count
      self.byteCount = byteCount
    }

    deinit {
      ledger.live[account, default: 0] -= byteCount
      ledger.total -= byteCount
      ledger.liveBlocks[byteCount, default: 0] -= 1
    }
  }
}
