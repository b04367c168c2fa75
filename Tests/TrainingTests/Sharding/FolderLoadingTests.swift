// A rank that holds a part of a network never has all of it in memory while the network's folder is loaded.

import Autodiff
import DenseKernels
import Foundation
import MeshLayout
import Models
import ProcessMesh
import Tensors
import TestSupport
import Testing

@testable import Training

struct FolderLoadingTests {
  private struct Loaded {
    var elements: [Float]
    /// Bytes of all bookings in the arena, when the network is loaded, and at most until then.
    var liveByteCount: Int
    var peakByteCount: Int
  }

  @Test(arguments: Architecture.allCases, [2, 4])
  func `a folder loads within a rank's shard and two units`(
    architecture: Architecture, ranks: Int
  ) throws {
    let configuration = TinyRun.configuration {
      $0.model.architecture = architecture
      $0.model.heads = 4
      ($0.model.doubleBlocks, $0.model.singleBlocks) =
        architecture == .vchitect ? (8, $0.model.singleBlocks) : (4, 8)
      $0.mesh.zeroStage = .fixed(3)
    }
    let transformer = configuration.transformer
    try withTemporaryFolder { folder in
      let place = folder.appending(path: "source")
      let arena = Arena()
      let whole = Networks(transformer, nullTokenCount: configuration.model.textTokens) {
        ParameterSet($0, in: arena, role: $1)
      }
      transformer.initialize(whole.base.parameters, seed: 7)
      try transformer.write(whole.base.parameters, to: place)
      let elements = whole.base.parameters.values.array
      let units = whole.base.parameters.layout.units.map { 4 * $0.range.count }

      let shape = try Coordinator.plan(configuration, rankCount: ranks).shape
      let found = try InProcessMesh.run(size: ranks) { transport in
        let context = try RunContext(
          configuration: configuration, folder: RunFolder(folder.path + "/run/"),
          transport: transport, shape: shape, reporter: Reporter(), isStopRequested: { false })
        let source = try Architecture.openFolder(place)
        let networks = Networks(
          source.configuration, nullTokenCount: configuration.model.textTokens,
          makeParameters: context.parameters)
        #expect(!networks.base.parameters.isWhole)
        try source.load(into: networks.base.parameters)
        let ledger = context.arena.ledger
        return Loaded(
          elements: networks.base.parameters.wholeVector, liveByteCount: ledger.totalLiveByteCount,
          peakByteCount: ledger.totalPeakByteCount)
      }
      // Memory is booked by blocks, which are rounded up by less than a 64th.
      func booked(_ byteCount: Int) -> Int { byteCount * 65 / 64 }
      let shard = 4 * elements.count / ranks
      let largest = units.sorted().suffix(2).reduce(0, +)
      for rank in found {
        let isSame = rank.elements == elements
        #expect(isSame)
        // A shard is even up to whole leaves of the norm's sum in each unit.
        #expect(abs(rank.liveByteCount - shard) <= booked(shard) - shard + 4 * 4_096 * units.count)
        #expect(rank.peakByteCount <= rank.liveByteCount + booked(largest))
        #expect(rank.peakByteCount < 4 * elements.count)
      }
    }
  }
}
