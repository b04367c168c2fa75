import MeshLayout
import Testing

struct RolePlacesTests {
  @Test func `each microbatch has one rank of either role, and each rank has work`() throws {
    for ranks in 2...6 {
      for generatorCount in 1..<ranks {
        for microbatchCount in ranks...12 {
          var shape = MeshShape([.zero: ranks])
          shape.generatorRanks = GeneratorRanks(generatorCount)
          let places = try #require(try shape.roles(of: microbatchCount))
          var owners: [RankRole: [Int]] = [:]
          for rank in 0..<ranks {
            let role = places.role(of: rank)
            #expect(role == (rank < ranks - generatorCount ? .score : .generator))
            #expect(!places.microbatches(of: rank).isEmpty)
            for microbatch in places.microbatches(of: rank) {
              #expect(places.rank(role, of: microbatch) == rank)
              owners[role, default: []].append(microbatch)
            }
          }
          for role in RankRole.allCases {
            #expect(owners[role]?.sorted() == Array(0..<microbatchCount))
          }
        }
      }
    }
  }

  @Test func `roles of one mesh differ in what they shard, and the words say it`() throws {
    var shape = MeshShape([.zero: 4], zeroStage: .gradients)
    #expect(try shape.roles(of: 8) == nil)
    shape.generatorRanks = GeneratorRanks(2, zeroStage: .parameters)
    #expect(shape.description.hasSuffix(", split: 2 score + 2 generator ranks at stage 3"))
    let places = try #require(try shape.roles(of: 8))
    #expect(places.shapes[.score] == MeshShape([.zero: 2], zeroStage: .gradients))
    #expect(places.shapes[.generator] == MeshShape([.zero: 2], zeroStage: .parameters))
    shape.generatorRanks = GeneratorRanks(1, zeroStage: .parameters)
    #expect(throws: MeshLayoutError.self) { try shape.roles(of: 8) }
  }
}
