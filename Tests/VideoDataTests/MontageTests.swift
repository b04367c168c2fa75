import Testing

@testable import VideoData

@Suite struct MontageTests {
  @Test func `clips play side by side, in rows, and unused places are black`() {
    // Clip n has one row of two pixels, n + 10 in its first frame and n + 20 in its second.
    let clips = (1...3).map { number in
      Video(
        frameCount: 2, height: 1, width: 2,
        bytes: [10, 20].flatMap { [UInt8](repeating: UInt8(number + $0), count: 6) })
    }
    let grid = Montage.grid(clips, columnCount: 2)
    #expect([grid.frameCount, grid.height, grid.width] == [2, 2, 4])
    let expected: [UInt8] = [11, 12, 13, 0, 21, 22, 23, 0]
    #expect(grid.bytes == expected.flatMap { [UInt8](repeating: $0, count: 6) })
  }
}
