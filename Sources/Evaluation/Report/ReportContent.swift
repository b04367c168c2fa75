// Everything that the report of a run shows, as plain values.

/// The content of one report; an empty part leaves its section out.
package struct ReportContent: Sendable {
  package var title: String
  /// One line under the title: run, date, what was trained.
  package var subtitle: String
  package var samplerTables: [SamplerTable]
  package var samples: [Sample]
  package var curves: [CurveGroup]
  package var phases: [PhaseRow]
  package var memory: [MemoryEntry]
  package var traffic: [TrafficEntry]
  /// The resolved configuration, YAML.
  package var configuration: String
  package var environment: [Fact]

  package init(
    title: String, subtitle: String = "", samplerTables: [SamplerTable] = [],
    samples: [Sample] = [], curves: [CurveGroup] = [], phases: [PhaseRow] = [],
    memory: [MemoryEntry] = [], traffic: [TrafficEntry] = [], configuration: String = "",
    environment: [Fact] = []
  ) {
    self.title = title
    self.subtitle = subtitle
    self.samplerTables = samplerTables
    self.samples = samples
    self.curves = curves
    self.phases = phases
    self.memory = memory
    self.traffic = traffic
    self.configuration = configuration
    self.environment = environment
  }
}

extension ReportContent {
  /// Samplers measured on the same clips, with a note that says on which.
  package struct SamplerTable: Codable, Hashable, Sendable {
    package var title: String
    package var note: String
    package var rows: [SamplerRow]

    package init(title: String, note: String = "", rows: [SamplerRow]) {
      self.title = title
      self.note = note
      self.rows = rows
    }
  }

  /// One sampler's numbers; what was not measured is nil.
  package struct SamplerRow: Codable, Hashable, Sendable {
    package var name: String
    /// Random-feature Fréchet distance, standardized by the real set; lower is better.
    package var frechetDistance: Double?
    /// Mean |frame difference| and |vertical difference| as shares of the full range.
    package var motion: Double?
    package var sharpness: Double?
    /// VBench's temporal flickering score, 1 for a still.
    package var flicker: Double?
    /// Against the held-out continuation of the first frame.
    package var peakSignalToNoise: Double?
    package var structuralSimilarity: Double?
    package var networkEvaluationCount: Int?
    package var secondsPerClip: Double?
    package var sampleCount: Int?

    package init(
      name: String, frechetDistance: Double? = nil, motion: Double? = nil,
      sharpness: Double? = nil, flicker: Double? = nil, peakSignalToNoise: Double? = nil,
      structuralSimilarity: Double? = nil, networkEvaluationCount: Int? = nil,
      secondsPerClip: Double? = nil, sampleCount: Int? = nil
    ) {
      self.name = name
      self.frechetDistance = frechetDistance
      self.motion = motion
      self.sharpness = sharpness
      self.flicker = flicker
      self.peakSignalToNoise = peakSignalToNoise
      self.structuralSimilarity = structuralSimilarity
      self.networkEvaluationCount = networkEvaluationCount
      self.secondsPerClip = secondsPerClip
      self.sampleCount = sampleCount
    }
  }

  /// A video, a sheet of frames, or both, of one sampler. Files are embedded.
  package struct Sample: Hashable, Sendable {
    package var title: String
    package var caption: String
    package var mp4: [UInt8]?
    package var png: [UInt8]?

    package init(title: String, caption: String = "", mp4: [UInt8]? = nil, png: [UInt8]? = nil) {
      self.title = title
      self.caption = caption
      self.mp4 = mp4
      self.png = png
    }
  }

  /// One chart: series over the same horizontal axis.
  package struct CurveGroup: Hashable, Sendable {
    package var title: String
    package var horizontalLabel: String
    package var series: [Series]

    package init(title: String, horizontalLabel: String = "step", series: [Series]) {
      self.title = title
      self.horizontalLabel = horizontalLabel
      self.series = series
    }
  }

  package struct Series: Hashable, Sendable {
    package var name: String
    package var points: [Point]

    package init(name: String, points: [Point]) {
      self.name = name
      self.points = points
    }
  }

  package struct Point: Hashable, Sendable {
    package var x: Double
    package var y: Double

    package init(x: Double, y: Double) {
      self.x = x
      self.y = y
    }
  }

  /// A phase of training as its metrics tell it.
  package struct PhaseRow: Hashable, Sendable {
    package var phase: String
    package var lastStep: Int
    package var seconds: Double
    /// Mean of the last tenth of the steps.
    package var finalLoss: Double?
    /// Mean over all steps.
    package var tokensPerSecond: Double?
    package var peakByteCount: Int?

    package init(
      phase: String, lastStep: Int, seconds: Double, finalLoss: Double? = nil,
      tokensPerSecond: Double? = nil, peakByteCount: Int? = nil
    ) {
      self.phase = phase
      self.lastStep = lastStep
      self.seconds = seconds
      self.finalLoss = finalLoss
      self.tokensPerSecond = tokensPerSecond
      self.peakByteCount = peakByteCount
    }
  }

  /// Bytes of one role and category, over all ranks; entries of the same cell add up.
  package struct MemoryEntry: Hashable, Sendable {
    package var role: String
    package var category: String
    package var byteCount: Int

    package init(role: String, category: String, byteCount: Int) {
      self.role = role
      self.category = category
      self.byteCount = byteCount
    }
  }

  /// What one kind of message moved over the whole run.
  package struct TrafficEntry: Hashable, Sendable {
    package var kind: String
    package var rawByteCount: Int
    package var wireByteCount: Int

    package init(kind: String, rawByteCount: Int, wireByteCount: Int) {
      self.kind = kind
      self.rawByteCount = rawByteCount
      self.wireByteCount = wireByteCount
    }
  }

  package struct Fact: Hashable, Sendable {
    package var name: String
    package var value: String

    package init(_ name: String, _ value: String) {
      self.name = name
      self.value = value
    }
  }
}
