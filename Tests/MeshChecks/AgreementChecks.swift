// Agreeing on errors, and values as JSON.

import ProcessMesh

private struct LocalProblem: Error, CustomStringConvertible {
  let description: String
}

private struct Plan: Codable, Equatable {
  var name: String
  var steps: [Int]
  var rate: Double?
}

let agreementChecks: [MeshCheck] = [
  MeshCheck("ranks agree when none has an error") { mesh in
    try mesh.agree(on: nil)
    try expectEqual(mesh.agreeing { mesh.rank * 2 }, mesh.rank * 2)
  },
  MeshCheck("an error of one rank is thrown on all, naming the rank, and they may go on") { mesh in
    for failing in 0..<mesh.size {
      let own = mesh.rank == failing ? LocalProblem(description: "disk \(failing) is full") : nil
      let error = try caught { try mesh.agree(on: own) } as? PeerError
      try expectEqual(error?.code, .rankFailed)
      try expectEqual(error?.rank, failing)
      try expectEqual(error?.message, "disk \(failing) is full")
      try expectEqual(error?.cause is LocalProblem, mesh.rank == failing)
    }
  },
  MeshCheck("with errors on all ranks the first rank's is named, also when its text is empty") {
    mesh in
    let error =
      try caught {
        try mesh.agreeing { throw LocalProblem(description: mesh.rank == 0 ? "" : "other") }
      } as? PeerError
    try expectEqual(error?.rank, 0)
    try expectEqual(error?.message, "")
  },
  MeshCheck("values travel as JSON") { mesh in
    for root in 0..<mesh.size {
      let plan = Plan(name: "größer \(root)", steps: [1, -2, .max], rate: 0.1)
      try expectEqual(mesh.broadcast(value: mesh.rank == root ? plan : nil, root: root), plan)
    }
    try expectEqual(
      mesh.allGather(value: Plan(name: "r\(mesh.rank)", steps: [])),
      (0..<mesh.size).map { Plan(name: "r\($0)", steps: []) })
  },
]
