// Which stage of a pipeline runs which blocks: contiguous stretches, as even as they can be.

import Basics

/// Blocks over the stages of a pipeline. What comes before them belongs to the first stage, what comes
/// behind them to the last.
package struct StageCut: Hashable, Sendable {
  package let blockCount: Int
  package let stageCount: Int

  /// - Precondition: at least one block for each stage.
  package init(blockCount: Int, stageCount: Int) {
    require(
      stageCount > 0 && blockCount >= stageCount, "\(blockCount) blocks over \(stageCount) stages")
    self.blockCount = blockCount
    self.stageCount = stageCount
  }

  package func blocks(of stage: Int) -> Range<Int> {
    evenRange(of: blockCount, part: stage, partCount: stageCount)
  }

  package func stage(ofBlock block: Int) -> Int {
    require(block >= 0 && block < blockCount, "block \(block) of \(blockCount)")
    return ((block + 1) * stageCount - 1) / blockCount
  }

  /// The stage of each unit of a network: of its blocks in their order, of what is outside of them by
  /// whether it comes behind them. A network may have no blocks.
  package static func stages(
    of units: [(isBlock: Bool, isOutput: Bool)], stageCount: Int
  ) -> [Int] {
    let blockCount = units.count(where: \.isBlock)
    let cut = blockCount == 0 ? nil : StageCut(blockCount: blockCount, stageCount: stageCount)
    var block = 0
    return units.map { unit in
      guard unit.isBlock, let cut else { return unit.isOutput ? stageCount - 1 : 0 }
      defer { block += 1 }
      return cut.stage(ofBlock: block)
    }
  }
}
