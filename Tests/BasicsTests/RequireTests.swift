import Basics
import Testing

struct RequireTests {
  @Test func `what does not hold ends the process and says where and why`() async throws {
    let line = #line + 1
    let result = await #expect(
      processExitsWith: .failure, observing: [\.standardErrorContent]
    ) { require(2 + 2 == 5, "two and two are \(2 + 2)") }
    let words = String(decoding: try #require(result).standardErrorContent, as: UTF8.self)
    #expect(words.contains("BasicsTests/RequireTests.swift:\(line): "), "\(words)")
    #expect(words.contains("two and two are 4"), "\(words)")
  }

  @Test func `a trap ends the process and says where and why`() async throws {
    let line = #line + 1
    let result = await #expect(
      processExitsWith: .failure, observing: [\.standardErrorContent]
    ) { trap("nobody comes here, \(3) times") }
    let words = String(decoding: try #require(result).standardErrorContent, as: UTF8.self)
    #expect(words.contains("BasicsTests/RequireTests.swift:\(line): "), "\(words)")
    #expect(words.contains("nobody comes here, 3 times"), "\(words)")
  }

  @Test func `what holds goes on, and its message is never built`() {
    func message() -> String {
      Issue.record("the message of a requirement that holds was built")
      return ""
    }
    require(2 + 2 == 4, message())
  }
}
