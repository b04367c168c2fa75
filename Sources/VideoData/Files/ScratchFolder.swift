// A temporary folder that goes away with its owner.

import Foundation

package final class ScratchFolder {
  let url: URL

  /// Whether a folder has the name of one: then a program that was killed left it.
  package static func isNamedSo(_ name: String) -> Bool {
    name.hasPrefix("w2svd-") && name.hasSuffix(".tmp")
  }

  /// - Parameter parent: nil is the system's temporary folder.
  init(in parent: URL? = nil) throws {
    let parent = parent ?? FileManager.default.temporaryDirectory
    url = parent.appending(path: "w2svd-\(UUID().uuidString).tmp", directoryHint: .isDirectory)
    do {
      try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
    } catch {
      throw VideoError(
        .unwritable, "cannot make a folder in \(parent.path); \(VideoError.writingAdvice)",
        cause: error)
    }
  }

  func file(_ name: String) -> URL { url.appending(path: name) }

  deinit { try? FileManager.default.removeItem(at: url) }
}
