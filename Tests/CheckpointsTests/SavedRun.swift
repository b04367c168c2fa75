// What the tests of sharded checkpoints share: a run that saves tensors cut in a given way.

import DenseKernels
import Foundation

@testable import Checkpoints

/// Element `index` of every test tensor: exact in Float32, different everywhere.
func element(_ index: Int) -> Float { Float(index) * 0.5 - 7 }

func elements(_ range: Range<Int>) -> [Float] { range.map(element) }

/// `count` elements cut at `cuts`: one range more than cuts.
func ranges(of count: Int, cutAt cuts: [Int]) -> [Range<Int>] {
  zip([0] + cuts, cuts + [count]).map { $0..<$1 }
}

/// Cuts into `parts` ranges of nearly equal length.
func evenRanges(of count: Int, _ parts: Int) -> [Range<Int>] {
  (0..<parts).map { $0 * count / parts..<($0 + 1) * count / parts }
}

/// Saves one step: `pieces[w]` are those of writer w.
@discardableResult
func save(
  _ pieces: [[TensorPiece]], step: Int, in store: CheckpointStore,
  fields: Manifest.Fields? = nil
) throws -> Manifest {
  let writer = store.writer(step: step)
  try writer.begin()
  let lists = try pieces.enumerated().map {
    try writer.writePieces($1, writer: $0, of: pieces.count)
  }
  // The lists travel as bytes.
  let received = try lists.map {
    try JSONDecoder().decode(PieceList.self, from: JSONEncoder().encode($0))
  }
  return try writer.commit(received, fields ?? Manifest.Fields(step: step, phase: "teach"))
}

/// A small model, its elements shifted by the step, cut evenly over `writerCount` writers.
func smallModel(step: Int, writerCount: Int = 2) -> [[TensorPiece]] {
  (0..<writerCount).map { writer in
    [("a.weight", [3, 5]), ("b", []), ("c", [2, 0])].map { name, shape in
      let count = shape.reduce(1, *)
      let range = evenRanges(of: count, writerCount)[writer]
      return TensorPiece(
        name, shape: shape, .elements(range), Buffer(elements(range).map { $0 + Float(step) }))
    }
  }
}
