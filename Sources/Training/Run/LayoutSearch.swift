// Which layouts a plan looks at: those of `MeshSearch` with `dp`, `ring`, `tp` and `stages` at 1 where nobody asks for them, and
// further ones with one of these axes open where that may pay.
//
// Opened: `stages`, `tp` and `ring` where nothing else keeps within the memory, or where microbatches leave the busiest rank a
// tenth more than its even part and a further degree would not; `dp`, as many replicas as nodes, where a stage above 1
// would gather over nodes. The twins of a layout take up to a second for a large network, so at most
// `largestOpenCount` further ones are looked at, the most even first.

import Foundation
package import MeshLayout
import Models
import Planning

struct LayoutSearch {
  let configuration: RunConfiguration
  let sizes: WorkloadSizes
  let rankCount: Int

  static let largestOpenCount = 8

  /// What the configuration leaves open, with what the run began with where it says auto.
  func search(_ noted: NotedLayout? = nil) -> MeshSearch {
    search(of: noted.map { $0.applied(to: configuration) } ?? configuration)
  }

  private func search(of configuration: RunConfiguration) -> MeshSearch {
    var search = configuration.meshSearch(
      rankCount: rankCount, headCount: sizes.network.headCount, mlpWidth: sizes.network.mlpWidth,
      blockCount: sizes.network.blockCount)
    var sharesTextKeys = false
    if case .multimodal(let form) = sizes.network.form { sharesTextKeys = form.hasOwnProjections }
    search.closedAxes = configuration.closedAxes(sharesTextKeys: sharesTextKeys)
    return search
  }

  /// Layouts with split roles, where the placement is free.
  var split: MeshSearch? {
    guard configuration.mesh.placement == .auto, configuration.canSplitRoles else { return nil }
    var split = search()
    split.splitsRoles = true
    return split
  }

  /// Layouts with a further axis that nobody has fixed.
  /// - Parameters:
  ///   - axes: what may be opened.
  ///   - stretch: the most that the busiest rank may have over an even part; nil: any.
  func opened(_ axes: [Axis] = [.stages, .tp, .ring], stretch: Double? = nil) -> [MeshShape] {
    guard configuration.mesh.placement != .split else { return [] }
    let opened = axes.flatMap { axis in
      degrees.flatMap { shapes(with: axis, degree: $0) }
    }
    func load(_ shape: MeshShape) -> Double {
      LayoutPick.loadStretch(shape, microbatchCount: sizes.microbatchCount)
    }
    let even = opened.filter { shape in stretch.map { load(shape) <= $0 } ?? true }
    // `sorted` keeps the order of equals.
    return Array(even.sorted { load($0) < load($1) }.prefix(Self.largestOpenCount))
  }

  /// Every legal layout of what the configuration leaves open, on all axes and in either placement; of axes that it
  /// fixes, those degrees alone.
  func every() -> [MeshShape] {
    typealias Degree = RunConfiguration.Degree
    let divisors = (1...rankCount).filter { rankCount % $0 == 0 }
    func degrees(_ degree: Degree) -> [Degree] {
      degree == .auto ? divisors.map(Degree.fixed) : [degree]
    }
    let mesh = configuration.mesh
    var shapes: [MeshShape] = []
    for stages in degrees(mesh.stages) {
      for dp in degrees(mesh.dp) {
        for ring in degrees(mesh.ring) {
          for tp in degrees(mesh.tp) {
            var fixed = configuration
            (fixed.mesh.stages, fixed.mesh.dp) = (stages, dp)
            (fixed.mesh.ring, fixed.mesh.tp) = (ring, tp)
            guard fixed.validate().isEmpty else { continue }
            shapes += search(of: fixed).shapes
            guard mesh.placement == .auto, configuration.canSplitRoles else { continue }
            // Split roles share tokens only where that is fixed.
            for sp in degrees(mesh.sp) {
              fixed.mesh.sp = sp
              guard fixed.validate().isEmpty else { continue }
              var split = search(of: fixed)
              split.splitsRoles = true
              shapes += split.shapes
            }
          }
        }
      }
    }
    var known: Set<MeshShape> = []
    return shapes.filter { known.insert($0).inserted }
  }

  /// As many replicas as there are nodes.
  func replicas(ranksPerNode: Int) -> [MeshShape] {
    let nodeCount = rankCount / max(1, ranksPerNode)
    guard nodeCount > 1, nodeCount * ranksPerNode == rankCount else { return [] }
    return shapes(with: .dp, degree: nodeCount).filter { $0.zeroStage != .optimizer }
  }

  private var degrees: [Int] { (2...max(2, rankCount)).filter { rankCount % $0 == 0 } }

  private func shapes(with axis: Axis, degree: Int) -> [MeshShape] {
    var open = configuration
    switch axis {
    case .dp where open.mesh.dp == .auto: open.mesh.dp = .fixed(degree)
    case .ring where open.mesh.ring == .auto: open.mesh.ring = .fixed(degree)
    case .tp where open.mesh.tp == .auto: open.mesh.tp = .fixed(degree)
    case .stages where open.mesh.stages == .auto: open.mesh.stages = .fixed(degree)
    default: return []
    }
    return open.validate().isEmpty ? search(of: open).shapes : []
  }
}

/// What decides about bits in the layout that a run began with: sums over tokens run in its order, at stage 1 over a rank's
/// microbatches first, above it over the ranks that share a microbatch.
package struct NotedLayout: Equatable, Codable, Sendable {
  package let rankCount: Int
  package let ring: Int
  package let sp: Int
  package let tp: Int
  package let zeroStage: ZeroStage

  /// From the words of a checkpoint, `MeshShape.description`; nil where they are none.
  package init?(mesh: String) {
    let parts = mesh.components(separatedBy: ", ")
    let words = parts[0]
    var degrees: [Axis: Int] = [:]
    for part in words == "one rank" ? [] : words.components(separatedBy: " × ") {
      let parts = part.split(separator: " ")
      guard parts.count == 2, let axis = Axis(rawValue: String(parts[0])),
        let degree = Int(parts[1]), degree > 0
      else { return nil }
      degrees[axis] = degree
    }
    let shape = MeshShape(degrees)
    zeroStage =
      ZeroStage.allCases.first { parts.dropFirst().first == "ZeRO stage \($0.rawValue)" }
      ?? .optimizer
    rankCount = shape.rankCount
    (ring, sp, tp) = (shape[.ring], shape[.sp], shape[.tp])
  }

  /// `configuration` with these degrees where it says auto.
  func applied(to configuration: RunConfiguration) -> RunConfiguration {
    var applied = configuration
    if applied.mesh.ring == .auto { applied.mesh.ring = .fixed(ring) }
    if applied.mesh.sp == .auto { applied.mesh.sp = .fixed(sp) }
    if applied.mesh.tp == .auto { applied.mesh.tp = .fixed(tp) }
    if applied.mesh.zeroStage == .auto, ring * sp * tp > 1 {
      applied.mesh.zeroStage = .fixed(zeroStage.rawValue)
    }
    return applied
  }
}
