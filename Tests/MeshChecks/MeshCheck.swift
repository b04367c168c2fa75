// Bodies of mesh tests: each takes one rank's endpoint of a group of any size and throws if the
// group misbehaves. `swift test` runs them on threads, `mesh-checks` under mpirun on processes.

package import ProcessMesh

/// One body, run by every rank of a group.
package struct MeshCheck: Sendable, CustomStringConvertible {
  /// A sentence.
  package let name: String
  package let body: @Sendable (any Transport) throws -> Void

  package init(_ name: String, _ body: @escaping @Sendable (any Transport) throws -> Void) {
    self.name = name
    self.body = body
  }

  package var description: String { name }
}

/// Every check, cheap first. Other modules append theirs here.
package let allMeshChecks: [MeshCheck] =
  collectiveChecks + messageChecks + groupChecks + reductionChecks + agreementChecks
  + trafficChecks + exchangeChecks + sliceChecks + tokenExchangeChecks + ringChecks
  + latentChecks

/// What a body throws when the group misbehaves.
package struct CheckFailure: Error, CustomStringConvertible {
  package let description: String
  package init(description: String) { self.description = description }
}

/// Throws, naming the source line, unless `actual == expected`.
package func expectEqual<Value: Equatable>(
  _ actual: Value, _ expected: Value, _ what: @autoclosure () -> String = "",
  file: StaticString = #fileID, line: UInt = #line
) throws {
  if actual == expected { return }
  throw CheckFailure(
    description: "\(file):\(line) \(what()): got \(brief(actual)), expected \(brief(expected))")
}

/// Throws, naming the source line, unless `holds`.
package func expect(
  _ holds: Bool, _ what: @autoclosure () -> String, file: StaticString = #fileID,
  line: UInt = #line
) throws {
  if !holds { throw CheckFailure(description: "\(file):\(line) \(what())") }
}

/// The first error that `body` throws; throws if there is none.
package func caught(
  file: StaticString = #fileID, line: UInt = #line, _ body: () throws -> Void
) throws -> any Error {
  do { try body() } catch { return error }
  throw CheckFailure(description: "\(file):\(line) nothing was thrown")
}

private func brief(_ value: some Any) -> String {
  let text = String(describing: value)
  return text.count <= 200 ? text : text.prefix(200) + "…"
}

/// Payload sizes around every border: nothing, one byte, both sides of the eager front of an MPI
/// message (3840 bytes with 8 of header), several parts, and 5 MB.
let payloadSizes = [0, 1, 7, 3_831, 3_832, 3_833, 65_537, 5_000_000]

/// Bytes that depend on sender, receiver, purpose and place, so that no mix-up goes unseen.
func payload(from source: Int, to destination: Int, salt: Int = 0, count: Int) -> [UInt8] {
  let start = source &* 131 &+ destination &* 31 &+ salt &* 17 &+ 1
  return (0..<count).map { UInt8(truncatingIfNeeded: start &+ $0 &* 7 &+ ($0 >> 8)) }
}

/// What ranks pass where their bytes must be ignored.
let poison: [UInt8] = Array(repeating: 0xA5, count: 13)
