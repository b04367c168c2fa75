// The ranks that share the state of networks among them, by which stage of ZeRO, and the replicas of it.

package import Autodiff
import Basics
import DenseKernels
package import Exchange
package import MeshLayout
package import ProcessMesh
package import Tensors

/// What a network needs to know of the ranks that hold it together.
package struct ShardGroup {
  /// The ranks among which a replica of the state is sharded.
  package let transport: any Transport
  package let exchange: BucketExchange
  /// Those that own the same of every replica; nil where there is one replica.
  package let replicas: BucketExchange?
  package let arena: Arena
  /// One rank shares nothing: it has stage 1.
  package let stage: ZeroStage
  /// How many neighboring ranks cut the weights of blocks among them; more than 1 at stage 3 only.
  package let tensorDegree: Int
  /// The ranks of a replica in this one's pipeline stage; nil where there is one stage. Stages are neighbors.
  package let pipelineStage: BucketExchange?
  /// What loads blocks, and what sums their gradients, beside other work, over the ranks that run the same blocks; nil
  /// where nothing goes on beside it.
  let loads: BucketExchange?
  let sums: BucketExchange?
  /// Runs what may fail in the middle of a pass, and keeps the failure for the next agreement.
  package let attempt: (() throws -> Void) -> Void

  package init(
    transport: any Transport, exchange: BucketExchange, replicas: BucketExchange? = nil,
    arena: Arena, stage: ZeroStage = .optimizer, tensorDegree: Int = 1,
    pipelineStage: BucketExchange? = nil, loads: BucketExchange? = nil,
    sums: BucketExchange? = nil, attempt: @escaping (() throws -> Void) -> Void
  ) {
    self.transport = transport
    self.loads = loads
    self.sums = sums
    self.pipelineStage = pipelineStage
    self.exchange = exchange
    self.replicas = replicas
    self.arena = arena
    self.stage = transport.size == 1 ? .optimizer : stage
    self.tensorDegree = tensorDegree
    require(
      tensorDegree == 1 || stage == .parameters,
      "\(tensorDegree) ranks cut weights that each holds whole")
    require(
      pipelineStage == nil || stage == .parameters,
      "stages of a pipeline hold all weights")
    self.attempt = attempt
  }

  /// Over the ranks that run the same blocks.
  var unitExchange: BucketExchange { pipelineStage ?? exchange }

  /// Who of those owns what of a unit that they run.
  func partition(of unit: Int, _ sharding: UnitSharding) -> ShardPartition {
    let partition = sharding.partitions[unit]
    return pipelineStage == nil ? partition : partition.amongOwners
  }

  /// A network's parameters, zeroed: whole, or this rank's shard at stage 3.
  package func parameters(
    _ specifications: [ParameterSpecification], role: MemoryRole
  ) -> ParameterSet<Float> {
    guard stage(of: FlatLayout(specifications)) == .parameters else {
      return ParameterSet(specifications, in: arena, role: role)
    }
    return ParameterSet(
      specifications, in: arena, role: role,
      source: ParameterShard(FlatLayout(specifications), role: role, group: self))
  }

  /// A network of one unit is small, and is never brought in by blocks, unless it is one and comes as a part.
  func stage(of layout: FlatLayout) -> ZeroStage {
    let comesAsPart = tensorDegree > 1 && layout.units.contains { !$0.block.isEmpty }
    return layout.units.count > 1 || comesAsPart ? stage : min(stage, .gradients)
  }

  /// Who owns what: at stage 1 contiguous ranges of the whole vector, later a part of each unit; in a pipeline
  /// those share a unit whose stage runs it.
  func sharding(of layout: FlatLayout) -> UnitSharding {
    UnitSharding(
      units: stage == .optimizer ? [0..<layout.count] : layout.units.map(\.range),
      shardCount: transport.size,
      owners: pipelineStage.map {
        layout.owners(stageSize: $0.transport.size, among: transport.size)
      })
  }
}

extension FlatLayout {
  /// By unit, the ranks of the pipeline stage that runs it.
  fileprivate func owners(stageSize: Int, among rankCount: Int) -> [Range<Int>] {
    StageCut.stages(
      of: units.map { (!$0.block.isEmpty, $0.isOutput) }, stageCount: rankCount / stageSize
    ).map { $0 * stageSize..<($0 + 1) * stageSize }
  }

