// Groups: splitting, order by key, groups of groups.

import MeshLayout
import ProcessMesh

let groupChecks: [MeshCheck] = [
  MeshCheck("every rank knows who it is and shares a node with itself") { mesh in
    try expect(mesh.rank >= 0 && mesh.rank < mesh.size, "rank \(mesh.rank) of \(mesh.size)")
    try expect(mesh.isSameNode(mesh.rank), "rank \(mesh.rank) is not on its own node")
    let seen = try mesh.allGather([UInt8(mesh.rank)])
    try expectEqual(seen, (0..<mesh.size).map { [UInt8($0)] })
  },
  MeshCheck("a split groups by color and orders by key, then by rank") { mesh in
    for colorCount in 1...3 {
      // Reversed order in the even colors; equal keys, hence rank order, in the odd ones.
      let color = mesh.rank % colorCount
      let part = try mesh.split(color: color, key: color.isMultiple(of: 2) ? -mesh.rank : 7)
      var members = (0..<mesh.size).filter { $0 % colorCount == color }
      if color.isMultiple(of: 2) { members.reverse() }
      try expectEqual(part.size, members.count)
      try expectEqual(members[part.rank], mesh.rank)
      try expectEqual(part.allGather([UInt8(mesh.rank)]), members.map { [UInt8($0)] })
    }
  },
  MeshCheck("a group, a group split from it and the whole do not mix") { mesh in
    let half = try mesh.split(color: mesh.rank / 2, key: mesh.rank)
    let single = try half.split(color: half.rank, key: 0)
    let whole = try mesh.startAllGather([1, UInt8(mesh.rank)])
    let inHalf = try half.startAllGather([2, UInt8(mesh.rank)])
    let alone = try single.startAllGather([3, UInt8(mesh.rank)])
    try expectEqual(try alone.waitForArrays(), [[3, UInt8(mesh.rank)]])
    try expectEqual(try whole.waitForArrays(), (0..<mesh.size).map { [1, UInt8($0)] })
    let members = (0..<mesh.size).filter { $0 / 2 == mesh.rank / 2 }
    try expectEqual(try inHalf.waitForArrays(), members.map { [2, UInt8($0)] })
  },
  MeshCheck("groups along an axis of the mesh are what splitting by coordinates gives") { mesh in
    guard mesh.size.isMultiple(of: 2) else { return }
    let shape = MeshShape([.dp: mesh.size / 2, .sp: 2])
    let coordinates = shape.coordinates(of: mesh.rank)
    let group = try mesh.split(color: coordinates[.dp, default: 0], key: mesh.rank)
    let members = try group.allGather([UInt8(mesh.rank)]).map { Int($0[0]) }
    try expectEqual(members, shape.group(along: .sp, of: mesh.rank))
  },
]
