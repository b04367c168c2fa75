// How long a step takes: what the twins count of each rank, over what a rank and its links do in a second.
//
//     computing  (P / p + W w + A / a + E e + S / m + T t) · stretch   on the busiest rank: products and the bytes of
//                their weights, attention, elementwise bytes, those of sums of gradients, and operations of the tape
//     optimizer  bytes / memory bandwidth
//     updates    gradients and parameters: bytes · (link + coding and sums) + messages · latency, and own bytes that are
//                copied between shards and blocks / memory bandwidth
//     tokens     activations: bytes · (link + packing) + messages · latency + waits · wait
//
// A wait is what ranks lose at an exchange that stands between two products, however small it is: they do not get
// there at the same time, and the later one decides (`ExchangeProbe`). Latency, which is measured with nothing beside it, has
// none of that. A stage waits for a state, its velocity and the gradient of what it handed on; what it waits because others
// still compute is `pipelineStretch`.
//
// One after the other, as the program runs them, but for what may travel between nodes while something is computed
// (`exchange.overlap`): that is hidden, up to `hiddenShare` of the computing. Copies inside a node, coding and sums take the
// rank's own core. A product takes time for its weights however few rows it has, and an operation of the tape however few
// elements: where ranks share tokens there are as many of both on each. Stages of a pipeline and roles on ranks of their
// own wait for each other (`pipelineStretch`, `RoleTimeline`).
//
// Source of the links' formulas: specs of distributed systems, §2; of the optimizer's bytes, §11.

package import MeshLayout

/// What a rank does in a second, at sizes like the run's, while all ranks of its node work.
package struct StepRates: Codable, Equatable, Sendable {
  /// FLOP/s of products, beside what their weights take.
  package var productRate: Double
  /// Seconds for a byte of a product's weights.
  package var weightSecondsPerByte = 0.0
  /// Seconds for an operation of the tape beside its kernels.
  package var tapeOperationSeconds = 0.0
  /// FLOP/s of attention.
  package var attentionRate: Double
  /// Seconds for a byte that elementwise operations read or write; 0 where they are in the product rate.
  package var elementwiseSecondsPerByte = 0.0
  /// Bytes that an optimizer, or a sum of gradients, reads and writes.
  package var memoryBandwidth: Double
  package var inside: Link
  /// As one rank sees it while all ranks of its node send.
  package var between: Link
  /// Seconds that a rank loses at each exchange of activations beside its messages.
  package var exchangeWait = 0.0
  /// Seconds for a sent byte of activations beside the link: packed into a message and out of it.
  package var packingSecondsPerByte = 0.0
  /// Ranks of a node.
  package var ranksPerNode: Int
  /// Seconds for a sent byte of gradients and parameters beside the link: coded, checked, decoded, added up.
  package var codingSecondsPerByte: Double

  package init(
    productRate: Double, attentionRate: Double, memoryBandwidth: Double, inside: Link,
    between: Link, ranksPerNode: Int, codingSecondsPerByte: Double
  ) {
    self.productRate = productRate
    self.attentionRate = attentionRate
    self.memoryBandwidth = memoryBandwidth
    self.inside = inside
    self.between = between
    self.ranksPerNode = ranksPerNode
    self.codingSecondsPerByte = codingSecondsPerByte
  }

  /// From the numbers of a machine: whatever a step does beside products is in its step efficiency.
  package init(_ machine: MachineModel, _ precision: SimulatedPrecision, rankCount: Int) {
    let rate = machine.productRate(precision)
    let ranksPerNode = min(rankCount, machine.largestRankCountOfNode)
    self.init(
      productRate: rate, attentionRate: rate, memoryBandwidth: machine.memoryBandwidth,
      inside: machine.linkInside,
      between: NetworkModel(machine, ranksOnNode: ranksPerNode).between,
      ranksPerNode: ranksPerNode, codingSecondsPerByte: 1 / machine.codingBandwidth)
    exchangeWait = machine.exchangeWait
    packingSecondsPerByte = 1 / machine.packingBandwidth
  }

  /// Seconds of computing of one rank.
  func computeSeconds(_ work: StepWork) -> Double {
    let products = work.operationCount - work.attentionOperationCount
    return products / productRate + work.weightByteCount * weightSecondsPerByte
      + work.attentionOperationCount / attentionRate
      + work.movedByteCount * elementwiseSecondsPerByte
      + work.summedByteCount / memoryBandwidth + work.tapeOperationCount * tapeOperationSeconds
  }

  /// The part of these that links between nodes work.
  package func betweenSeconds(
    byteCount: Double, messageCount: Double, groupSize: Int
  ) -> Double {
    guard groupSize > 1 else { return 0 }
    let share = Double(groupSize - min(groupSize, ranksPerNode)) / Double(groupSize - 1)
    return share * (byteCount * between.secondsPerByte + messageCount * between.latency)
  }

  /// Seconds in which a rank sends to the members of a group of neighbors, as much to each.
  package func sendSeconds(
    byteCount: Double, messageCount: Double, groupSize: Int, secondsPerByte more: Double = 0
  ) -> Double {
    guard groupSize > 1, messageCount > 0 else { return 0 }
    let peersInside = min(groupSize, ranksPerNode) - 1
    let share = Double(peersInside) / Double(groupSize - 1)
    func seconds(_ link: Link) -> Double {
      byteCount * (link.secondsPerByte + more) + messageCount * link.latency
    }
    return share * seconds(inside) + (1 - share) * seconds(between)
  }
}

