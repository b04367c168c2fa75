// `w2svd evaluate` and `w2svd report`: the tables and the page of a run.

import ArgumentParser
import Evaluation
import Foundation
import Training

struct EvaluateCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "evaluate",
    abstract: "Prints the tables of a finished run; rows that are missing are made first.",
    discussion: "Uses one rank; an interrupted evaluation goes on with the next row.")

  @Option(name: .customLong("run"), help: "Name under runs/, or a folder.")
  var runName: String

  @Flag(help: "Prints the tables as one JSON object on the last line. Default: off.")
  var json = false

  func run() throws {
    let tables = try StoredRun(runName).evaluate(say: complain)
    guard json else { return tables.forEach { print($0.plainText + "\n") } }
    try printJSON(["tables": tables])
  }
}

struct ReportCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "report",
    abstract: "Writes report.html anew from what lies in the run folder.")

  @Option(name: .customLong("run"), help: "Name under runs/, or a folder.")
  var runName: String

  func run() throws {
    let run = try StoredRun(runName)
    try run.writeReport()
    print(run.folder.report.path)
  }
}
