import Foundation
import Testing

@testable import Exchange

struct ExchangeStatisticsTests {
  private func example() -> ExchangeStatistics {
    var statistics = ExchangeStatistics()
    statistics[.gradients].rawByteCount = 600
    statistics[.gradients].wireByteCount = 500
    statistics[.movingAverages].wireByteCount = 100
    statistics[.movingAverages].rawByteCount = 180
    return statistics
  }

  @Test func `taking the statistics starts them from zero`() {
    var statistics = example()
    #expect(statistics.take() == example())
    #expect(statistics == ExchangeStatistics())
  }

  @Test func `the total adds up the kinds`() {
    #expect(example().total.rawByteCount == 780)
    #expect(example().total.ratio == 1.3)
    #expect(ExchangeStatistics().total.ratio == 1)
  }

  @Test func `statistics survive as JSON with the kinds as keys`() throws {
    let json = try JSONEncoder().encode(example())
    #expect(String(decoding: json, as: UTF8.self).contains("\"gradients\":{"))
    #expect(try JSONDecoder().decode(ExchangeStatistics.self, from: json) == example())
  }
}

struct ExchangeConfigurationTests {
  @Test func `a bucket size out of bounds is reported with its key`() {
    #expect(ExchangeConfiguration().validate() == [])
    #expect(ExchangeConfiguration(codec: .off, bucketByteCount: 64 << 10).validate() == [])
    for byteCount in [-1, 0, (64 << 10) - 1, (1 << 30) + 1] {
      let problems = ExchangeConfiguration(codec: .auto, bucketByteCount: byteCount).validate()
      #expect(problems.count == 1 && problems[0].hasPrefix("exchange.bucketByteCount"))
    }
  }
}
