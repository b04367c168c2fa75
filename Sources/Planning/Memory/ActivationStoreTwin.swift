// What of the activations in a file is in memory: the twin of Training's `FileActivationStore`.

/// Keeps the last activation in memory, and the one before it until the next comes.
final class ActivationStoreTwin {
  /// Smaller ones stay in memory.
  static let smallestCount = 4_096

  final class Entry {
    let count: Int
    fileprivate let microbatch: Int
    fileprivate let role: PlannedRole
    /// Nil: it is in the file.
    fileprivate var block: PlannedLedger.Block?
    /// Whether it was brought back: then it stays.
    fileprivate var hasArrived = false

    fileprivate init(_ block: PlannedLedger.Block, of microbatch: Int, role: PlannedRole) {
      count = block.count
      self.microbatch = microbatch
      self.role = role
      self.block = block
    }
  }

  private unowned let ledger: PlannedLedger
  /// Whose activations come and go now.
  var microbatch = 0
  private var entries: [Entry] = []

  init(_ ledger: PlannedLedger) { self.ledger = ledger }

  fileprivate func store(_ block: PlannedLedger.Block, role: PlannedRole) -> Entry {
    for entry in entries.dropLast() where !entry.hasArrived { entry.block = nil }
    let entry = Entry(block, of: microbatch, role: role)
    entries.append(entry)
    return entry
  }

  fileprivate func load(_ entry: Entry) -> PlannedLedger.Block {
    let block = fetch(entry)
    if let index = entries.firstIndex(where: { $0 === entry }),
      let next = entries[..<index].last(where: { $0.microbatch == entry.microbatch })
    {
      _ = fetch(next)
    }
    return block
  }

  private func fetch(_ entry: Entry) -> PlannedLedger.Block {
    if let block = entry.block { return block }
    let block = ledger.allocate(entry.count, entry.role, .activations)
    (entry.block, entry.hasArrived) = (block, true)
    return block
  }

  fileprivate func forget(_ entry: Entry) { entries.removeAll { $0 === entry } }
}

/// An input that a recomputed block keeps.
enum KeptInputTwin {
  case inMemory(PlannedLedger.Block)
  case stored(Ticket)

  /// Lets go of its entry when the block is through.
  final class Ticket {
    fileprivate let store: ActivationStoreTwin
    fileprivate let entry: ActivationStoreTwin.Entry

    fileprivate init(_ store: ActivationStoreTwin, _ entry: ActivationStoreTwin.Entry) {
      self.store = store
      self.entry = entry
    }

    deinit { store.forget(entry) }
  }

  /// - Parameter store: nil: it stays in memory.
  init(_ block: PlannedLedger.Block, role: PlannedRole, store: ActivationStoreTwin?) {
    guard let store, block.count >= ActivationStoreTwin.smallestCount else {
      self = .inMemory(block)
      return
    }
    self = .stored(Ticket(store, store.store(block, role: role)))
  }

  var block: PlannedLedger.Block {
    switch self {
    case .inMemory(let block): block
    case .stored(let ticket): ticket.store.load(ticket.entry)
    }
  }
}
