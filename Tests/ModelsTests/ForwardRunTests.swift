import Checkpoints
import Foundation
import Models
import Tensors
import TestSupport
import Testing

struct ForwardRunTests {
  @Test(arguments: Fixture.names)
  func `the command writes output and gradients under the documented names`(name: String) throws {
    try withTemporaryFolder { folder in
      let fixture = try Fixture(name)
      let outputs = folder.appending(path: "out.safetensors")
      try ForwardRun.run(
        modelFolder: fixture.folder, inputs: fixture.folder.appending(path: "inputs.safetensors"),
        outputs: outputs, gradients: true)
      let result = try SafetensorsReader(opening: outputs)
      let run = try fixture.run(Float.self)
      #expect(try result.floats("output") == run.output.array)
      #expect(result.tensors.count == run.gradients.count + 1)
      for (name, gradient) in run.gradients {
        #expect(try result.floats("grad.\(name)") == gradient)
      }
      let declared = try fixture.reference().tensors
      for tensor in declared {
        #expect(try result.declaration(of: tensor.name).shape == tensor.shape)
      }

      try ForwardRun.run(
        modelFolder: fixture.folder, inputs: fixture.folder.appending(path: "inputs.safetensors"),
        outputs: outputs, gradients: false)
      #expect(try SafetensorsReader(opening: outputs).tensors.map(\.name) == ["output"])
    }
  }

  @Test(arguments: ["v1", "v2", "image"])
  func `the command runs a Vchitect folder as well`(name: String) throws {
    try withTemporaryFolder { folder in
      let source = VchitectExample<Float>.folder(name)
      let outputs = folder.appending(path: "out.safetensors")
      try ForwardRun.run(
        modelFolder: source, inputs: source.appending(path: "inputs.safetensors"),
        outputs: outputs, gradients: true)
      let result = try SafetensorsReader(opening: outputs)
      let files = try Fixture(folder: source)
      let example = try VchitectExample<Float>(fixture: name)
      let run = example.run(seed: try files.tensor("output_grad", in: example.arena))
      #expect(try result.floats("output") == run.output.array)
      for (name, gradient) in run.gradients {
        #expect(try result.floats("grad.\(name)") == gradient, "\(name)")
      }
    }
  }

  /// Runs with inputs that `change` edits; returns the message of the failure.
  func failure(_ change: (inout [String: (shape: [Int], values: [Float])]) -> Void) throws -> String
  {
    try withTemporaryFolder { folder in
      let fixture = try Fixture("masks")
      var tensors: [String: (shape: [Int], values: [Float])] = [:]
      for tensor in fixture.inputs.tensors {
        let values =
          tensor.type.isConvertible
          ? try fixture.inputs.floats(tensor.name) : Array(repeating: Float(1), count: tensor.count)
        tensors[tensor.name] = (tensor.shape, values)
      }
      change(&tensors)
      let inputs = folder.appending(path: "in.safetensors")
      let writer = try SafetensorsWriter(
        creating: inputs,
        tensors: tensors.map { TensorDeclaration($0.key, .float32, shape: $0.value.shape) })
      for (name, tensor) in tensors { try writer.append(tensor.values, to: name) }
      try writer.finish()
      do {
        try ForwardRun.run(
          modelFolder: fixture.folder, inputs: inputs,
          outputs: folder.appending(path: "out.safetensors"), gradients: true)
        return ""
      } catch let error as ModelError {
        #expect(error.code == .wrongInput)
        return error.message
      }
    }
  }

  @Test func `missing, unknown and misshapen inputs are named`() throws {
    #expect(try failure { _ in } == "")
    #expect(try failure { $0["encoder_attention_mask"] = nil } == "")
    #expect(try failure { $0["output_grad"] = nil } == "")
    #expect(
      try failure {
        $0["guidance"] = nil; $0["timestep"] = nil
      }.contains(
        "it lacks timestep, guidance"))
    #expect(try failure { $0["guidence"] = ([2], [1, 1]) }.contains("guidence"))
    #expect(try failure { $0["timestep"] = ([1], [5]) }.contains("timestep has 1 elements"))
    #expect(
      try failure { $0["pooled_projections"] = ([2, 1], [5, 5]) }.contains("must be [2, 6]"))
    #expect(
      try failure { $0["encoder_attention_mask"] = ([2], [1, 1]) }.contains("must be [2, 5]"))
    #expect(
      try failure { $0["encoder_attention_mask"]?.values[3] = 0.5 }.contains("zeros and ones"))
    #expect(try failure { $0["output_grad"] = ([1], [1]) }.contains("the output is"))
  }
}
