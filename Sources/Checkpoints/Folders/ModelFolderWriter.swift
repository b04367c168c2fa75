// Writes a model in Hugging Face's layout, tensor by tensor. The folder appears under its name only
// when all of it is on the disk; an older folder of that name is replaced in one step.

import Basics
package import DenseKernels
package import Foundation

/// A model folder being written.
package final class ModelFolderWriter {
  private let url: URL
  private let temporary: URL
  private let layout: ModelFolderLayout
  private let shards: [SafetensorsWriter]
  private let shardOfTensor: [String: Int]

  /// diffusers' default for the size of one file.
  package static let defaultLargestShard = 10_000_000_000

  /// - Parameters:
  ///   - configuration: the JSON file, as it is to stand there.
  ///   - tensors: filled into shards in this order; a tensor is never split.
  ///   - largestShard: bytes of tensors in one file, unless one tensor alone has more.
  /// - Throws: `diskFull`, `inputOutput`.
  package init(
    creating url: URL, layout: ModelFolderLayout = .diffusers, configuration: Data,
    tensors: [TensorDeclaration], largestShard: Int = defaultLargestShard
  ) throws {
    let groups = Self.grouped(tensors, largestShard: largestShard)
    let temporary = URL(filePath: url.plainPath + ".tmp")
    try removeIfThere(temporary)
    try createFolder(temporary)
    do {
      try writeWhole(
        [UInt8](configuration), to: temporary.appending(path: layout.configurationName))
      shards = try groups.enumerated().map { index, group in
        try SafetensorsWriter(
          creating: temporary.appending(path: layout.shardName(index, of: groups.count)),
          tensors: group, metadata: ["format": "pt"])
      }
    } catch {
      try? FileManager.default.removeItem(at: temporary)
      throw error
    }
    self.url = url
    self.temporary = temporary
    self.layout = layout
    shardOfTensor = Dictionary(
      uniqueKeysWithValues: groups.enumerated().flatMap { index, group in
        group.map { ($0.name, index) }
      })
  }

  /// Appends Float32 elements to a tensor, converted to its declared type.
  package func append(_ values: Buffer<Float>, to name: String) throws {
    guard let shard = shardOfTensor[name] else {
      trap("\(url.plainPath) was declared without tensor \(name)")
    }
    do { try shards[shard].append(values, to: name) } catch {
      abandon()
      throw error
    }
  }

  package func append(_ values: [Float], to name: String) throws {
    try append(Buffer(values), to: name)
  }

  /// Where a further file of the folder is written, which appears with it.
  package func place(of name: String) -> URL { temporary.appending(path: name) }

  /// Makes the folder appear.
  /// - Precondition: every tensor was written whole.
  package func finish() throws {
    do {
      for shard in shards { try shard.finish() }
      if shards.count > 1 { try writeIndex() }
      try explainingFailures {
        try PositionedFile.synchronizeFolder(temporary.plainPath)
        try replaceFolder(url, by: temporary)
      }
    } catch {
      abandon()
      throw error
    }
  }

  /// Gives the folder up and frees its space.
  package func abandon() { try? FileManager.default.removeItem(at: temporary) }

  private func writeIndex() throws {
    let total = shards.reduce(0) { $0 + $1.header.fileByteCount - $1.header.dataStart }
    let names = shardOfTensor.sorted { $0.key < $1.key }
      .map { name, shard in
        "    \(name.jsonQuoted): "
          + layout.shardName(shard, of: shards.count).jsonQuoted
      }
    let text = """
      {
        "metadata": {
          "total_size": \(total)
        },
        "weight_map": {
      \(names.joined(separator: ",\n"))
        }
      }

      """
    try writeWhole(Array(text.utf8), to: temporary.appending(path: layout.indexName))
  }

  private static func grouped(_ tensors: [TensorDeclaration], largestShard: Int)
    -> [[TensorDeclaration]]
  {
    var groups: [[TensorDeclaration]] = [[]]
    var byteCount = 0
    for tensor in tensors {
      if byteCount > 0 && byteCount + tensor.byteCount > largestShard {
        groups.append([])
        byteCount = 0
      }
      groups[groups.count - 1].append(tensor)
      byteCount += tensor.byteCount
    }
    return groups
  }
}
