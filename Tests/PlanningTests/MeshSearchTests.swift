import MeshLayout
import Testing

@testable import Planning

struct MeshSearchTests {
  private func search(
    _ ranks: Int, microbatches: Int = 8, heads: Int = 6, dp: Int = 1, zero: Int? = nil,
    ring: Int = 1, sp: Int? = nil, stage: ZeroStage? = .optimizer
  ) -> MeshSearch {
    MeshSearch(
      rankCount: ranks, microbatchCount: microbatches, headCount: heads, dp: dp, zero: zero,
      ring: ring, sp: sp, stage: stage)
  }

  @Test func `lower stages come first, and stages above 1 want full rounds`() {
    let stages = search(8, stage: nil).shapes.filter { $0[.sp] == 1 }.map(\.zeroStage)
    #expect(stages == [.optimizer, .gradients, .parameters])
    let uneven = search(3, stage: nil).shapes
    #expect(uneven.allSatisfy { $0.zeroStage == .optimizer || 8 % $0[.zero] == 0 })
    #expect(uneven.first == MeshShape([.zero: 3]))
    #expect(search(1, stage: .parameters).shapes == [MeshShape()])
    let problem = search(3, heads: 4, stage: .gradients).problems.first
    #expect(problem?.key == "mesh.zeroStage")
    #expect(problem?.message.contains("do not divide the 8 of batch.microbatches") == true)
    #expect(problem?.message.contains("legal here: mesh.zero 3, mesh.sp 1") == true)
  }

