// What a stage holds and sends, and what becomes of the others when one fails.

import Foundation
import MeshLayout
import MessagePassing
import Models
import ProcessMesh
import Tensors
import TestSupport
import Testing

@testable import Training

/// Passes everything on; the `failing`-th message that comes in throws instead.
private final class BrokenTransport: Transport {
  final class Count { var received = 0 }
  struct Broken: Error {}

  private let inner: any Transport
  private let failing: Int
  private let count: Count

  init(_ inner: any Transport, failing: Int, count: Count = Count()) {
    self.inner = inner
    self.failing = failing
    self.count = count
  }

  var rank: Int { inner.rank }
  var size: Int { inner.size }
  func isSameNode(_ peer: Int) -> Bool { inner.isSameNode(peer) }
  func send(_ bytes: [UInt8], to peer: Int, tag: Int) throws {
    try inner.send(bytes, to: peer, tag: tag)
  }
  func receive(from peer: Int, tag: Int) throws -> [UInt8] {
    try inner.receive(from: peer, tag: tag)
  }
  func post(_ payload: Payload, to peer: Int, tag: Int) throws {
    try inner.post(payload, to: peer, tag: tag)
  }
  func receivePayload(from peer: Int, tag: Int) throws -> Payload {
    count.received += 1
    if count.received == failing { throw Broken() }
    return try inner.receivePayload(from: peer, tag: tag)
  }
  func adoptThread() { inner.adoptThread() }
  func barrier() throws { try inner.barrier() }
  func broadcast(_ bytes: [UInt8], root: Int) throws -> [UInt8] {
    try inner.broadcast(bytes, root: root)
  }
  func gather(_ bytes: [UInt8], root: Int) throws -> [[UInt8]]? {
    try inner.gather(bytes, root: root)
  }
  func startAllToAll(_ payloads: [Payload]) throws -> PendingOperation {
    try inner.startAllToAll(payloads)
  }
  func startAllGather(_ payload: Payload) throws -> PendingOperation {
    try inner.startAllGather(payload)
  }
  func startShift(_ payload: Payload, by distance: Int) throws -> PendingOperation {
    try inner.startShift(payload, by: distance)
  }
  func split(color: Int, key: Int) throws -> any Transport {
    BrokenTransport(try inner.split(color: color, key: key), failing: failing, count: count)
  }
  func abandon(_ error: any Error) { inner.abandon(error) }
}

struct PipelineTests {
  private static func configuration(
    stages: Int, microbatches: Int, _ schedule: RunConfiguration.PipelineOrder
  ) -> RunConfiguration {
    TinyRun.configuration {
      ($0.model.doubleBlocks, $0.model.singleBlocks) = (4, 0)
      $0.batch.microbatches = microbatches
      $0.mesh.stages = .fixed(stages)
      $0.mesh.schedule = schedule
    }
  }

  /// Teaches on a rank and tells what `read` finds afterwards.
  private static func teach<Found>(
    _ configuration: RunConfiguration, on transport: any Transport, in folder: URL,
    _ read: (RunContext) throws -> Found
  ) throws -> Found {
    let context = try RunContext(
      configuration: configuration, folder: RunFolder(folder.path + "/run/"),
      transport: transport,
      shape: try Coordinator.plan(configuration, rankCount: transport.size).shape,
      reporter: Reporter(), isStopRequested: { false })
    let networks = Networks(
      configuration.transformer, nullTokenCount: configuration.model.textTokens,
      makeParameters: context.shardGroup.parameters)
    networks.configuration.initialize(networks.base.parameters, seed: 1)
    let prepared = try TinyRun.prepared(in: folder)
    let batches = TrainingBatches(prepared, context: context, texts: nil, firstCounter: 0)
    try TeachPhase(context: context, networks: networks, batches: batches)
      .run(from: 0) { _, _ in }
    return try read(context)
  }

  /// By stage, the peak of what passes of W keep.
  private func peaks(
    _ schedule: RunConfiguration.PipelineOrder, stages: Int, microbatches: Int
  ) throws -> [Int] {
    let configuration = Self.configuration(
      stages: stages, microbatches: microbatches, schedule)
    return try withTemporaryFolder { folder in
      _ = try TinyRun.prepared(in: folder)
      return try InProcessMesh.run(size: stages) { transport in
        try Self.teach(configuration, on: transport, in: folder) { context in
          context.arena.ledger.peakByteCount(of: Booking(.base, .activations))
        }
      }
    }
  }

  @Test func `1F1B holds the activations of at most stages − stage microbatches`() throws {
    for stages in [2, 4] {
      let few = try (1...stages).map {
        try peaks(.oneForwardOneBackward, stages: stages, microbatches: $0)
      }
      let many = try peaks(.oneForwardOneBackward, stages: stages, microbatches: 7)
      for stage in 0..<stages {
        #expect(many[stage] == few[stages - stage - 1][stage], "stage \(stage) of \(stages)")
        #expect(many[0] > many[stages - 1])
      }
    }
  }

  @Test func `GPipe holds the activations of all microbatches`() throws {
    let held = try [2, 3, 6].map { try peaks(.gPipe, stages: 2, microbatches: $0) }
    for stage in 0..<2 {
      let one = held[1][stage] - held[0][stage]
      #expect(one > 0 && held[2][stage] - held[1][stage] == 3 * one, "stage \(stage)")
    }
  }

  @Test func `stages send states, their gradients and velocities, and nothing else`() throws {
    for schedule in RunConfiguration.PipelineOrder.allCases {
      let (stages, microbatches) = (3, 5)
      let configuration = Self.configuration(
        stages: stages, microbatches: microbatches, schedule)
      let sent = try withTemporaryFolder { folder in
        _ = try TinyRun.prepared(in: folder)
        return try InProcessMesh.run(size: stages) { transport in
          let recorded = RecordingTransport(transport)
          return try Self.teach(configuration, on: recorded, in: folder) { _ in
            recorded.log.entries.filter { $0.name == "post" }.map(\.sentByteCount)
          }
        }
      }
      // Latents of 4 × 4 in two frames: 4 × 2 tokens, with 2 of text, and the condition: rows of a width of 16.
      let latents = configuration.latentShape
      let tokenCount = latents[1] * latents[2] * latents[3] / 4
      let state = 4 * ((tokenCount + configuration.model.textTokens + 1) * 16 + 3)
      let velocity = 4 * latents.reduce(1, *)
      let passes = configuration.teach.steps * microbatches
      let expected = [
        Array(repeating: state, count: passes),
        Array(repeating: state, count: 2 * passes),
        Array(repeating: state, count: passes)
          + Array(repeating: velocity, count: (stages - 1) * passes),
      ]
      #expect(sent.map { $0.sorted() } == expected.map { $0.sorted() }, "\(schedule)")
    }
  }

  @Test(arguments: RunConfiguration.PipelineOrder.allCases)
  func `a stage that fails ends all`(_ schedule: RunConfiguration.PipelineOrder) throws {
    let configuration = Self.configuration(stages: 3, microbatches: 4, schedule)
    for failing in [0, 1, 2] {
      for message in [1, 4, 9] {
        let ended = try withTemporaryFolder { folder in
          _ = try TinyRun.prepared(in: folder)
          return try InProcessMesh.run(size: 3) { transport -> Bool in
            let broken = BrokenTransport(
              transport, failing: transport.rank == failing ? message : -1)
            do {
              return try Self.teach(configuration, on: broken, in: folder) { _ in false }
            } catch {
              return true
            }
          }
        }
        #expect(ended == [true, true, true], "message \(message) to stage \(failing)")
      }
    }
  }
}
