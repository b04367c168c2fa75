import Testing

@testable import Evaluation

@Suite struct ReportTextTests {
  @Test func `text cannot become markup`() {
    #expect(
      ReportText.escaped("<a href=\"x\">'&'</a>")
        == "&lt;a href=&quot;x&quot;&gt;&#39;&amp;&#39;&lt;/a&gt;")
  }

  @Test func `numbers are short and never minus zero`() {
    #expect(ReportText.fixed(-0.001, digits: 1) == "0.0")
    #expect(ReportText.fixed(.infinity, digits: 1) == "∞")
    #expect(ReportText.fixed(.nan, digits: 1) == "–")
    #expect(
      [0.0, 0.5, 1234.4, 20_000, 12_345_678, -0.25].map(ReportText.compact)
        == ["0", "0.5", "1234", "20k", "12.35M", "-0.25"])
    #expect(
      [0, 1023, 1536, 200 * 1_048_576].map(ReportText.bytes)
        == ["0 B", "1023 B", "1.5 KiB", "200 MiB"])
    #expect([12.34, 185, 3723].map(ReportText.duration) == ["12.3 s", "3 min 05 s", "1 h 02 min"])
  }
}
