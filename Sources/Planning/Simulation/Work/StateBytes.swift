// Bytes of a trained or frozen parameter, by what of it is sharded.
//
// N ranks share what a ZeRO stage shards: 1 optimizer state and average, 2 gradients too, 3 parameters too.
// Mixed precision with Adam: 16, 4 + 12/N, 2 + 14/N, 16/N; fp32: 16, 8 + 8/N, 4 + 12/N, 16/N; an average
// adds 4/N. With nothing to share N is 1. Source: specs of distributed systems §3 (ZeRO, 1910.02054).

package import MeshLayout

/// How numbers are held, in bytes of an element.
package struct StateBytes: Codable, Equatable, Sendable {
  package var parameter: Double
  package var gradient: Double
  /// Moments, and the fp32 copy of the parameters where they are narrower.
  package var optimizer: Double
  package var average: Double
  /// Of an element of an activation that is kept or sent.
  package var activation: Double

  /// What the worker holds.
  package static let float32 = StateBytes(
    parameter: 4, gradient: 4, optimizer: 8, average: 4, activation: 4)
  /// bf16 parameters, gradients and activations over fp32 masters.
  package static let mixed = StateBytes(
    parameter: 2, gradient: 2, optimizer: 12, average: 4, activation: 2)

  package init(
    parameter: Double, gradient: Double, optimizer: Double, average: Double, activation: Double
  ) {
    self.parameter = parameter
    self.gradient = gradient
    self.optimizer = optimizer
    self.average = average
    self.activation = activation
  }

  /// Bytes that a rank holds by category.
  package struct Held: Codable, Equatable, Sendable {
    package var parameters = 0.0
    package var gradients = 0.0
    package var optimizer = 0.0
    package var average = 0.0

    package var total: Double { parameters + gradients + optimizer + average }
  }

  /// A trained role.
  package func trained(
    parameterCount: Double, zeroStage: ZeroStage, shardCount: Int, hasAverage: Bool = false
  ) -> Held {
    func shared(from stage: ZeroStage) -> Double { zeroStage >= stage ? Double(shardCount) : 1 }
    return Held(
      parameters: parameterCount * parameter / shared(from: .parameters),
      gradients: parameterCount * gradient / shared(from: .gradients),
      optimizer: parameterCount * optimizer / shared(from: .optimizer),
      average: hasAverage ? parameterCount * average / shared(from: .optimizer) : 0)
  }

  /// A frozen role: its parameters alone.
  package func frozen(
    parameterCount: Double, zeroStage: ZeroStage, shardCount: Int
  ) -> Held {
    Held(
      parameters: parameterCount * parameter
        / (zeroStage == .parameters ? Double(shardCount) : 1))
  }
}
