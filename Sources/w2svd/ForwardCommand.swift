// `w2svd forward`: a model on the tensors of a file.

import ArgumentParser
import DenseKernels
import Foundation
import Models

struct ForwardCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "forward",
    abstract:
      "Runs a model folder on tensors from a file, to be compared with diffusers or the release.",
    discussion: """
      The inputs are named as the arguments of diffusers' forward: hidden_states, timestep, \
      encoder_hidden_states, encoder_attention_mask if the model has one (default: all valid), \
      pooled_projections, guidance if the model has one, output_grad (default: ones). The result is `output`, and with --gradients \
      grad.<parameter> and grad.hidden_states, all F32.
      """)

  @Option(
    help: ArgumentHelp("A folder of a HunyuanVideo or Vchitect-2.0 transformer.", valueName: "dir"))
  var model: String

  @Option(help: ArgumentHelp("Input tensors.", valueName: "in.safetensors"))
  var inputs: String

  @Option(help: ArgumentHelp("Where the results go.", valueName: "out.safetensors"))
  var outputs: String

  @Flag(help: "Also differentiates the output into all parameters. Default: off.")
  var gradients = false

  @Flag(
    help: "Recomputes each block on the way back: less memory, one more pass. Default: off.")
  var recompute = false

  @Option(help: "Operands of products: fp32 or bf16. Default: fp32.")
  var dtype = ProductPrecision.float32

  func run() throws {
    try ForwardRun.run(
      modelFolder: URL(filePath: model), inputs: URL(filePath: inputs),
      outputs: URL(filePath: outputs), gradients: gradients, recompute: recompute,
      precision: dtype)
  }
}
