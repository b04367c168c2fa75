import Basics
import Testing

@testable import Checkpoints

struct JSONTextTests {
  private func string(_ text: String) -> String? {
    guard case .string(let result)? = try? JSONText.parse(Array(text.utf8)) else { return nil }
    return result
  }

  @Test func `what is quoted reads back`() {
    for text in ["", "a.b", "\"\\/\u{8}\u{c}\n\r\t\u{1}\u{1f}", "ünïcode 漢字 🙂"] {
      #expect(string(text.jsonQuoted) == text)
    }
  }

  @Test func `escapes read as the standard says`() {
    #expect(string(#""\u0041\u00e9\ud83d\ude42\/""#) == "Aé🙂/")
    for wrong in [
      #""\ud83d""#, #""\ud83d \ude42""#, #""\ud83dx""#, #""\x""#, #""\u12""#, "\"a", "\"\n\"",
    ] {
      #expect(string(wrong) == nil, "\(wrong)")
    }
  }

  @Test(arguments: [
    "", "{", "{}x", "[1,]", "{\"a\" 1}", "{\"a\":1,}", "nul", "01", "1e", "-",
    "99999999999999999999",
    "{1:2}", "[1 2]", String(repeating: "[", count: 100),
  ])
  func `what is not JSON is refused`(text: String) {
    #expect(throws: JSONSyntaxError.self) { try JSONText.parse(Array(text.utf8)) }
  }

  @Test func `text that is not UTF-8 is refused`() {
    #expect(throws: JSONSyntaxError.self) { try JSONText.parse([0x22, 0xFF, 0x22]) }
  }

  @Test func `members keep their order, equal names included`() throws {
    guard
      case .object(let members) = try JSONText.parse(
        Array(#" {"b":1, "a":[-1, true], "b":{}} "#.utf8))
    else {
      Issue.record("not an object")
      return
    }
    #expect(members.map(\.name) == ["b", "a", "b"])
  }
}
