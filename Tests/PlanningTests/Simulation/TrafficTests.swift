import MeshLayout
import Testing

@testable import Planning

/// Closed forms of specs of distributed systems, §2 to §4.
struct TrafficTests {
  private func sent(
    _ sizes: [Axis: Int], zeroStage: ZeroStage = .optimizer, turn: SimulatedTurn = .teach,
    n: Int = 1, recomputes: Bool = false, overlaps: Bool = false, ranksPerNode: Int = 64
  ) -> TurnProgram.Sent {
    TurnProgram(
      Example.work(blockCount: 4, recomputes: recomputes),
      Example.layout(
        sizes, zeroStage: zeroStage, overlaps: overlaps, ranksPerNode: ranksPerNode), turn,
      microbatchCount: n
    ).run().sent[0]
  }

  /// Bytes of all parameters of the example.
  private let parameters = 4.0 * 64 * 4
  /// Bytes of its hidden states.
  private let hidden = 2.0 * 32 * 16 * 4

  @Test(arguments: [2, 4, 8])
  func `ZeRO moves 2fP, with sharded parameters 3fP but for blocks that are there`(
    ranks: Int
  ) {
    let f = Double(ranks - 1) / Double(ranks)
    for overlaps in [false, true] {
      for shape: [Axis: Int] in [[.dp: ranks], [.zero: ranks]] {
        #expect(sent(shape, overlaps: overlaps).updates == 2 * f * parameters, "\(shape)")
      }
      func moved(_ zeroStage: ZeroStage, n: Int) -> Double {
        sent([.zero: ranks], zeroStage: zeroStage, n: n, overlaps: overlaps).updates
      }
      #expect(moved(.gradients, n: 1) == 2 * f * parameters)
      // Of 4 blocks the last one, with overlap the last two, are there when the way back begins.
      let there = overlaps ? 0.5 : 0.25
      #expect(moved(.parameters, n: 1) == (3 - there) * f * parameters)
      // Each microbatch gathers and sums again; from the second on its first blocks are there as well.
      #expect(moved(.parameters, n: 3) == (9 - 5 * there) * f * parameters)
      #expect(moved(.gradients, n: 3) == 4 * f * parameters)
      #expect(moved(.optimizer, n: 3) == 2 * f * parameters)
    }
  }

