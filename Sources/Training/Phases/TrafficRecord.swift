// `traffic.json`: what the end of each phase sent when it gathered an average. No step has a record of
// that, so it cannot stand in `metrics.jsonl`.

import Exchange
import Foundation

struct TrafficRecord: Codable {
  /// Over all ranks, by phase.
  private(set) var averages: [String: ExchangeStatistics.Traffic] = [:]

  /// An empty record where there is none.
  init(reading folder: RunFolder) {
    guard let bytes = try? Data(contentsOf: folder.traffic),
      let stored = try? JSONDecoder().decode(Self.self, from: bytes)
    else { return }
    self = stored
  }

  /// Adds what a phase sent; a phase that ends once more replaces what it noted.
  static func note(
    _ traffic: ExchangeStatistics.Traffic, of phase: String, in folder: RunFolder
  ) throws {
    var record = TrafficRecord(reading: folder)
    let before = record.averages[phase]
    record.averages[phase] = traffic.messageCount > 0 ? traffic : nil
    guard record.averages[phase] != before else { return }
    try RunFolder.write(record, to: folder.traffic)
  }
}