  /// The tensors of a unit with the cuts that tensor parallelism makes.
  func cutTensors(of unit: Unit) -> [CutTensor] {
    entries[unit.entries].map { entry in
      let range =
        entry.range.lowerBound - unit.range.lowerBound..<entry.range.upperBound
        - unit.range.lowerBound
      return switch entry.cut {
      case .whole: CutTensor(range: range)
      case .rows: CutTensor(range: range, stretches: [range.count])
      case .columns(let stretches):
        CutTensor(range: range, rowCount: entry.shape[0], stretches: stretches)
      }
    }
  }

  /// Who owns what of each unit, and who computes with what.
  /// In a pipeline these are the ranks of the unit's stage.
  func slicedUnits(_ sharding: UnitSharding, degree: Int) -> [SlicedUnit] {
    zip(units, sharding.partitions).map {
      SlicedUnit(
        cutTensors(of: $0), partition: $1.amongOwners, degree: degree,
        alignment: FlatLayout.alignment)
    }
  }

  /// What a rank computes with of a unit, tensor by tensor.
  func part(of unit: Int, _ sliced: SlicedUnit, rank: Int) -> UnitPart {
    let slice = sliced.slice(of: rank)
    return UnitPart(
      count: slice.count,
      entries: zip(entries[units[unit].entries], slice.tensors).map { entry, range in
        var shape = entry.shape
        switch entry.cut {
        case .whole: break
        case .rows: shape[0] /= sliced.degree
        case .columns: shape[1] /= sliced.degree
        }
        return (range, shape)
      })
  }
}

/// This rank's elements of a network, of which no rank holds all.
/// - Source: ZeRO (1910.02054) stage 3; PyTorch FSDP (2304.11277) §3.
final class ParameterShard: UnitSource {
  let elements: Buffer<Float>
  private let sharding: UnitSharding
  private let stretches: [UnitSharding.Stretch]
  private let group: ShardGroup
  private let layout: FlatLayout
  /// By unit; one part where the weights are not cut.
  let slicedUnits: [SlicedUnit]

  init(_ layout: FlatLayout, role: MemoryRole, group: ShardGroup) {
    self.group = group
    self.layout = layout
    sharding = group.sharding(of: layout)
    stretches = sharding.stretches(of: group.transport.rank)
    slicedUnits = layout.slicedUnits(sharding, degree: group.tensorDegree)
    elements = group.arena.allocate(
      Float.self, count: sharding.count(of: group.transport.rank),
      booking: Booking(role, .parameters), zeroed: true)
  }

  /// - Collective: over the group.
  func load(_ unit: Int, into target: Buffer<Float>) {
    group.attempt {
      try group.exchange.allGather(
        elements[stretches[unit].local], partition: sharding.partitions[unit], into: target,
        kind: .parameters)
    }
  }

  func isInStage(_ unit: Int) -> Bool {
    sharding.partitions[unit].owners.contains(group.transport.rank)
  }

  /// - Collective: over the ranks of the pipeline stage.
  func loadInStage(_ unit: Int, into target: Buffer<Float>) {
    guard let stage = group.pipelineStage else { return load(unit, into: target) }
    group.attempt {
      try stage.allGather(
        elements[stretches[unit].local], partition: sharding.partitions[unit].amongOwners,
        into: target, kind: .parameters)
    }
  }

  func part(of unit: Int) -> UnitPart {
    layout.part(of: unit, slicedUnits[unit], rank: group.transport.rank)
  }

  /// - Collective: over the group, or the ranks of the pipeline stage.
  func loadPart(of unit: Int, into target: Buffer<Float>) {
    group.attempt {
      try (group.pipelineStage ?? group.exchange).gatherPart(
        of: slicedUnits[unit], elements[stretches[unit].local], into: target)
    }
  }

  /// Units that all ranks load where there are stages are those of exports, one by one.
  func loadsAhead(_ extent: UnitExtent) -> Bool {
    group.loads != nil && (extent.isOfStage || group.pipelineStage == nil)
  }

  /// - Collective: over the ranks that run the unit.
  func startLoading(
    _ unit: Int, _ extent: UnitExtent, into target: Buffer<Float>
  ) -> () -> Void {
    var run: BucketRun?
    group.attempt {
      let own = elements[stretches[unit].local]
      run =
        extent.isPart
        ? try group.loads?.startGatherPart(of: slicedUnits[unit], own, into: target)
        : try group.loads?.startAllGather(
          own, partition: group.partition(of: unit, sharding), into: target)
    }
    return { [attempt = group.attempt] in attempt { try run?.finish() } }
  }

  func keep(_ unit: Int, _ source: Buffer<Float>) {
    let origin = sharding.units[unit].lowerBound
    let own = stretches[unit].flat
    elements[stretches[unit].local]
      .copy(from: source[own.lowerBound - origin..<own.upperBound - origin])
  }
}