  @Test func `a frozen role is gathered once a pass, an adapter alone is summed`() {
    let f = 7.0 / 8
    let frozen = SimulatedTurn(
      name: "frozen", passes: [SimulatedPass(.base, .silent)], trainedPass: nil)
    // A block is there still, from the way back before.
    #expect(
      sent([.zero: 8], zeroStage: .parameters, turn: frozen).updates == 0.75 * f * parameters)
    #expect(sent([.zero: 8], turn: frozen).updates == 0)
    let critic = SimulatedTurn(
      name: "critic", passes: [SimulatedPass(.base, .adapterTrained, isAdapted: true)],
      trainedPass: 0)
    #expect(sent([.zero: 8], turn: critic).updates == 2 * f * parameters / 8)
  }

  @Test func `hybrid sharding sums one share of the gradients over replicas`() {
    let moved = sent([.dp: 4, .zero: 8], zeroStage: .parameters).updates
    #expect(moved == 2.75 * 7.0 / 8 * parameters + 2 * 3.0 / 4 * parameters / 8)
  }

  @Test(arguments: [2, 4, 8])
  func `Ulysses sends four all-to-alls of a share each way`(p: Int) {
    let share = Double(p - 1) / Double(p)
    let block = 4 * hidden / Double(p) * share
    #expect(sent([.sp: p]).activations == 4 * 2 * block)
    #expect(sent([.sp: p], recomputes: true).activations == 4 * 3 * block)
    #expect(sent([.sp: p], n: 3).activations == 3 * 4 * 2 * block)
  }

  @Test(arguments: [2, 4, 8])
  func `a ring passes on keys and values, and their gradients on the way back`(p: Int) {
    let hop = hidden / Double(p)
    #expect(sent([.ring: p]).activations == 4 * (2 + 4) * Double(p - 1) * hop)
    // Over both axes heads are shared by Ulysses, what goes round is a share of them.
    let both = 8 * hop / 2 * 1 / 2 + 6 * Double(p - 1) * hop / 2
    #expect(sent([.ring: p, .sp: 2]).activations == 4 * both)
  }

  @Test(arguments: [2, 4, 8])
  func `tensor parallel gathers twice and sums twice each way, and gathers again for the way back`(
    t: Int
  ) {
    let share = Double(t - 1) / Double(t)
    func sent(_ recomputes: Bool = false) -> TurnProgram.Sent {
      self.sent([.tp: t], zeroStage: .parameters, recomputes: recomputes)
    }
    #expect(sent().activations == 4 * (4 + 4 + 2) * share * hidden)
    #expect(sent(true).activations == 4 * (4 + 4 + 4) * share * hidden)
    // A rank computes with a part of the weights, the owners send them: loaded twice but for one block, summed once.
    #expect(sent().updates == 2.75 * share * parameters / Double(t))
  }

  @Test func `what nobody cuts is loaded whole`() {
    var work = Example.work(blockCount: 4)
    for index in work.model.blocks.indices { work.model.blocks[index].wholeCount = 16 }
    let moved = TurnProgram(
      work, Example.layout([.tp: 2, .zero: 2], zeroStage: .parameters), .teach, microbatchCount: 1
    ).run().sent[0].updates
    // 48 / 2 + 16 elements a block, a quarter of them own.
    #expect(moved == 2.75 * 4 * 0.75 * 4 * 40)
  }

  @Test func `stages pass on hidden states both ways`() {
    let run = TurnProgram(
      Example.work(blockCount: 4), Example.layout([.stages: 4]), .teach, microbatchCount: 3
    ).run()
    // 2 samples of the condition of 16 elements, whose gradient is wanted as well, and 3 words of what is tracked.
    let state = hidden + 4 * (2 * 16 + 3)
    #expect(run.sent.map(\.stages) == [1, 2, 2, 1].map { $0 * 3 * state })
    let local = TurnProgram(
      Example.work(blockCount: 4), Example.layout([.stages: 4], schedule: .localBlocks), .teach,
      microbatchCount: 3
    ).run()
    #expect(local.sent.map(\.stages) == [1, 1, 1, 0].map { $0 * 3 * state })
  }

  // MARK: Times

  private let slow = Link(latency: 4, secondsPerByte: 0.5)

  @Test func `groups over nodes send a piece to each member over its link`() {
    let fast = Link(latency: 0.25, secondsPerByte: 0.03125)
    let network = NetworkModel(inside: fast, between: slow)
    let group = RankGroup(size: 32, perNode: 8)
    // 7 messages of 32 bytes inside, 24 between.
    let seconds = 7.0 * 1.25 + 24.0 * 20
    #expect(network.allToAll(group, byteCount: 1024) == seconds)
    #expect(network.allReduce(group, byteCount: 1024) == 2 * seconds)
    // On links of one kind (p − 1) a + (p − 1)/p m b, with p = 8 and m = 64: 7 messages and 56 bytes.
    #expect(
      network.allToAll(RankGroup(size: 8, perNode: 8), byteCount: 64) == 7 * 0.25 + 56 * 0.03125)
    #expect(network.allToAll(RankGroup(size: 8, perNode: 1), byteCount: 64) == 7 * 4 + 56 * 0.5)
    #expect(network.allToAll(RankGroup(size: 1, perNode: 1), byteCount: 64) == 0)
    let uniform = NetworkModel(inside: slow, between: slow)
    #expect(uniform.allToAll(group, byteCount: 64) == 31 * 4 + 62 * 0.5)
  }

  @Test func `groups lie over nodes as ranks are numbered`() {
    let layout = Example.layout([.stages: 2, .zero: 4, .sp: 4, .tp: 2], ranksPerNode: 8)
    #expect(layout.rankCount == 64 && layout.nodeCount == 8)
    #expect(layout.tensorGroup == RankGroup(size: 2, perNode: 2))
    #expect(layout.sequenceGroup == RankGroup(size: 4, perNode: 4))
    #expect(layout.tokenGroup == RankGroup(size: 8, perNode: 8))
    #expect(layout.shardGroup == RankGroup(size: 32, perNode: 8))
    #expect(layout.microbatchRankCount == 16)
    #expect(layout.crossesNodes(fromStage: 0, to: 1))
    let small = Example.layout([.stages: 4, .sp: 2], ranksPerNode: 4)
    #expect(!small.crossesNodes(fromStage: 0, to: 1) && small.crossesNodes(fromStage: 1, to: 2))
    // Three ranks of a group of six fit a node of four evenly.
    #expect(
      Example.layout([.sp: 6], ranksPerNode: 4).sequenceGroup == RankGroup(size: 6, perNode: 3))
  }

  @Test func `gathers hide behind blocks but for the first, sums but for the last`() {
    var machine = Example.machine
    machine.latencyInside = 1
    func timeline(_ overlaps: Bool) -> Timeline {
      TurnProgram(
        Example.work(blockCount: 6, forward: 4, machine: machine),
        Example.layout([.zero: 2], zeroStage: .parameters, overlaps: overlaps), .teach,
        microbatchCount: 1
      ).run().timeline
    }
    let compute = 6.0 * 12
    #expect(timeline(true).seconds == 1 + compute + 1)
    #expect(timeline(true).stages[0].exposedCommunication == 2)
    // Two gathers and a sum of each block, one after the other; the last block is gathered once.
    #expect(timeline(false).seconds == compute + 6 * 3 - 1)
    #expect(timeline(false).stages[0].exposedCommunication == 6 * 3 - 1)
    #expect(timeline(false).stages[0].bubble == 0)
  }
}
