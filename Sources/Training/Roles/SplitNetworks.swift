// The networks on disjoint ranks while roles are split: how they come there from ranks that have a part of
// everything, and how those get them back. Elements travel unit by unit, so that no rank holds more than one
// unit of a network that is not its own.

import Autodiff
import Basics
import DenseKernels
import Exchange
import MeshLayout
import MessagePassing
package import Models
import ProcessMesh
import Tensors

/// What a rank holds of the networks.
package struct SplitNetworks {
  package let roles: RoleRanks
  /// W, to which the adapter and the head are added, on score ranks; nil elsewhere.
  package let networks: Networks?
  /// On generator ranks; nil elsewhere.
  package let generator: ConditionedTransformer<Float>?
  private let configuration: any TransformerConfiguration
  private let specifications: [ParameterSpecification]

  /// Takes W from where all ranks hold it together; the generator starts as its copy. Whoever holds
  /// `networks` lets go of them afterwards.
  /// - Collective: over the context's transport.
  package init(_ roles: RoleRanks, from networks: Networks, context: RunContext) {
    self.roles = roles
    configuration = networks.configuration
    let base = networks.base.parameters
    specifications = base.specifications
    switch roles.role {
    case .score:
      let parameters = Self.move(base, role: .base, to: roles.ranks, context)
      generator = nil
      self.networks = Networks(configuration, base: parameters) {
        context.makeParameters($0, role: $1, in: roles.ranks)
      }
    case .generator:
      let parameters = Self.move(base, role: .generator, to: roles.ranks, context)
      generator = ConditionedTransformer(configuration, parameters: parameters)
      self.networks = nil
    }
  }

  /// - Returns: the same elements held by the ranks of a set; the same memory where that can be.
  /// - Collective: over the ranks that hold the source.
  private static func move(
    _ source: ParameterSet<Float>, role: MemoryRole, to ranks: RankSet, _ context: RunContext
  ) -> ParameterSet<Float> {
    if source.isWhole && source.role == role && context.isWhole(source.layout, in: ranks) {
      return source
    }
    let target = context.makeParameters(source.specifications, role: role, in: ranks)
    for unit in source.layout.units.indices {
      target.keep(unit, source.elements(of: unit, in: context.arena))
    }
    target.dropUnits()
    return target
  }

  /// The parts of a checkpoint that this rank does not train: W, and what other ranks hold.
  func furtherParts(_ context: RunContext) -> [CheckpointSession.Part] {
    let options = context.configuration.distill
    guard let networks else {
      let adapted = AdapterConfiguration(
        rank: options.loraRank, alpha: options.loraAlpha, of: configuration)
      let head = DiscriminatorHead<Float>.specifications(
        featureWidth: configuration.width, hiddenWidth: options.discriminatorWidth)
      return [
        .init("real", elsewhere: specifications),
        .init("fake", elsewhere: adapted.parameterSpecifications(adapting: specifications)),
      ] + (options.lambdaAdversarial > 0 ? [.init("discriminator", elsewhere: head)] : [])
    }
    return [
      .init("real", context.weights(networks.base.parameters, in: roles.ranks)),
      .init("generator", elsewhere: specifications),
    ]
  }

  // MARK: Back to all ranks

  /// W, generator and adapter where all ranks hold them together. Optimizers must be gone by then.
  /// - Collective: over the context's transport.
  package func joined(_ context: RunContext) throws -> Networks {
    let options = context.configuration.distill
    let base = try bring(
      networks?.base.parameters, of: .score, as: specifications, role: .base, context)
    let joined = Networks(configuration, base: base, makeParameters: context.parameters)
    joined.addGenerator(
      try bring(
        generator?.parameters, of: .generator, as: specifications, role: .generator, context))
    _ = try joined.addAdapter(rank: options.loraRank, alpha: options.loraAlpha) {
      try bring(
        networks?.adapter?.parameters, of: .score, as: $0, role: .fake, context)
    }
    return joined
  }

  /// - Parameter source: nil on ranks of the other role.
  /// - Returns: the elements of the source held by all ranks together.
  private func bring(
    _ source: ParameterSet<Float>?, of origin: RankRole,
    as specifications: [ParameterSpecification],
    role: MemoryRole, _ context: RunContext
  ) throws -> ParameterSet<Float> {
    let root = roles.places.firstRank(of: origin)
    let layout = FlatLayout(specifications)
    let staysHere = source?.isWhole == true && context.isWhole(layout, in: context.ranks)
    let target: ParameterSet<Float>
    if staysHere, let source {
      target = source
    } else {
      target = context.parameters(specifications, role: role)
    }
    for unit in layout.units.indices {
      let elements =
        source?.elements(of: unit, in: context.arena)
        ?? context.arena.allocate(
          Float.self, count: layout.units[unit].range.count, booking: Booking(role, .parameters))
      let isRoot = context.transport.rank == root
      let payload = Payload(capacity: isRoot ? elements.count * MemoryLayout<Float>.stride : 0) {
        bytes in
        isRoot
          ? elements.packRows(
            1, width: elements.count, stride: elements.count, into: &bytes, at: 0) : 0
      }
      let received = try context.transport.startAllGather(payload).wait()[root]
      if source == nil {
        received.withBytes { bytes in
          _ = elements.unpackRows(
            1, width: elements.count, stride: elements.count, from: bytes, at: 0)
        }
      }
      if !staysHere { target.keep(unit, elements) }
    }
    target.dropUnits()
    return target
  }
}

extension ParameterSet<Float> {
  /// The elements of a unit: those that the set holds, or a copy from all ranks that hold it.
  /// - Collective: over those ranks.
  fileprivate func elements(of unit: Int, in arena: Arena) -> Buffer<Float> {
    let range = layout.units[unit].range
    guard let source else { return values[range] }
    let elements = arena.allocate(
      Float.self, count: range.count, booking: Booking(role, .parameters))
    source.load(unit, into: elements)
    return elements
  }

  /// Takes the elements of a unit, as far as this rank holds them.
  fileprivate func keep(_ unit: Int, _ elements: Buffer<Float>) {
    if let source {
      source.keep(unit, elements)
    } else {
      values[layout.units[unit].range].copy(from: elements)
    }
  }
}

extension RunContext {
  /// Whether each rank of a set holds all of a network.
  fileprivate func isWhole(_ layout: FlatLayout, in set: RankSet) -> Bool {
    shardGroup(of: set).stage(of: layout) < .parameters
  }
}
