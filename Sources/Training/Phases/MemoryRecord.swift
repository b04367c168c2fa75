// `memory.json`: what the tensors of a run, and its processes, took at their peaks, for the report.

package import Evaluation
import Foundation
package import ProcessMesh
package import Tensors

/// The ledgers of all ranks at their peaks, summed; written when training ends.
package struct MemoryRecord: Codable {
  private let accounts: [MemoryLedger.Entry]
  /// Resident bytes of each rank's process at their peak; older files have none.
  private let processes: [Int]?

  /// - Collective: over the transport.
  package init(_ ledger: MemoryLedger, _ transport: any Transport) throws {
    accounts = try transport.allGather(value: ledger.entries).flatMap(\.self)
    processes = try transport.allGather(value: ResourceUsage.current()?.peakByteCount ?? 0)
  }

  package init(reading folder: RunFolder) throws {
    self = try JSONDecoder().decode(Self.self, from: Data(contentsOf: folder.memory))
  }

  package func write(to folder: RunFolder) throws {
    try RunFolder.write(self, to: folder.memory)
  }

  package var entries: [ReportContent.MemoryEntry] {
    accounts.map {
      ReportContent.MemoryEntry(
        role: $0.role.rawValue, category: $0.category.rawValue, byteCount: $0.peakByteCount)
    }
  }
}
