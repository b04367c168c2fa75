import Basics
import Foundation
import Testing

struct JSONStringTests {
  @Test func `only what JSON asks for is escaped`() {
    #expect("".jsonQuoted == #""""#)
    #expect("a/b.c".jsonQuoted == #""a/b.c""#)
    #expect("\"\\\n\r\t".jsonQuoted == #""\"\\\n\r\t""#)
    #expect("\u{0}\u{1}\u{1f}\u{7f}".jsonQuoted == "\"\\u0000\\u0001\\u001f\u{7f}\"")
    #expect("ünïcode 漢字 🙂".jsonQuoted == "\"ünïcode 漢字 🙂\"")
  }

  @Test func `every scalar below 256, joined or alone, reads back`() throws {
    let scalars = (0..<256).compactMap { Unicode.Scalar($0).map(String.init) }
    for text in scalars + [scalars.joined(), "e\u{301} \u{2028}", "👩‍👧"] {
      let read = try JSONDecoder().decode([String].self, from: Data("[\(text.jsonQuoted)]".utf8))
      #expect(read.first.map { Array($0.unicodeScalars) } == Array(text.unicodeScalars))
    }
  }
}
