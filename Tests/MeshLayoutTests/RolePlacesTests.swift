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
              #expect(places.ranks(role, of: microbatch) == [rank])
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

  @Test func `ranks that compute a microbatch together take turns as sources of the other role`()
    throws
  {
    let generatorShapes = [
      MeshShape([.zero: 2]), MeshShape([.zero: 2, .sp: 2]), MeshShape([.dp: 2, .ring: 3]),
      MeshShape([.zero: 2, .sp: 2, .tp: 2]), MeshShape([.stages: 2, .dp: 2, .tp: 2]),
    ]
    let scoreShapes = generatorShapes + [MeshShape([.zero: 4]), MeshShape([.sp: 4, .tp: 2])]
    for (score, generator) in scoreShapes.flatMap({ score in generatorShapes.map { (score, $0) } })
    {
      let unit = score.rankCount / score[.zero]
      guard (score.rankCount + generator.rankCount) % unit == 0 else { continue }
      var all = score
      all[.zero] = (score.rankCount + generator.rankCount) / unit
      all.generatorRanks = GeneratorRanks(generator)
      let places = try #require(try all.roles(of: 8))
      #expect(places.shapes == [.score: score, .generator: generator])
      var sent = Array(repeating: 0, count: all.rankCount)
      for rank in 0..<all.rankCount {
        let role = places.role(of: rank)
        for microbatch in places.microbatches(of: rank) {
          #expect(places.ranks(role, of: microbatch).contains(rank))
          let source = places.source(of: microbatch, for: rank)
          #expect(places.role(of: source) != role)
          #expect(places.microbatches(of: source).contains(microbatch))
          sent[source] += 1
        }
      }
      for rank in 0..<all.rankCount {
        let share = places.microbatches(of: rank).count
        #expect(sent[rank] == share * places.receiverCount(of: rank), "\(all), rank \(rank)")
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