  @Test func `replicas are kept where they are asked for, and divide the ranks`() {
    #expect(
      search(8, dp: 2).shapes == [
        MeshShape([.dp: 2, .zero: 4]), MeshShape([.dp: 2, .zero: 2, .sp: 2]),
      ])
    #expect(search(4, dp: 4, stage: .parameters).shapes == [MeshShape([.dp: 4])])
    let problem = search(8, dp: 3).problems.first
    #expect(problem?.key == "mesh.dp")
    #expect(problem?.message.contains("does not divide the 8 ranks; legal here") == true)
    let other = search(8, dp: 2, sp: 3).problems.first
    #expect(other?.message.contains("the 4 ranks that mesh.dp 2 leaves") == true)
  }

  @Test func `data parallelism comes first, tokens are shared where microbatches run out`() {
    #expect(
      search(8).shapes == [
        MeshShape([.zero: 8]), MeshShape([.zero: 4, .sp: 2]),
      ])
    #expect(search(12).shapes.first == MeshShape([.zero: 6, .sp: 2]))
    #expect(search(6).shapes.map { $0[.sp] } == [1, 2, 3, 6])
    #expect(search(48).shapes == [MeshShape([.zero: 8, .sp: 6])])
  }

  @Test
  func
    `canonical sums want whole blocks and slices, no ring, and sums of every microbatch`()
  {
    func canonical(
      _ ranks: Int, heads: Int = 8, ring: Int = 1, sp: Int? = nil, tp: Int = 1,
      mlpWidth: Int = 0, stage: ZeroStage? = nil
    ) -> MeshSearch {
      var search = MeshSearch(
        rankCount: ranks, microbatchCount: 8, headCount: heads, mlpWidth: mlpWidth, ring: ring,
        sp: sp, tp: tp, stage: stage)
      search.hasCanonicalSums = true
      return search
    }
    #expect(canonical(1).shapes.first == MeshShape())
    #expect(canonical(8).shapes.first == MeshShape([.zero: 8]))
    // Without a stage that is asked for the lowest one that keeps the bits is taken.
    for sp in [2, 4, 8] {
      #expect(
        canonical(8, sp: sp).shapes.first
          == MeshShape([.zero: 8 / sp, .sp: sp], zeroStage: .gradients))
    }
    #expect(canonical(8).shapes.allSatisfy { $0[.sp] == 1 || $0.zeroStage != .optimizer })
    let parts = canonical(6, heads: 6, sp: 3).problems
    #expect(parts.map(\.key) == ["mesh.sp"])
    #expect(parts.first?.message.contains("8 blocks of tokens: take one of 1, 2, 4, 8") == true)
    let stage = canonical(4, sp: 2, stage: .optimizer).problems
    #expect(stage.map(\.key) == ["mesh.zeroStage"])
    #expect(stage.first?.message.contains("take auto, 2 or 3; legal here") == true)
    #expect(canonical(4, ring: 2).problems.map(\.key) == ["mesh.ring"])
    #expect(
      canonical(4, tp: 2).shapes.first == MeshShape([.zero: 2, .tp: 2], zeroStage: .parameters))
    #expect(
      canonical(8, sp: 2, tp: 4).shapes.first
        == MeshShape([.sp: 2, .tp: 4], zeroStage: .parameters))
    let cut = canonical(6, heads: 12, tp: 3).problems
    #expect(cut.map(\.key) == ["mesh.tp"])
    #expect(cut.first?.message.contains("take one of 1, 2, 4, 8") == true)
    // Four slices of twelve heads; nine heads a rank would have none.
    #expect(!canonical(4, heads: 12, tp: 4).shapes.isEmpty)
    let slices = canonical(8, heads: 12, tp: 4, mlpWidth: 30).problems
    #expect(slices.contains { $0.key == "mesh.tp" && $0.message.contains("take a divisor of 2") })
  }

  @Test func `every legal layout has all ranks, divides the heads and has work for each`() {
    for ranks in 1...64 {
      for shape in search(ranks).shapes {
        #expect(shape.rankCount == ranks && 6 % shape[.sp] == 0 && shape[.zero] <= 8)
      }
    }
  }

  @Test func `given degrees are kept or refused`() {
    #expect(search(8, zero: 4).shapes == [MeshShape([.zero: 4, .sp: 2])])
    #expect(search(8, sp: 2).shapes == [MeshShape([.zero: 4, .sp: 2])])
    #expect(search(8, zero: 8, sp: 2).shapes.isEmpty)
  }

  @Test func `a ring is as long as it was asked for, whatever the heads`() {
    #expect(
      search(8, ring: 2).shapes == [
        MeshShape([.zero: 4, .ring: 2]), MeshShape([.zero: 2, .ring: 2, .sp: 2]),
      ])
    #expect(search(5, ring: 5).shapes == [MeshShape([.ring: 5])])
    #expect(search(12, zero: 1, ring: 4).shapes == [MeshShape([.ring: 4, .sp: 3])])
    #expect(search(32, ring: 2).shapes.first == MeshShape([.zero: 8, .ring: 2, .sp: 2]))
  }

  private func cut(
    _ ranks: Int, tp: Int, heads: Int = 6, mlpWidth: Int = 24, ring: Int = 1, sp: Int? = nil,
    stage: ZeroStage? = nil
  ) -> MeshSearch {
    MeshSearch(
      rankCount: ranks, microbatchCount: 8, headCount: heads, mlpWidth: mlpWidth, ring: ring,
      sp: sp, tp: tp, stage: stage)
  }

  @Test func `weights are cut as often as it was asked for, at stage 3`() {
    #expect(
      cut(8, tp: 2).shapes == [MeshShape([.zero: 4, .tp: 2], zeroStage: .parameters)])
    #expect(
      cut(12, tp: 2, ring: 2, sp: 3).shapes == [
        MeshShape([.ring: 2, .sp: 3, .tp: 2], zeroStage: .parameters)
      ])
    #expect(cut(4, tp: 1).shapes.allSatisfy { $0[.tp] == 1 })
  }

  @Test func `cut weights that are refused say which rule failed and what is legal`() {
    let cases: [(MeshSearch, String, [String])] = [
      (
        cut(8, tp: 4), "mesh.tp",
        [
          "is 4, which does not divide the 6 attention heads; legal here: mesh.zero 4, mesh.sp 1, "
            + "mesh.tp 2, mesh.zeroStage 3"
        ]
      ),
      (cut(8, tp: 3), "mesh.tp", ["is 3, which does not divide the 8 ranks", "mesh.tp 2"]),
      (
        cut(6, tp: 3, mlpWidth: 20), "mesh.tp",
        ["is 3, which does not divide the 20 hidden units of the MLP", "mesh.tp 2"]
      ),
      (
        cut(8, tp: 2, stage: .optimizer), "mesh.tp",
        ["is 2, which goes with mesh.zeroStage 3 only", "mesh.tp 2, mesh.zeroStage 3"]
      ),
      (
        cut(8, tp: 2, sp: 2), "mesh.sp",
        ["is 2, which does not divide the 3 attention heads that mesh.tp 2 leaves a rank"]
      ),
      (
        cut(4, tp: 4, heads: 8, ring: 2), "mesh.tp",
        [
          "does not divide the 2 ranks that mesh.ring 2 leaves",
          "mesh.ring 2, mesh.sp 1, mesh.tp 2",
        ]
      ),
    ]
    for (search, key, parts) in cases {
      #expect(search.problems.map(\.key) == [key], "\(search.problems)")
      for part in parts {
        #expect(search.problems.first?.message.contains(part) == true, "\(search.problems)")
      }
    }
  }

  @Test func `what is refused says which rule failed and what is legal`() {
    let cases: [(MeshSearch, String, [String])] = [
      (search(8, sp: 4), "mesh.sp", ["does not divide the 6 attention heads", "mesh.zero 8"]),
      (search(8, sp: 3), "mesh.sp", ["does not divide the 8 ranks", "mesh.zero 8"]),
      (search(8, zero: 2), "mesh.zero", ["4 ranks would share", "the 6 attention heads"]),
      (search(8, zero: 3), "mesh.zero", ["does not divide the 8 ranks"]),
      (search(8, zero: 8, sp: 2), "mesh.zero", ["with mesh.sp 2 leave 4"]),
      (search(11), "batch.microbatches", ["is 8, but 11", "is 10 (mesh.zero 5, mesh.sp 2)"]),
      (
        search(8, ring: 3), "mesh.ring",
        [
          "is 3, which does not divide the 8 ranks",
          "legal here: mesh.zero 4, mesh.ring 2, mesh.sp 1",
        ]
      ),
      (search(2, ring: 4), "mesh.ring", ["legal here: mesh.zero 1, mesh.ring 2, mesh.sp 1"]),
      (
        search(12, ring: 2, sp: 4), "mesh.sp",
        [
          "does not divide the 6 ranks that mesh.ring 2 leaves",
          "mesh.zero 6, mesh.ring 2, mesh.sp 1",
        ]
      ),
      (
        search(16, ring: 2, sp: 4), "mesh.sp",
        ["does not divide the 6 attention heads", "mesh.zero 8, mesh.ring 2, mesh.sp 1"]
      ),
      (search(8, zero: 3, ring: 2), "mesh.zero", ["the 4 ranks that mesh.ring 2 leaves"]),
      (
        search(8, zero: 8, ring: 2, sp: 2), "mesh.zero", ["with mesh.ring 2, mesh.sp 2 leave 2"]
      ),
    ]
    for (search, key, parts) in cases {
      #expect(search.problems.map(\.key) == [key])
      for part in parts {
        #expect(search.problems.first?.message.contains(part) == true, "\(search.problems)")
      }
    }
    #expect(search(8).problems.isEmpty)
  }

  @Test func `every degree that is wrong by itself is told, with one legal layout`() {
    var wrong = MeshSearch(
      rankCount: 8, microbatchCount: 8, headCount: 6, dp: 3, zero: 5, ring: 7, sp: 4, tp: 3,
      stages: 16, blockCount: 6)
    let problems = wrong.problems
    #expect(
      problems.map(\.key) == [
        "mesh.dp", "mesh.zero", "mesh.ring", "mesh.tp", "mesh.stages", "mesh.sp",
      ])
    #expect(problems.dropLast().allSatisfy { $0.message.hasSuffix("does not divide the 8 ranks") })
    #expect(problems.last?.message.contains("the 6 attention heads; legal here: ") == true)
    // One that is wrong is told as before, with what the others leave.
    (wrong.dp, wrong.zero, wrong.ring, wrong.sp, wrong.tp) = (1, nil, 1, nil, 1)
    #expect(wrong.problems.map(\.key) == ["mesh.stages"])
  }
}
