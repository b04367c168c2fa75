import Basics
import Foundation
import Testing

struct ErrorWordsTests {
  private struct OwnError: Error, CustomStringConvertible { let description = "our own words." }

  @Test func `our errors say their own words, whole`() {
    #expect(words(of: OwnError()) == "our own words.")
  }

  @Test func `Foundation's errors say one sentence, without their structure`() {
    for error in [
      CocoaError(.fileWriteOutOfSpace), POSIXError(.ENOSPC),
      NSError(domain: NSCocoaErrorDomain, code: CocoaError.fileWriteOutOfSpace.rawValue),
    ] as [any Error] {
      let found = words(of: error)
      #expect(!found.isEmpty && !found.hasSuffix("."), "\(found)")
      for inside in ["Domain", "Code", "UserInfo"] { #expect(!found.contains(inside), "\(found)") }
    }
    #expect(words(of: CocoaError(.fileWriteOutOfSpace)).contains("space"))
  }
}
