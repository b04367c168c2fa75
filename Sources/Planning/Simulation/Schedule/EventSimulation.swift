// Tasks on lanes, simulated by events.
//
// A lane is what can do one thing at a time: the cores of a rank, or its link. It takes its tasks in
// program order, each as soon as the lane is free and everything that the task waits for has ended. Since
// the order on a lane is fixed, the end of a task is an event whose time does not depend on the order in
// which events of other lanes are looked at; so no clock has to be kept, and a run costs time linear in tasks.

import Basics

/// A graph of tasks under construction, then its times.
package struct EventSimulation: Sendable {
  /// What a lane stands for.
  package enum LaneKind: Int, CaseIterable, Sendable {
    case compute, communication
  }

  /// Names a task.
  package typealias Task = Int

  private(set) var laneOfTask: [Int32] = []
  private(set) var durations: [Double] = []
  private var dependencyEnds: [Int32] = []
  private var dependencies: [Int32] = []
  private var releases: [Task: Double] = [:]
  package let stageCount: Int

  /// - Parameter stageCount: representatives; each has one lane of either kind.
  package init(stageCount: Int) { self.stageCount = stageCount }

  package var taskCount: Int { durations.count }

  /// Puts a task at the end of a lane's program. What it waits for may be added to other lanes later.
  ///
  /// - Parameters:
  ///   - seconds: how long it holds the lane.
  ///   - earlier: tasks that must have ended, already added.
  ///   - release: when something outside of the simulation that it waits for is there.
  @discardableResult
  package mutating func add(
    _ kind: LaneKind, stage: Int, seconds: Double, after earlier: some Sequence<Task>,
    release: Double = 0
  ) -> Task {
    require(stage >= 0 && stage < stageCount, "stage \(stage) of \(stageCount)")
    require(seconds >= 0, "a task of \(seconds) seconds")
    laneOfTask.append(Int32(2 * stage + kind.rawValue))
    durations.append(seconds)
    for task in earlier { dependencies.append(Int32(task)) }
    dependencyEnds.append(Int32(dependencies.count))
    if release > 0 { releases[durations.count - 1] = release }
    return durations.count - 1
  }

  /// When each task starts, and what each stage did.
  ///
  /// - Precondition: programs of lanes can be served: no task waits for one behind it.
  package func run() -> Timeline {
    let programs = lanePrograms()
    var starts = [Double](repeating: 0, count: taskCount)
    var isDone = [Bool](repeating: false, count: taskCount)
    var next = [Int](repeating: 0, count: programs.count)
    var free = [Double](repeating: 0, count: programs.count)
    var left = taskCount
    while left > 0 {
      let before = left
      for lane in programs.indices {
        while next[lane] < programs[lane].count {
          let task = Int(programs[lane][next[lane]])
          guard let ready = readyTime(of: task, starts, isDone) else { break }
          starts[task] = max(ready, free[lane])
          free[lane] = starts[task] + durations[task]
          isDone[task] = true
          next[lane] += 1
          left -= 1
        }
      }
      require(left < before, "\(left) tasks wait for each other: programs of lanes do not fit")
    }
    return Timeline(self, programs: programs, starts: starts, seconds: free.max() ?? 0)
  }

  private func lanePrograms() -> [[Int32]] {
    var programs = [[Int32]](repeating: [], count: 2 * stageCount)
    for task in 0..<taskCount { programs[Int(laneOfTask[task])].append(Int32(task)) }
    return programs
  }

  /// When the last of the tasks that it waits for ends; nil while one of them has no time yet.
  private func readyTime(of task: Task, _ starts: [Double], _ isDone: [Bool]) -> Double? {
    var ready = releases[task, default: 0]
    let first = task == 0 ? 0 : Int(dependencyEnds[task - 1])
    for index in first..<Int(dependencyEnds[task]) {
      let earlier = Int(dependencies[index])
      guard isDone[earlier] else { return nil }
      ready = max(ready, starts[earlier] + durations[earlier])
    }
    return ready
  }
}

/// What a stage did in a step; the three parts of it add up to the step.
package struct StageTimes: Codable, Equatable, Sendable {
  /// Seconds of computing.
  package var compute = 0.0
  /// Seconds in which the link worked and the cores waited.
  package var exposedCommunication = 0.0
  /// Seconds in which neither did: waiting for other stages.
  package var bubble = 0.0
  /// Seconds of the link, hidden or not.
  package var communication = 0.0
}

/// The times of a simulation.
package struct Timeline: Sendable {
  /// From the start to the last end.
  package let seconds: Double
  package let starts: [Double]
  package let ends: [Double]
  package let stages: [StageTimes]

  fileprivate init(
    _ simulation: EventSimulation, programs: [[Int32]], starts: [Double], seconds: Double
  ) {
    func spans(_ program: [Int32]) -> [(start: Double, end: Double)] {
      program.map { task in
        let start = starts[Int(task)]
        return (start, start + simulation.durations[Int(task)])
      }
    }
    self.seconds = seconds
    self.starts = starts
    ends = zip(starts, simulation.durations).map { $0 + $1 }
    stages = (0..<simulation.stageCount).map { stage in
      let computing = programs[2 * stage]
      let sending = programs[2 * stage + 1]
      var times = StageTimes()
      for task in computing { times.compute += simulation.durations[Int(task)] }
      for task in sending { times.communication += simulation.durations[Int(task)] }
      times.exposedCommunication = Self.exposed(spans(sending), outside: spans(computing))
      times.bubble = max(0, seconds - times.compute - times.exposedCommunication)
      return times
    }
  }

  /// How long the first spans last outside the second; both in order, none overlapping its own kind.
  private static func exposed(
    _ spans: [(start: Double, end: Double)], outside others: [(start: Double, end: Double)]
  ) -> Double {
    var total = 0.0
    var first = 0
    for span in spans {
      while first < others.count && others[first].end <= span.start { first += 1 }
      var position = span.start
      var index = first
      while index < others.count && others[index].start < span.end {
        total += max(0, others[index].start - position)
        position = max(position, others[index].end)
        index += 1
      }
      total += max(0, span.end - position)
    }
    return total
  }
}
