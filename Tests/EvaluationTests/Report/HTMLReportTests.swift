import Evaluation
import Testing

private var content: ReportContent {
  var content = ReportContent(
    title: "Portrait <quickstart>", subtitle: "runs/a & b",
    samplerTables: [
      .init(
        title: "Unconditional", note: "512 samples",
        rows: [
          .init(
            name: "teacher, Euler 28", frechetDistance: 67.24, motion: 0.0339, sharpness: 0.0869,
            flicker: 0.98, networkEvaluationCount: 28, secondsPerClip: 0.5, sampleCount: 512),
          .init(name: "real, other draw", frechetDistance: 2.9),
          .init(
            name: "student, 4 steps", frechetDistance: 24.01, peakSignalToNoise: .infinity,
            structuralSimilarity: 0.75, networkEvaluationCount: 4),
        ])
    ],
    samples: [
      .init(title: "source", mp4: [1, 2, 3]), .init(title: "sheet", caption: "c", png: [4, 5, 6]),
    ],
    memory: [
      .init(role: "fake", category: "parameters", byteCount: 1 << 20),
      .init(role: "fake", category: "parameters", byteCount: 1 << 20),
      .init(role: "generator", category: "EMA", byteCount: 1 << 20),
    ],
    traffic: [
      .init(kind: "gradients", rawByteCount: 3000, wireByteCount: 2000),
      .init(kind: "parameters", rawByteCount: 1000, wireByteCount: 1000),
    ],
    configuration: "name: \"</pre>\"", environment: [.init("ranks", "8")])
  let metrics = MetricsCurves(
    jsonLines: Array("{\"phase\":\"teach\",\"step\":1,\"loss\":0.5,\"seconds\":1}\n".utf8))
  content.curves = metrics.curves
  content.phases = metrics.phases
  return content
}

@Suite struct HTMLReportTests {
  @Test func `the page is a function of its content`() {
    #expect(HTMLReport(content).html == HTMLReport(content).html)
  }

  @Test func `the page needs nothing from outside`() {
    let html = HTMLReport(content).html
    for outside in ["http:", "https:", "<link", "<script", "@import", "src=\"/", "file:"] {
      #expect(!html.contains(outside), "\(outside)")
    }
    #expect(
      html.contains(
        "<video controls loop muted autoplay playsinline src=\"data:video/mp4;base64,AQID\">"))
    #expect(html.contains("src=\"data:image/png;base64,BAUG\""))
  }

  @Test func `text is escaped everywhere`() {
    let html = HTMLReport(content).html
    #expect(html.contains("<h1>Portrait &lt;quickstart&gt;</h1>"))
    #expect(html.contains("runs/a &amp; b"))
    #expect(html.contains("name: &quot;&lt;/pre&gt;&quot;"))
  }

  @Test
  func `the lowest distance of a sampler is marked, infinite PSNR and missing numbers are shown`() {
    let html = HTMLReport(content).html
    #expect(
      html.contains("<td>67.2</td>") && html.contains("<td>2.9</td>")
        && html.contains("<td class=\"best\">24.0</td>"))
    #expect(html.contains("<td>∞</td>") && html.contains("<td>–</td>"))
  }

  @Test func `memory and traffic are added up`() {
    let html = HTMLReport(content).html
    #expect(html.contains("<th scope=\"row\">fake</th><td>2.0 MiB</td><td>–</td><td>2.0 MiB</td>"))
    #expect(
      html.contains(
        "<th scope=\"row\">all</th><td>2.0 MiB</td><td>1.0 MiB</td><td>3.0 MiB</td>"))
    #expect(
      html.contains(
        "<th scope=\"row\">all</th><td>3.9 KiB</td><td>2.9 KiB</td><td>1.33</td>"))
  }

  @Test func `an empty report has no sections`() {
    let html = HTMLReport(ReportContent(title: "empty")).html
    #expect(!html.contains("<section>"))
    #expect(html.contains("<title>empty</title>"))
  }

  @Test func `every tag that is opened is closed`() {
    let html = HTMLReport(content).html
    for tag in ["section", "table", "tr", "td", "figure", "svg", "details", "div", "video", "p"] {
      let opened = html.components(of: "<\(tag)>") + html.components(of: "<\(tag) ")
      #expect(opened == html.components(of: "</\(tag)>"), "\(tag)")
    }
  }
}

extension String {
  fileprivate func components(of piece: String) -> Int {
    split(separator: piece, omittingEmptySubsequences: false).count - 1
  }
}
