// What ranks must agree on before they go on: that nobody failed.

extension Transport {
  /// Returns when no rank has an error; throws on every rank when any has.
  ///
  /// Call it where one rank may fail locally (a file, a video) while others would go on into the
  /// next collective and wait there forever.
  /// - Throws: `rankFailed` with the first failing rank and its message, the same on all ranks;
  ///   `cause` is this rank's own error, if it had one.
  /// - Collective: over the group.
  package func agree(on error: (any Error)?) throws {
    let texts = try allGather(error.map { [1] + Array(String(describing: $0).utf8) } ?? [])
    guard let first = texts.firstIndex(where: { !$0.isEmpty }) else { return }
    throw PeerError(
      code: .rankFailed, rank: first,
      message: String(decoding: texts[first].dropFirst(), as: UTF8.self), cause: error)
  }

  /// Runs `body` on this rank and goes on only if it succeeded on all ranks.
  /// - Throws: as `agree(on:)`.
  /// - Collective: over the group; `body` must not call collectives.
  package func agreeing<Result>(_ body: () throws -> Result) throws -> Result {
    let outcome = Swift.Result(catching: body)
    switch outcome {
    case .success(let value):
      try agree(on: nil)
      return value
    case .failure(let error):
      try agree(on: error)
      throw error
    }
  }
}
