// What a user can get wrong about a layout.

/// A layout that cannot be, with what to change.
package struct MeshLayoutError: Error, Equatable, CustomStringConvertible {
  package enum Code: Equatable, Sendable {
    case moreRanksThanMicrobatches
    case rankCountMismatch
    case axisNotPositive
    case doesNotDivide
    case moreStagesThanBlocks
  }

  package let code: Code
  /// Says what to do.
  package let message: String
  package var cause: (any Error)? { nil }

  package init(code: Code, message: String) {
    self.code = code
    self.message = message
  }

  package var description: String { message }
}
