// What a rank takes as a process: more than its tensors at their fullest moment.
//
//     pool       blocks of tensors, which the arena keeps by size: of each size as many as were ever in use at once
//     messages   buckets on their way, coded and received (five of them), and exchanges of activations
//     program    the program, its libraries and MPI as they are before anything is allocated: measured at the start
//     pieces     free pieces of the heap, packed operands, what phases hold outside of the arena
//
// Found by the heap's own statistics and the resident set of real runs of 1 and 2 ranks; checked by
// Tests/Checks/test-process-memory. Not counted: prepared videos, which are as large as the data.

package struct ProcessMemory: Codable, Equatable, Sendable {
  package let poolByteCount: Int
  package let messageByteCount: Int
  package let programByteCount: Int

  /// Resident after the start of MPI, on the reference machine.
  package static let usualProgramByteCount = 40 << 20
  /// Of the heap.
  package static let pieceByteCount = 16 << 20

  package var byteCount: Int {
    poolByteCount + messageByteCount + programByteCount + Self.pieceByteCount
  }

  init(_ memory: PlannedMemory, bucketByteCount: Int, programByteCount: Int) {
    poolByteCount = memory.poolByteCount
    messageByteCount = 5 * bucketByteCount + 3 * memory.largestSendByteCount
    self.programByteCount = programByteCount
  }
}

extension RunCosts {
  /// By rank.
  package func processes(
    programByteCount: Int = ProcessMemory.usualProgramByteCount
  ) -> [ProcessMemory] {
    memory.map {
      ProcessMemory($0, bucketByteCount: bucketByteCount, programByteCount: programByteCount)
    }
  }
}
