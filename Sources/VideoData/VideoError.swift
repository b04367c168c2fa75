// What can go wrong with video files and with the programs that read them.

import Basics

/// A failure of a user's file, of ffmpeg or of the disk. The message says what to do.
package struct VideoError: Error, CustomStringConvertible {
  package enum Code: Sendable {
    /// No readable file at the path.
    case missingFile
    /// The file is no video, or has no video stream.
    case notVideo
    /// The stream ends early or does not decode cleanly.
    case broken
    /// Fewer frames than one clip.
    case tooShort
    /// ffmpeg or ffprobe is not installed.
    case toolMissing
    /// ffmpeg failed for another reason, or ran past its deadline.
    case toolFailed
    /// A file could not be written.
    case unwritable
    /// A prepared set on disk is not what was written.
    case damagedSet
    /// The data are not those that the caller goes on with; nothing was written.
    case otherData
    /// Several files failed; the message has a line for each.
    case severalFiles
    /// The caller asked to stop; nothing was written.
    case stopped
  }

  /// What to do about a file that cannot be written.
  static let writingAdvice = "free some space or check the permissions, then start again"

  package let code: Code
  package let message: String
  package let cause: (any Error)?

  package init(_ code: Code, _ message: String, cause: (any Error)? = nil) {
    self.code = code
    self.message = message
    self.cause = cause
  }

  package var description: String {
    cause.map { "\(message) (\(words(of: $0)))" } ?? message
  }
}
