// swift-tools-version: 6.2
// W2SVD: targets in layer order, lowest first. A module imports only from rows above it;
// `Tests/Checks/check-imports` compares every import with this table.

import PackageDescription

let settings: [SwiftSetting] = [
  .enableUpcomingFeature("ExistentialAny"),
  .enableUpcomingFeature("InternalImportsByDefault"),
  .enableUpcomingFeature("MemberImportVisibility"),
  .strictMemorySafety(),
  .treatAllWarnings(as: .error),
]

/// Release and debug alike: a kernel without -O3 is a tenth as fast, and tests run it too.
let kernelFlags: [CSetting] = [
  .unsafeFlags(["-O3", "-std=c11", "-Wall", "-Wextra", "-Werror", "-fno-math-errno"])
]

let argumentParser = Target.Dependency.product(
  name: "ArgumentParser", package: "swift-argument-parser")
let protobuf = Target.Dependency.product(name: "SwiftProtobuf", package: "swift-protobuf")
let yams = Target.Dependency.product(name: "Yams", package: "Yams")

func system(_ name: String, pkgConfig: String? = nil, apt: String) -> Target {
  .systemLibrary(name: name, pkgConfig: pkgConfig, providers: [.apt([apt])])
}

func module(
  _ name: String, _ dependencies: [Target.Dependency], excluding: [String] = []
) -> Target {
  .target(
    name: name, dependencies: dependencies, exclude: ["README.md"] + excluding,
    swiftSettings: settings)
}

func tests(of name: String, _ dependencies: [Target.Dependency] = [], resources: [Resource] = [])
  -> Target
{
  .testTarget(
    name: name + "Tests", dependencies: [.init(stringLiteral: name), "TestSupport"] + dependencies,
    resources: resources, swiftSettings: settings)
}

