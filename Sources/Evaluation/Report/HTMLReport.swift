// The report of a run as one HTML page that needs no other file and no network: styles, charts,
// videos and sheets are inside it. A pure function of its content, so equal runs give equal pages.

import Foundation

package struct HTMLReport {
  private let content: ReportContent

  package init(_ content: ReportContent) { self.content = content }

  /// The whole page.
  package var html: String {
    let subtitle =
      content.subtitle.isEmpty ? "" : "<p class=\"sub\">\(escape(content.subtitle))</p>"
    return """
      <!doctype html>
      <html lang="en">
      <head>
      <meta charset="utf-8">
      <meta name="viewport" content="width=device-width, initial-scale=1">
      <title>\(escape(content.title))</title>
      <style>
      \(ReportStyle.css)
      </style>
      </head>
      <body>
      <header><h1>\(escape(content.title))</h1>\(subtitle)</header>
      <main>
      \(samplers)\(samples)\(phases)\(curves)\(memory)\(traffic)\(environment)\(configuration)</main>
      </body>
      </html>

      """
  }

  // MARK: Sections in the order of the page

  private var samplers: String {
    let tables = content.samplerTables.map { table in
      // Among samplers: real clips have no network calls and are the floor, not a contestant.
      let lowest = table.rows.filter { $0.networkEvaluationCount != nil }
        .compactMap(\.frechetDistance).min()
      let note = table.note.isEmpty ? "" : "<p>\(escape(table.note))</p>\n"
      return "<h3>\(escape(table.title))</h3>\n" + note
        + grid(
          header: [
            "sampler", "Fréchet distance", "motion", "sharpness", "flicker score", "PSNR dB",
            "SSIM",
            "network calls", "s/clip", "samples",
          ],
          rows: table.rows.map { row in
            [
              Cell(row.name),
              Cell(
                row.frechetDistance, digits: 1,
                isBest: row.frechetDistance == lowest && row.networkEvaluationCount != nil),
              Cell(row.motion, digits: 4), Cell(row.sharpness, digits: 4),
              Cell(row.flicker, digits: 4), Cell(row.peakSignalToNoise, digits: 2),
              Cell(row.structuralSimilarity, digits: 4),
              Cell(row.networkEvaluationCount.map(String.init) ?? "–"),
              Cell(row.secondsPerClip, digits: 3),
              Cell(row.sampleCount.map(String.init) ?? "–"),
            ]
          })
    }
    let legend = """
      <p class="note">Fréchet distance: between Gaussians of features of a fixed random 3-D \
      convolution network, standardized by the real set; lower is better, and it is not FVD. It \
      falls with the number of samples: compare equal counts, beside real against real. Motion and \
      sharpness: mean |frame difference| and |vertical difference| as shares of the full range; \
      near those of real clips is good. Flicker score: VBench’s temporal flickering, 1 is a still. \
      PSNR and SSIM: against the held-out continuation of the first frame.</p>

      """
    return section("Samplers", tables.isEmpty ? "" : tables.joined() + legend)
  }

  private var samples: String {
    let figures = content.samples.map { sample -> String in
      var media = ""
      if let mp4 = sample.mp4 {
        media += "<video controls loop muted autoplay playsinline"
        media += " src=\"data:video/mp4;base64,\(Data(mp4).base64EncodedString())\"></video>"
      }
      if let png = sample.png {
        media += "<img alt=\"\(escape(sample.title))\""
        media += " src=\"data:image/png;base64,\(Data(png).base64EncodedString())\">"
      }
      let caption = sample.caption.isEmpty ? "" : "<br><small>\(escape(sample.caption))</small>"
      let isWide = sample.png != nil
      return "<figure class=\"sample\(isWide ? " wide" : "")\">\(media)"
        + "<figcaption>\(escape(sample.title))\(caption)</figcaption></figure>\n"
    }
    return section(
      "Samples", figures.isEmpty ? "" : "<div class=\"samples\">\n\(figures.joined())</div>\n")
  }

  private var phases: String {
    guard !content.phases.isEmpty else { return "" }
    return section(
      "Phases",
      grid(
        header: ["phase", "steps", "time in steps", "final loss", "tokens/s", "peak memory"],
        rows: content.phases.map { row in
          [
            Cell(row.phase), Cell(String(row.lastStep)), Cell(ReportText.duration(row.seconds)),
            Cell(row.finalLoss.map(ReportText.compact) ?? "–"),
            Cell(row.tokensPerSecond.map(ReportText.compact) ?? "–"),
            Cell(row.peakByteCount.map(ReportText.bytes) ?? "–"),
          ]
        }))
  }

  private var curves: String {
    let charts = content.curves.enumerated().map { LineChart(group: $1, identifier: $0).html }
    return section(
      "Curves", charts.isEmpty ? "" : "<div class=\"charts\">\n\(charts.joined())</div>\n")
  }

  /// Role × category with sums on both sides, in the order in which they first appear.
  private var memory: String {
    guard !content.memory.isEmpty else { return "" }
    let roles = content.memory.map(\.role).uniqued
    let categories = content.memory.map(\.category).uniqued
    func total(role: String?, category: String?) -> Cell {
      let entries = content.memory.filter {
        (role == nil || $0.role == role) && (category == nil || $0.category == category)
      }
      return Cell(entries.isEmpty ? "–" : ReportText.bytes(entries.reduce(0) { $0 + $1.byteCount }))
    }
    let rows = (roles.map { ($0, $0) } + [("all", nil)] as [(String, String?)]).map { label, role in
      [Cell(label)] + categories.map { total(role: role, category: $0) }
        + [total(role: role, category: nil)]
    }
    return section(
      "Memory", grid(header: ["role"] + categories + ["all"], rows: rows, hasTotalRow: true))
  }

  private var traffic: String {
    guard !content.traffic.isEmpty else { return "" }
    func row(_ name: String, raw: Int, wire: Int) -> [Cell] {
      [
        Cell(name), Cell(ReportText.bytes(raw)), Cell(ReportText.bytes(wire)),
        Cell(wire > 0 ? ReportText.fixed(Double(raw) / Double(wire), digits: 2) : "–"),
      ]
    }
    let rows =
      content.traffic.map {
        row($0.kind, raw: $0.rawByteCount, wire: $0.wireByteCount)
      } + [
        row(
          "all",
          raw: content.traffic.reduce(0) { $0 + $1.rawByteCount },
          wire: content.traffic.reduce(0) { $0 + $1.wireByteCount })
      ]
    return section(
      "Traffic",
      grid(header: ["kind", "raw", "on the wire", "ratio"], rows: rows, hasTotalRow: true))
  }

  private var environment: String {
    guard !content.environment.isEmpty else { return "" }
    return section(
      "Environment",
      grid(
        header: nil, rows: content.environment.map { [Cell($0.name), Cell($0.value)] },
        cssClass: "facts"))
  }

  private var configuration: String {
    guard !content.configuration.isEmpty else { return "" }
    return section(
      "Configuration",
      "<details><summary>Resolved configuration</summary>\n<pre>\(escape(content.configuration))</pre></details>\n"
    )
  }

  // MARK: Pieces

  private struct Cell {
    var text: String
    var isBest = false

    init(_ text: String) { self.text = text }

    init(_ value: Double?, digits: Int, isBest: Bool = false) {
      text = value.map { ReportText.fixed($0, digits: digits) } ?? "–"
      self.isBest = isBest && value != nil
    }
  }

  private func section(_ title: String, _ body: String) -> String {
    body.isEmpty ? "" : "<section><h2>\(escape(title))</h2>\n\(body)</section>\n"
  }

  /// A table whose first column heads its rows.
  private func grid(
    header: [String]?, rows: [[Cell]], hasTotalRow: Bool = false, cssClass: String = ""
  ) -> String {
    var result = "<div class=\"scroll\"><table class=\"\(cssClass)\">\n"
    if let header {
      result += "<thead><tr>" + header.map { "<th scope=\"col\">\(escape($0))</th>" }.joined()
      result += "</tr></thead>\n"
    }
    result += "<tbody>\n"
    for (index, row) in rows.enumerated() {
      let isTotal = hasTotalRow && index == rows.count - 1
      result += isTotal ? "<tr class=\"total\">" : "<tr>"
      for (column, cell) in row.enumerated() {
        let text = escape(cell.text)
        result +=
          column == 0
          ? "<th scope=\"row\">\(text)</th>"
          : cell.isBest ? "<td class=\"best\">\(text)</td>" : "<td>\(text)</td>"
      }
      result += "</tr>\n"
    }
    return result + "</tbody></table></div>\n"
  }

  private func escape(_ text: String) -> String { ReportText.escaped(text) }
}

extension [String] {
  /// Each string once, where it first appears.
  fileprivate var uniqued: [String] {
    var seen: Set<String> = []
    return filter { seen.insert($0).inserted }
  }
}
