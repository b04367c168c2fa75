import Foundation
import MeshLayout
import Testing

struct MeshShapeTests {
  private let shape = MeshShape([.stages: 2, .dp: 3, .zero: 2, .sp: 2, .tp: 2])

  @Test func `ranks and coordinates are inverse to each other`() {
    #expect(shape.rankCount == 48)
    for rank in 0..<48 { #expect(shape.rank(at: shape.coordinates(of: rank)) == rank) }
    #expect(shape.coordinates(of: 1)[.tp] == 1)
    #expect(shape.coordinates(of: 47)[.stages] == 1)
  }

  @Test func `groups along an axis part the ranks and differ in that axis only`() {
    for axis in Axis.allCases {
      var seen: [Int] = []
      for rank in 0..<48 {
        let group = shape.group(along: axis, of: rank)
        #expect(group.count == shape[axis] && group.contains(rank))
        #expect(group.map { shape.coordinates(of: $0)[axis] } == Array(0..<shape[axis]))
        if group[0] == rank { seen += group }
      }
      #expect(seen.sorted() == Array(0..<48))
    }
    #expect(shape.group(along: .dp, .zero, of: 0).count == 6)
  }

  /// Check 12 of §10 of the specification of Vchitect-2.0, for every world of up to 48 ranks and every degree of `sp`
  /// and `dp`, the other ranks being shards; in small worlds also cutting weights.
  @Test func `groups part every world, and those of tokens meet those of replicas in one rank`() {
    for size in 1...48 {
      func divisors(of count: Int) -> [Int] { (1...count).filter { count % $0 == 0 } }
      for sp in divisors(of: size) {
        for dp in divisors(of: size / sp) {
          for rest in size <= 16 ? [Axis.zero, .tp] : [.zero] {
            var shape = MeshShape([.sp: sp, .dp: dp])
            shape[rest] = size / sp / dp
            let demands = MeshDemands(
              rankCount: size, headCount: sp * shape[.tp], blockCount: 1,
              microbatchCount: dp * shape[.zero])
            #expect(shape.problems(with: demands).isEmpty)
            let groups = [Axis.sp, .dp, rest].map { axis in
              groupsByRank(shape, along: axis, in: size)
            }
            let meet = (0..<size).allSatisfy { rank in
              Set(groups[0][rank]).intersection(groups[1][rank]) == [rank]
            }
            #expect(meet, "\(shape)")
          }
        }
      }
    }
  }

  /// By rank, its group along an axis; every rank is in one group, as long as the axis.
  private func groupsByRank(_ shape: MeshShape, along axis: Axis, in size: Int) -> [[Int]] {
    var groups = [[Int]](repeating: [], count: size)
    for rank in 0..<size where groups[rank].isEmpty {
      let group = shape.group(along: axis, of: rank)
      let isNew = group.allSatisfy { groups[$0].isEmpty }
      #expect(
        isNew && group.first == rank && group.count == shape[axis], "\(axis) of \(shape)")
      for member in group { groups[member] = group }
    }
    return groups
  }

  @Test func `a legal shape has no problems, an illegal one names them all with numbers`() {
    let demands = MeshDemands(rankCount: 8, headCount: 6, blockCount: 2, microbatchCount: 4)
    #expect(MeshShape([.dp: 4, .sp: 2]).problems(with: demands).isEmpty)
    let broken = MeshShape([.dp: 5, .sp: 4, .stages: 3]).problems(with: demands)
    #expect(
      broken.map(\.code) == [
        .rankCountMismatch, .doesNotDivide, .moreStagesThanBlocks, .moreRanksThanMicrobatches,
      ])
    #expect(broken[1].message == "mesh.sp = 4 does not divide the 6 heads")
    #expect(MeshShape([.tp: 0]).problems(with: demands).map(\.code) == [.axisNotPositive])
  }

  @Test func `a shape survives JSON and says itself in words`() throws {
    let decoded = try JSONDecoder().decode(
      MeshShape.self, from: JSONEncoder().encode(shape))
    #expect(decoded == shape)
    #expect(shape.description == "stages 2 × dp 3 × zero 2 × sp 2 × tp 2")
    #expect(MeshShape.dataParallel(1).description == "one rank")
    #expect(MeshShape([.dp: 1]) == MeshShape())
  }
}