let targets: [Target] = [
  // System libraries and C kernels; one Swift importer each.
  system("COpenMPI", pkgConfig: "ompi-c", apt: "libopenmpi-dev"),
  system("COpenBLAS", pkgConfig: "openblas", apt: "libopenblas-dev"),
  system("CZstd", pkgConfig: "libzstd", apt: "libzstd-dev"),
  .target(name: "CKernels", cSettings: kernelFlags),

  // Random streams, failures that trap, JSON text.
  module("Basics", []),
  // Axes, coordinates, groups, shard ranges: integer arithmetic only.
  module("MeshLayout", ["Basics"]),
  // Communicators, requests, MPI errors.
  module("MessagePassing", ["COpenMPI", "Basics"]),
  // GEMM, attention, norms, optimizer loops over buffers.
  module("DenseKernels", ["COpenBLAS", "CKernels", "Basics"]),
  // Byte planes, deltas, zstd contexts, checksums.
  module("Compression", ["CZstd", "CKernels", "Basics"]),
  // Shape, storage, arena, memory ledger, tensors.
  module("Tensors", ["DenseKernels", "Basics"]),
  // Transports (MPI, in-process, recording), groups, collectives.
  module("ProcessMesh", ["MessagePassing", "MeshLayout", "Basics"]),
  // Tape, differentiable operations, recomputation.
  module("Autodiff", ["Tensors", "DenseKernels", "MeshLayout", "Basics"]),
  // Buckets, codecs, policy, fixed-order reduction.
  module(
    "Exchange",
    [
      "ProcessMesh", "MeshLayout", "MessagePassing", "Compression", "Tensors", "DenseKernels",
      "Basics",
    ]),
  // safetensors, manifest, sharded save and load, Hugging Face folders.
  module("Checkpoints", ["Tensors", "DenseKernels", "Compression", "MeshLayout", "Basics"]),
  // ffmpeg, clip windows, latent codec, resumable sampler.
  module("VideoData", ["Checkpoints", "Tensors", "DenseKernels", "Compression", "Basics"]),
  // Layers, DiT, LoRA, heads; knows no ranks.
  module("Models", ["Checkpoints", "Autodiff", "Tensors", "DenseKernels", "Basics"]),
  // Flow matching, schedules, samplers, distillation objectives; knows no ranks.
  module("Diffusion", ["Models", "Autodiff", "Tensors", "DenseKernels", "Basics"]),
  // Fréchet distances, frame metrics, the HTML report.
  module("Evaluation", ["VideoData", "Tensors", "DenseKernels", "Basics"]),
  // Memory and time models, mesh search: pure functions.
  module("Planning", ["MeshLayout", "Basics"]),
  // Optimizers, EMA, sharding, roles, the coordinator, the loop, metrics.
  module(
    "Training",
    [
      "Planning", "Evaluation", "Diffusion", "Models", "VideoData", "Checkpoints", "Exchange",
      "Autodiff", "ProcessMesh", "Tensors", "Compression", "DenseKernels", "MeshLayout", "Basics",
      protobuf, yams,
    ], excluding: ["Metrics/event.proto"]),
  // Steps and kernels timed, and what share of the machine they reach.
  module(
    "Benchmarking",
    [
      "Training", "Evaluation", "Diffusion", "Models", "Exchange", "Autodiff", "ProcessMesh",
      "Tensors",
      "DenseKernels", "Basics",
    ]),
  // Programs: arguments and wiring only.
  .executableTarget(
    name: "w2svd-worker",
    dependencies: [
      "Training", "ProcessMesh", "MessagePassing", "DenseKernels", "Basics", argumentParser,
    ],
    exclude: ["README.md"], swiftSettings: settings),
  .executableTarget(
    name: "w2svd",
    dependencies: [
      "Benchmarking", "Training", "Planning", "Evaluation", "Diffusion", "Models", "VideoData",
      "Checkpoints",
      "Exchange", "Autodiff", "ProcessMesh", "Tensors", "Compression", "DenseKernels", "MeshLayout",
      "Basics", argumentParser,
    ],
    exclude: ["README.md"], swiftSettings: settings),

  // Comparers, temporary folders, seeded streams: for tests only.
  .target(
    name: "TestSupport", dependencies: ["Basics"], path: "Tests/TestSupport",
    swiftSettings: settings),
  // Bodies of the mesh tests, run by `swift test` in-process and by `mesh-checks` under mpirun.
  .target(
    name: "MeshChecks",
    dependencies: [
      "Exchange", "ProcessMesh", "MessagePassing", "MeshLayout", "Tensors", "DenseKernels",
      "Basics",
    ],
    path: "Tests/MeshChecks", swiftSettings: settings),
  .executableTarget(
    name: "mesh-checks", dependencies: ["MeshChecks", "ProcessMesh", "MessagePassing", "Basics"],
    path: "Tests/mesh-checks", swiftSettings: settings),
  tests(of: "Basics"),
  tests(of: "MeshLayout"),
  tests(of: "DenseKernels"),
  tests(of: "Compression"),
  tests(of: "Tensors", ["DenseKernels"]),
  tests(of: "ProcessMesh", ["MeshChecks", "MessagePassing", "MeshLayout", "Basics"]),
  tests(of: "Autodiff", ["Tensors", "DenseKernels", "Basics"]),
  tests(
    of: "Exchange",
    [
      "MeshChecks", "ProcessMesh", "MessagePassing", "Compression", "Tensors", "DenseKernels",
      "MeshLayout", "Basics",
    ]),
  tests(of: "Checkpoints", ["Tensors", "DenseKernels", "MeshLayout", "Basics"]),
  tests(of: "VideoData", ["Checkpoints", "Tensors", "DenseKernels", "Basics"]),
  tests(of: "Models", ["Checkpoints", "Autodiff", "Tensors", "DenseKernels", "Basics"]),
  tests(of: "Diffusion", ["Models", "Autodiff", "Tensors", "DenseKernels", "Basics"]),
  tests(of: "Evaluation", ["VideoData", "Tensors", "DenseKernels", "Basics"]),
  tests(of: "Planning", ["MeshLayout", "Basics"]),
  tests(
    of: "Training",
    [
      "Planning", "Evaluation", "Diffusion", "Models", "VideoData", "Checkpoints", "Exchange",
      "Autodiff", "ProcessMesh", "Tensors", "Compression", "DenseKernels", "MeshLayout", "Basics",
    ]),
  tests(of: "Benchmarking", ["Training", "Planning", "Models", "DenseKernels"]),
]

let package = Package(
  name: "w2svd",
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", exact: "1.8.2"),
    .package(url: "https://github.com/apple/swift-protobuf", exact: "1.39.0"),
    .package(url: "https://github.com/jpsim/Yams", exact: "6.2.2"),
  ],
  targets: targets
)
