// What a writer reports of its file, and how the reports of all writers become one table.

/// What one writer wrote, to travel to the writer that commits.
package struct PieceList: Codable, Equatable, Sendable {
  package let writer: Int
  package let writerCount: Int
  /// nil when the writer had nothing to write.
  package let file: Manifest.File?
  package let tensors: [String: Manifest.Tensor]

  init(writer: Int, writerCount: Int, file: Manifest.File?, tensors: [String: Manifest.Tensor]) {
    self.writer = writer
    self.writerCount = writerCount
    self.file = file
    self.tensors = tensors
  }
}

extension Manifest {
  /// Puts the lists of all writers together.
  /// - Throws: `incompleteCoverage`, naming up to ten tensors, unless each writer reported once, all
  ///   agree on types and shapes, and each element of each tensor was written exactly once.
  init(joining lists: [PieceList], fields: Fields) throws {
    let writerCount = lists.first?.writerCount ?? 0
    let writers = lists.map(\.writer).sorted()
    guard writerCount > 0, writers == Array(0..<writerCount),
      lists.allSatisfy({ $0.writerCount == writerCount })
    else {
      throw CheckpointError(
        .incompleteCoverage,
        "step \(fields.step) is not saved: writers \(writers) of \(writerCount) reported")
    }
    var tensors: [String: Tensor] = [:]
    var problems: [String] = []
    for list in lists.sorted(by: { $0.writer < $1.writer }) {
      for (name, tensor) in list.tensors {
        guard var joined = tensors[name] else {
          tensors[name] = tensor
          continue
        }
        if joined.type != tensor.type || joined.shape != tensor.shape {
          problems.append(
            "\(name): \(tensor.type.rawValue) \(tensor.shape) from writer \(list.writer), "
              + "\(joined.type.rawValue) \(joined.shape) from an earlier one")
        } else {
          joined.slices += tensor.slices
          tensors[name] = joined
        }
      }
    }
    for (name, tensor) in tensors {
      if let problem = coverageProblem(of: tensor.slices.map(\.box), in: tensor.shape) {
        problems.append("\(name): \(problem)")
      }
    }
    guard problems.isEmpty else {
      let shown = problems.sorted().prefix(10).joined(separator: "; ")
      let more = problems.count > 10 ? "; and \(problems.count - 10) more" : ""
      throw CheckpointError(
        .incompleteCoverage, "step \(fields.step) is not saved: \(shown)\(more)")
    }
    self.init(
      formatVersion: Self.currentFormatVersion, writerCount: writerCount, fields: fields,
      files: lists.sorted { $0.writer < $1.writer }.compactMap(\.file), tensors: tensors)
  }
}
