import DenseKernels
import Testing

struct BLASRuntimeTests {
  @Test func `a core type is set only where OpenBLAS misjudges an AVX-512 machine`() {
    func needed(_ name: String, _ avx512: Bool, _ choice: String? = nil) -> String? {
      BLASRuntime.neededCoreType(coreName: name, hasAVX512: avx512, userChoice: choice)
    }
    #expect(needed("Haswell", true) == "SkylakeX")
    #expect(needed("Zen", true) == "SkylakeX")
    #expect(needed("Unknown", true) == "SkylakeX")
    #expect(needed("SkylakeX", true) == nil)
    #expect(needed("Cooperlake", true) == nil)
    #expect(needed("SapphireRapids", true) == nil)
    #expect(needed("Haswell", false) == nil)
    #expect(needed("Haswell", true, "Haswell") == nil)
  }

  @Test func `the library names itself`() {
    #expect(!BLASRuntime.coreName.isEmpty)
    #expect(BLASRuntime.configuration.contains("OpenBLAS"))
    #expect(BLASRuntime.threadCount >= 1)
  }

  @Test func `probes measure something`() {
    #expect(MachineProbes.measureGEMM(order: 128, runCount: 3) > 0.1)
    #expect(MachineProbes.measureTriad(elementCount: 1 << 16, runCount: 3) > 0.1)
    #expect(MachineProbes.measureFMAPeak(runCount: 1) > 0.1)
  }
}
