// What a rank takes as a process: more than its tensors at their fullest moment.
//
//     pool       blocks of tensors, which the arena keeps by size: of each size as many as were ever in use at once; under a
//                limit no more than it leaves, while tensors keep within it
//     messages   buckets on their way, coded and received (five of them), and exchanges of activations
//     slices     partial sums of products that are made in slices, for each thread, while one is computed
//     program    the program, its libraries and MPI as they are before anything is allocated: measured at the start
//     pieces     free pieces of the heap, packed operands, what phases hold outside of the arena
//
// Found by the heap's own statistics and the resident set of real runs of 1 and 2 ranks; checked by
// Tests/Checks/test-process-memory. Not counted: prepared videos, which are as large as the data.

import MeshLayout

package struct ProcessMemory: Codable, Equatable, Sendable {
  package private(set) var poolByteCount: Int
  package let messageByteCount: Int
  package let sliceByteCount: Int
  package let programByteCount: Int

  /// Resident after the start of MPI, on the reference machine.
  package static let usualProgramByteCount = 40 << 20
  /// Of the heap.
  package static let pieceByteCount = 16 << 20

  package var byteCount: Int { poolByteCount + besidePoolByteCount }

  /// What is not the arena's.
  package var besidePoolByteCount: Int {
    messageByteCount + sliceByteCount + programByteCount + Self.pieceByteCount
  }

  /// - Parameter limit: bytes that the process may take; nil: no limit.
  init(_ memory: PlannedMemory, of costs: RunCosts, programByteCount: Int, limit: Int?) {
    messageByteCount = 5 * costs.bucketByteCount + 3 * memory.largestSendByteCount
    sliceByteCount = costs.sliceByteCount
    self.programByteCount = programByteCount
    poolByteCount = memory.poolByteCount
    if let limit {
      poolByteCount = min(
        poolByteCount, max(memory.totalPeakByteCount, limit - besidePoolByteCount))
    }
  }
}

extension RunCosts {
  /// By rank.
  /// - Parameter limit: bytes that a process may take; nil: no limit.
  package func processes(
    programByteCount: Int = ProcessMemory.usualProgramByteCount, limit: Int? = nil
  ) -> [ProcessMemory] {
    memory.map {
      ProcessMemory($0, of: self, programByteCount: programByteCount, limit: limit)
    }
  }
}

extension WorkloadSizes {
  /// What the largest product in slices holds beside its result, as `plane_count` and `stripe_rows` of
  /// Sources/CKernels/products.c have it.
  func sliceByteCount(_ shape: MeshShape) -> Int {
    guard let sliceCount = network.sliceCount else { return 0 }
    let planeCount = (sliceCount / shape[.tp]).trailingZeroBitCount
    guard planeCount > 0 else { return 0 }
    let groups = shape[.ring] * shape[.sp]
    let sampleCount = max(samplesPerMicrobatch, evaluationBatch)
    let rows = (sampleCount * network.rowCount + groups - 1) / groups
    let columns = min(network.width, 1_024)
    let fit = max((8 << 20) / 4 / planeCount / columns, 480)
    return threadCount * 4 * planeCount * min(rows, fit) * columns
  }
}