/// Seconds of a step on average; what they are made of adds up to them.
package struct StepTime: Codable, Equatable, Sendable {
  /// Computing of the busiest rank, with what stages and roles wait for each other.
  package let computing: Double
  package let optimizer: Double
  /// Gradients and parameters.
  package let updates: Double
  /// Activations.
  package let tokens: Double

  package var seconds: Double { computing + optimizer + updates + tokens }

  /// Which part of the computing exchanges can hide behind: messages move on between operations only. Measured at
  /// stage 3 over TCP: Benchmarks/results/overlap_zen4-2core_2026-11-29.md.
  package static let hiddenShare = 0.36

  /// - Parameter overlaps: whether messages travel while something is computed.
  init(_ phase: PhaseCosts, shape: MeshShape, rates: StepRates, overlaps: Bool) {
    let seconds = rates.computeSeconds
    func most(_ value: (StepWork) -> Double) -> Double { phase.work.map(value).max() ?? 0 }
    let busiest = phase.work.max { seconds($0) < seconds($1) } ?? StepWork()
    if let roles = phase.roles, busiest.operationCount > 0 {
      // The timeline is in operations, which take about as long in either role.
      computing = roles.step * seconds(busiest) / busiest.operationCount
    } else {
      computing = seconds(busiest) * phase.pipelineStretch
    }
    optimizer = most { $0.optimizerByteCount / rates.memoryBandwidth }
    let sent = most {
      rates.sendSeconds(
        byteCount: $0.updateByteCount, messageCount: $0.updateMessageCount,
        groupSize: shape.rankCount, secondsPerByte: rates.codingSecondsPerByte)
    }
    var hidden = overlaps ? Self.hiddenShare * computing : 0
    /// What of `seconds` is not hidden.
    func exposed(_ seconds: Double, besides between: Double) -> Double {
      let share = min(between, hidden)
      hidden -= share
      return seconds - share
    }
    let copied = most { $0.copiedByteCount / rates.memoryBandwidth }
    updates =
      copied
      + exposed(
        sent,
        besides: most {
          rates.betweenSeconds(
            byteCount: $0.besideUpdateByteCount, messageCount: $0.besideUpdateMessageCount,
            groupSize: shape.rankCount)
        })
    // Those who share tokens are neighbors; stages, and roles, are as far apart as ranks can be.
    let group = shape.sequenceDegree > 1 ? shape.sequenceDegree : shape.rankCount
    tokens = exposed(
      most {
        rates.sendSeconds(
          byteCount: $0.sentByteCount, messageCount: $0.messageCount, groupSize: group,
          secondsPerByte: rates.packingSecondsPerByte)
          + $0.waitCount * rates.exchangeWait
      },
      besides: most {
        rates.betweenSeconds(
          byteCount: $0.besideByteCount, messageCount: $0.besideMessageCount, groupSize: group)
      })
  }
}

extension RunCosts {
  /// By phase; nil for one without steps.
  package func times(shape: MeshShape, rates: StepRates) -> [StepTime?] {
    phases.map {
      $0.stepCount == 0
        ? nil : StepTime($0, shape: shape, rates: rates, overlaps: overlapsExchange)
    }
  }

  /// Seconds of all training steps.
  package func seconds(shape: MeshShape, rates: StepRates) -> Double {
    zip(phases, times(shape: shape, rates: rates)).reduce(0) { sum, part in
      sum + Double(part.0.stepCount) * (part.1?.seconds ?? 0)
    }
  }
}
