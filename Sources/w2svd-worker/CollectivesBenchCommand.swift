// `w2svd-worker bench collectives`: what messages between the ranks of this job cost.

import ArgumentParser
import Exchange
import Foundation
import Planning
import ProcessMesh
import Training

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
      several runs; between nodes all ranks of a node send at once. The wait is what neighbors lose beside that at an \
      exchange between two products; what exchanges do with their bytes beside the links is told by the byte. `w2svd plan \
      --links FILE`, with or without --simulate, reads what --json prints.
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
      let links = try LinkProbe.measure(on: transport, repeatCount: arguments.repeats)
      let rates = try StepProbe.exchanges(ExchangeConfiguration(), over: links, on: transport)
      if transport.isRoot { try arguments.tell(links, rates) }
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

  private func tell(_ links: LinkProbe, _ rates: StepRates) throws {
    var machine: [String: Double] = [:]
    if links.rankCount > 1 {
      machine["exchangeWait"] = rates.exchangeWait
      for (key, seconds) in [
        ("packingBandwidth", rates.packingSecondsPerByte),
        ("codingBandwidth", rates.codingSecondsPerByte),
      ] where seconds > 0 { machine[key] = 1 / seconds }
    }
    let ranksPerNode = Double(links.rankCount) / Double(max(1, links.nodeCount))
    if let inside = links.inside {
      machine["latencyInside"] = inside.latency
      machine["bandwidthInside"] = inside.bandwidth
    }
    if let between = links.between {
      machine["latencyBetween"] = between.latency
      machine["bandwidthBetween"] = between.bandwidth * ranksPerNode
    }
    if json {
      let encoder = JSONEncoder()
      encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
      let result = Result(ranks: links.rankCount, nodes: links.nodeCount, machine: machine)
      print(String(decoding: try encoder.encode(result), as: UTF8.self))
      return
    }
    print("\(links.rankCount) ranks on \(links.nodeCount) nodes")
    if links.rankCount > 1 {
      print(String(format: "%.1f µs lost at an exchange", rates.exchangeWait * 1e6))
      for (name, seconds) in [
        ("activations packed", rates.packingSecondsPerByte),
        ("gradients and parameters coded and added", rates.codingSecondsPerByte),
      ] { print("\(name): \(String(format: "%.2f ns a byte", seconds * 1e9))") }
    }
    for (name, rates) in [("inside a node", links.inside), ("between nodes", links.between)] {
      guard let rates else { continue }
      print(
        "\(name): \(String(format: "%.1f µs a message, %.2f GB/s a rank", rates.latency * 1e6, rates.bandwidth / 1e9))"
      )
    }
  }
}
