// Activations in a file: a second tier of memory, exact to the bit.
//
// The last activation that came stays in memory and the one before it is being written, so what is asked for
// first was never away; then each load begins the one that will be asked for next (prefetch depth 1). So at
// most three live at a time, on the way back two, however many blocks there are, and the disk works meanwhile.
// Of several microbatches in flight each has its own order; what the others have waits in the file.
// Source: Vchitect-2.0's LiteGen, activation offload; there the second tier is the host's memory.

package import Autodiff
import Basics
package import DenseKernels
package import Foundation
package import Tensors

package final class FileActivationStore<Scalar: KernelScalar>: ActivationStore {
  /// Smaller ones stay in memory: their way to the file would cost more than they take.
  package static var smallestCount: Int { 4_096 }

  private let file: StreamedFile
  private let arena: Arena
  private let attempt: (() throws -> Void) -> Void
  /// Whose activations come and go now.
  package var microbatch = 0
  /// Those that are alive, in order of arrival.
  private var entries: [Entry] = []

  /// What became of one activation.
  private enum Place {
    case memory(Buffer<Scalar>)
    case leaving(FileTransfer<Scalar>)
    case file
    case arriving(FileTransfer<Scalar>)
  }

  private final class Entry {
    let microbatch: Int
    let offset: Int
    let count: Int
    let booking: Booking
    var place: Place

    init(_ microbatch: Int, offset: Int, _ buffer: Buffer<Scalar>, booking: Booking) {
      self.microbatch = microbatch
      self.offset = offset
      self.booking = booking
      count = buffer.count
      place = .memory(buffer)
    }
  }

  private final class Ticket: StoredActivation {
    private let store: FileActivationStore
    private let entry: Entry

    init(_ store: FileActivationStore, _ entry: Entry) {
      self.store = store
      self.entry = entry
    }

    func load() -> Buffer<Scalar> { store.load(entry) }

    deinit { store.forget(entry) }
  }

  /// - Parameters:
  ///   - folder: where the file is made; it has no name there any more when this returns.
  ///   - attempt: runs what may fail, and keeps the failure.
  /// - Throws: `SystemCallError` where the folder cannot be written.
  package convenience init(
    in folder: URL, arena: Arena, attempt: @escaping (() throws -> Void) -> Void
  ) throws {
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    let place = folder.appending(path: "activations-\(UUID().uuidString)")
    let file = try PositionedFile(place.path, for: .creating)
    try FileManager.default.removeItem(at: place)
    self.init(file, arena: arena, attempt: attempt)
  }

  init(_ file: PositionedFile, arena: Arena, attempt: @escaping (() throws -> Void) -> Void) {
    self.file = StreamedFile(file)
    self.arena = arena
    self.attempt = attempt
  }

  package func store(
    _ buffer: Buffer<Scalar>, booking: Booking
  ) -> (any StoredActivation<Scalar>)? {
    guard buffer.count >= Self.smallestCount else { return nil }
    // One write at a time: then no more than two are on their way out of memory.
    for entry in entries.dropLast() { finishWriting(entry) }
    if let last = entries.last, case .memory(let elements) = last.place {
      last.place = .leaving(file.write(elements, at: last.offset))
    }
    let entry = Entry(microbatch, offset: freeOffset(for: buffer), buffer, booking: booking)
    entries.append(entry)
    return Ticket(self, entry)
  }

  /// Where in the file there is room before, between or behind those that are alive. What is on its way there for
  /// one that is not is carried out before anything that follows.
  private func freeOffset(for buffer: Buffer<Scalar>) -> Int {
    func byteCount(_ count: Int) -> Int { count * MemoryLayout<Scalar>.stride }
    var offset = 0
    for entry in entries.sorted(by: { $0.offset < $1.offset }) {
      if entry.offset - offset >= byteCount(buffer.count) { break }
      offset = entry.offset + byteCount(entry.count)
    }
    return offset
  }

  /// Up to where the file is in use.
  var fileByteCount: Int {
    entries.map { $0.offset + $0.count * MemoryLayout<Scalar>.stride }.max() ?? 0
  }

  private func finishWriting(_ entry: Entry) {
    guard case .leaving(let transfer) = entry.place else { return }
    attempt { try transfer.wait() }
    entry.place = .file
  }

  private func load(_ entry: Entry) -> Buffer<Scalar> {
    fetch(entry)
    let elements: Buffer<Scalar>
    switch entry.place {
    case .memory(let held): elements = held
    case .leaving(let transfer), .arriving(let transfer):
      attempt { try transfer.wait() }
      elements = transfer.buffer
    case .file: trap("an activation was not fetched")
    }
    if let index = entries.firstIndex(where: { $0 === entry }),
      let next = entries[..<index].last(where: { $0.microbatch == entry.microbatch })
    {
      fetch(next)
    }
    return elements
  }

  /// Begins to bring an activation back, if it is away.
  private func fetch(_ entry: Entry) {
    guard case .file = entry.place else { return }
    let room = arena.allocate(Scalar.self, count: entry.count, booking: entry.booking)
    entry.place = .arriving(file.read(into: room, at: entry.offset))
  }

  private func forget(_ entry: Entry) { entries.removeAll { $0 === entry } }
}
