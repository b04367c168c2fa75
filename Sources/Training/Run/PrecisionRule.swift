// Which precision `compute.precision: auto` means. A run keeps the one that it began with, so that it
// goes on with the same bits on another machine.

enum PrecisionRule {
  /// - Parameters:
  ///   - choice: what the user asks for at this start.
  ///   - made: what the checkpoint was made with; nil without one. Runs of version 0.1.0 may say auto.
  ///   - isFast: whether every rank's CPU multiplies bfloat16 itself.
  /// - Returns: fp32 or bf16.
  /// - Throws: `ConfigurationError` where auto would mean products that take this machine many times
  ///   as long.
  static func resolve(
    _ choice: RunConfiguration.PrecisionChoice, made: RunConfiguration.PrecisionChoice?,
    isFast: Bool
  ) throws(ConfigurationError) -> RunConfiguration.PrecisionChoice {
    guard choice == .auto else { return choice }
    guard let made, made != .auto else { return isFast ? .bf16 : .fp32 }
    if made == .bf16 && !isFast {
      throw ConfigurationError([
        ConfigurationProblem(
          "compute.precision",
          "the run began with bf16, which a CPU of this job does not multiply itself: go on where "
            + "the CPUs have AVX-512 BF16, or set compute.precision=bf16 to go on here, with operands "
            + "rounded alike but sums in another order, and much slower")
      ])
    }
    return made
  }

  /// What to say of a choice that this machine is slow at.
  static func warning(
    _ precision: RunConfiguration.PrecisionChoice, isFast: Bool
  ) -> String? {
    guard precision == .bf16 && !isFast else { return nil }
    return
      "compute.precision is bf16, which a CPU of this job does not multiply itself: products are "
      + "much slower than those of fp32"
  }
}
