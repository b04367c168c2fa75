// The ranks of this rank's role where roles are split, and what joins the roles.

import Basics
package import Exchange
package import MeshLayout
import ProcessMesh

package final class RoleRanks {
  package let places: RolePlaces
  /// Of this rank.
  package let role: RankRole
  /// The ranks that have this role.
  package let ranks: RankSet
  package let latents: LatentExchange

  /// - Collective: over the context's transport.
  init(_ places: RolePlaces, context: RunContext) throws {
    let transport = context.transport
    self.places = places
    role = places.role(of: transport.rank)
    guard let shape = places.shapes[role] else { trap("\(role) has no shape") }
    ranks = try RankSet(
      try transport.split(color: role == .score ? 0 : 1, key: transport.rank), shape: shape,
      microbatchCount: context.configuration.batch.microbatches,
      configuration: context.configuration.exchange, arena: context.arena)
    latents = LatentExchange(transport: transport, places: places)
    try ranks.sharePasses(context.configuration.mesh) { [unowned context] in
      context.exchangeInPass($0)
    }
    context.keepApart(in: ranks)
  }

  /// What this rank has sent for its role since the last call.
  func takeStatistics() -> ExchangeStatistics {
    var sent = ranks.takeStatistics()
    sent += latents.statistics.take()
    return sent
  }
}
