// `w2svd-worker bench collectives`: what messages between the ranks of this job cost.

import ArgumentParser
import Foundation
import ProcessMesh

struct BenchCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "bench", abstract: "Measures what needs more than one rank.",
    subcommands: [CollectivesBenchCommand.self])
}

struct CollectivesBenchCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "collectives",
    abstract: "Times all-to-alls inside nodes and between nodes, under mpirun.",
    discussion: """
      Latency is the time of a message of 64 bytes, bandwidth the slope to 1 MiB, both of the fastest of \
      several runs; between nodes all ranks of a node send at once. `w2svd plan --simulate --links FILE` \
      reads what --json prints.
      """)

  @Option(help: ArgumentHelp("Timed runs of each size. Default: 10.", valueName: "n"))
  var repeats = 10

  @Flag(help: "Prints the result as one JSON object on the last line. Default: off.")
  var json = false

  func validate() throws {
    if !(1...10_000).contains(repeats) {
      throw ValidationError("--repeats is \(repeats); give 1 to 10000.")
    }
  }

  func run() throws {
    let arguments = self
    MPIProgram.run { _, transport in
      let probe = try LinkProbe.measure(on: transport, repeatCount: arguments.repeats)
      if transport.isRoot { try arguments.tell(probe) }
      return 0
    }
  }

  /// The numbers under the names that a machine of the simulation has for them.
  private struct Result: Encodable {
    let benchmark = "collectives"
    let ranks: Int
    let nodes: Int
    let machine: [String: Double]
  }

  private func tell(_ probe: LinkProbe) throws {
    var machine: [String: Double] = [:]
    let ranksPerNode = Double(probe.rankCount) / Double(max(1, probe.nodeCount))
    if let inside = probe.inside {
      machine["latencyInside"] = inside.latency
      machine["bandwidthInside"] = inside.bandwidth
    }
    if let between = probe.between {
      machine["latencyBetween"] = between.latency
      machine["bandwidthBetween"] = between.bandwidth * ranksPerNode
    }
    if json {
      let encoder = JSONEncoder()
      encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
      let result = Result(ranks: probe.rankCount, nodes: probe.nodeCount, machine: machine)
      print(String(decoding: try encoder.encode(result), as: UTF8.self))
      return
    }
    print("\(probe.rankCount) ranks on \(probe.nodeCount) nodes")
    for (name, rates) in [("inside a node", probe.inside), ("between nodes", probe.between)] {
      guard let rates else { continue }
      print(
        "\(name): \(String(format: "%.1f µs a message, %.2f GB/s a rank", rates.latency * 1e6, rates.bandwidth / 1e9))"
      )
    }
  }
}
