import Autodiff
import Checkpoints
import DenseKernels
import Foundation
import Models
import Tensors
import TestSupport
import Testing

struct AdapterTests {
  static let folder = Fixture.root.appending(path: "masks/adapter")

  static func load<Scalar>(
    _ configuration: HunyuanVideoConfiguration, _ arena: Arena
  ) throws -> AdapterSet<Scalar> {
    try AdapterSet(
      reading: folder, adapting: configuration.parameterSpecifications, in: arena, role: .fake)
  }

  @Test(arguments: [1.0, 0.25], [false, true])
  func `output and factor gradients agree with PEFT at any weight`(
    weight: Double, recompute: Bool
  ) throws {
    let fixture = try Fixture("masks")
    let reference = try SafetensorsReader(
      opening: Self.folder.appending(path: "reference.safetensors"))
    let run = try fixture.run(
      Float.self, adapter: { Adapter(try Self.load($0, $1), weight: weight) },
      recomputedShare: recompute ? 1 : 0)
    let expected = try reference.floats("\(weight).output")
    #expect(
      difference(run.output.array, expected, absolute: 1e-4 * largestMagnitude(expected)) == nil)
    #expect(run.gradients.count == 2 * 18 + 1)
    for (name, gradient) in run.gradients {
      let expected = try reference.floats("\(weight).grad.\(name)")
      #expect(
        difference(gradient, expected, absolute: 1e-4 * largestMagnitude(expected)) == nil,
        "\(name)")
    }
  }

  @Test func `a new adapter changes no bit of the output`() throws {
    let fixture = try Fixture("masks")
    let base = try fixture.run(Float.self)
    for weight in [0.0, 0.25, 1.0] {
      let run = try fixture.run(
        Float.self,
        adapter: { configuration, arena in
          let set = AdapterSet<Float>(
            AdapterConfiguration(rank: 2, alpha: 2, of: configuration),
            adapting: configuration.parameterSpecifications, in: arena, role: .fake)
          set.initialize(seed: 4)
          return Adapter(set, weight: weight)
        })
      #expect(run.output.array == base.output.array, "weight \(weight)")
      // B has a gradient at the start, A has not, since B is zero.
      let hasGradient = { (suffix: String) in
        run.gradients.contains { $0.key.hasSuffix(suffix) && $0.value.contains { $0 != 0 } }
      }
      #expect(hasGradient("lora_B.weight") == (weight != 0))
      #expect(!hasGradient("lora_A.weight"))
    }
  }

  @Test func `A starts uniform within one over the root of its width and B at zero`() throws {
    let model = try Fixture("masks").model(in: Arena(), as: Float.self)
    let set = AdapterSet<Float>(
      AdapterConfiguration(rank: 3, alpha: 6, of: model.configuration),
      adapting: model.configuration.parameterSpecifications, in: Arena(), role: .fake)
    set.initialize(seed: 9)
    for parameter in set.parameters.parameters {
      let largest = largestMagnitude(parameter.value.array)
      if parameter.name.hasSuffix("lora_A.weight") {
        let bound = 1 / Double(parameter.value.shape[1]).squareRoot()
        #expect(largest <= bound && largest > 0.8 * bound, "\(parameter.name)")
      } else {
        #expect(largest == 0)
      }
    }
  }

  @Test func `an adapter passes through its folder bit by bit`() throws {
    try withTemporaryFolder { folder in
      let configuration = try Fixture("masks").model(in: Arena(), as: Float.self).configuration
      let set: AdapterSet<Float> = try Self.load(configuration, Arena())
      #expect(set.configuration.rank == 3 && set.configuration.scaling == 2)
      let copy = folder.appending(path: "copy")
      try set.write(to: copy)
      let again = try AdapterSet<Float>(
        reading: copy, adapting: configuration.parameterSpecifications, in: Arena(), role: .fake)
      #expect(again.configuration == set.configuration)
      #expect(again.parameters.values.array == set.parameters.values.array)
    }
  }

  @Test func `an adapter of another model or kind is refused`() throws {
    var other = try Fixture("masks").model(in: Arena(), as: Float.self).configuration
    other.singleBlockCount = 1
    let error = #expect(throws: ModelError.self) {
      let _: AdapterSet<Float> = try Self.load(other, Arena())
    }
    #expect(error?.code == .wrongModel)
    #expect(error?.message.contains("single_transformer_blocks.1.attn.to_k") == true)

    other.singleBlockCount = 2
    other.mlpRatio = 3
    #expect(throws: CheckpointError.self) {
      let _: AdapterSet<Float> = try Self.load(other, Arena())
    }

    try withTemporaryFolder { folder in
      let copy = folder.appending(path: "copy")
      try FileManager.default.copyItem(at: Self.folder, to: copy)
      try Data(
        #"{"peft_type": "LORA", "r": 3, "lora_alpha": 6, "use_dora": true, "bias": "all"}"#.utf8
      )
      .write(to: copy.appending(path: "adapter_config.json"))
      let error = #expect(throws: ModelError.self) {
        let _ = try AdapterSet<Float>(
          reading: copy, adapting: other.parameterSpecifications, in: Arena(), role: .fake)
      }
      #expect(error?.code == .unsupported)
      #expect(error?.message.contains("bias all, use_dora") == true)
    }
  }
}
