// A talking face drawn by formula: what the main job learns from when there is no video, and what
// tests use. A person (colors, build, habits) and every frame are pure functions of (seed, person,
// frame): head and mouth move as sums of sinusoids with drawn phases, eyes blink now and then.
//
// Coordinates: the frame's middle is (0, 0), its height is 1, y points down. Every shape is an
// ellipse with an edge one pixel soft, painted back to front.

import Basics
import Foundation

package struct ProceduralFace: Sendable {
  private typealias Color = SIMD3<Double>

  /// A slow movement: Σ amplitude · sin(2π frequency t + phase), amplitudes adding up to 1.
  private struct Wobble {
    let terms: [(amplitude: Double, frequency: Double, phase: Double)]

    init(_ stream: RandomStream, at element: Int, slowest: Double, fastest: Double) {
      terms = (0..<3).map { index in
        let share = stream.uniform(at: element + 2 * index)
        return (
          [0.5, 0.3, 0.2][index], slowest * pow(fastest / slowest, (Double(index) + share) / 3),
          2 * .pi * stream.uniform(at: element + 2 * index + 1)
        )
      }
    }

    func value(at time: Double) -> Double {
      terms.reduce(0) { $0 + $1.amplitude * sin(2 * .pi * $1.frequency * time + $1.phase) }
    }
  }

  /// Frames per second that the movements are made for.
  package static let framesPerSecond = 25.0

  private let skin, hair, shirt, wall, wallEdge, lips, iris: Color
  private let headWidth, headHeight, hairLength, eyeGap, mouthWidth: Double
  private let blinkPeriod, blinkPhase, stripeCount: Double
  private let sway, nod, turn, mouth, speech, brows: Wobble

  package init(seed: UInt64, person: Int) {
    let stream = RandomStream(seed: seed, purpose: .proceduralVideo, sample: person)
    func between(_ low: Double, _ high: Double, _ element: Int) -> Double {
      low + (high - low) * stream.uniform(at: element)
    }
    func color(_ element: Int, from low: Double, to high: Double) -> Color {
      Color(
        between(low, high, element), between(low, high, element + 1),
        between(low, high, element + 2))
    }
    let tone = between(0, 1, 0)
    skin = Color(0.42, 0.27, 0.19) * (1 - tone) + Color(0.95, 0.78, 0.67) * tone
    lips = skin * Color(0.85, 0.55, 0.55)
    let blond = between(0, 1, 1)
    hair = Color(0.10, 0.07, 0.05) * (1 - blond) + Color(0.62, 0.45, 0.24) * blond
    shirt = color(2, from: 0.1, to: 0.8)
    wall = color(5, from: 0.25, to: 0.85)
    wallEdge = color(8, from: 0.15, to: 0.7)
    iris = color(11, from: 0.1, to: 0.45)
    headWidth = between(0.17, 0.21, 14)
    headHeight = between(0.25, 0.29, 15)
    hairLength = between(0, 0.22, 16)
    eyeGap = between(0.40, 0.48, 17)
    mouthWidth = between(0.36, 0.48, 18)
    blinkPeriod = between(2.2, 4.5, 19)
    blinkPhase = between(0, 1, 20)
    stripeCount = between(2, 7, 21).rounded()
    sway = Wobble(stream, at: 24, slowest: 0.08, fastest: 0.6)
    nod = Wobble(stream, at: 32, slowest: 0.10, fastest: 0.8)
    turn = Wobble(stream, at: 40, slowest: 0.07, fastest: 0.5)
    mouth = Wobble(stream, at: 48, slowest: 1.5, fastest: 4.5)
    speech = Wobble(stream, at: 56, slowest: 0.12, fastest: 0.5)
    brows = Wobble(stream, at: 64, slowest: 0.15, fastest: 0.9)
  }

  /// The first `frameCount` frames at `height`×`width`.
  package func draw(frameCount: Int, height: Int = 72, width: Int = 88) -> Video {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(frameCount * height * width * 3)
    for frame in 0..<frameCount {
      let shapes = shapes(at: Double(frame) / Self.framesPerSecond)
      for y in 0..<height {
        let v = (Double(y) + 0.5) / Double(height) - 0.5
        for x in 0..<width {
          let u = (Double(x) + 0.5 - Double(width) / 2) / Double(height)
          var color = background(u: u, v: v)
          for shape in shapes { shape.paint(&color, u: u, v: v, pixel: 1 / Double(height)) }
          for channel in 0..<3 {
            bytes.append(UInt8((min(max(color[channel], 0), 1) * 255).rounded()))
          }
        }
      }
    }
    return Video(frameCount: frameCount, height: height, width: width, bytes: bytes)
  }

  private func background(u: Double, v: Double) -> Color {
    let stripe = 0.5 + 0.5 * tanh(4 * sin(2 * .pi * stripeCount * (u / 1.25 + 0.5)))
    let shade = 0.85 + 0.15 * (0.5 - v)
    return (wall * (1 - 0.35 * stripe) + wallEdge * (0.35 * stripe)) * shade
  }

  private struct Ellipse {
    let u, v, halfWidth, halfHeight: Double
    let color: Color
    /// Nothing above this height is painted (of eyelids, of the front hair below it).
    var top = -Double.infinity
    var bottom = Double.infinity

    func paint(_ under: inout Color, u: Double, v: Double, pixel: Double) {
      let du = (u - self.u) / halfWidth
      let dv = (v - self.v) / halfHeight
      let squared = du * du + dv * dv
      guard squared < 9 else { return }
      let inside = (1 - squared.squareRoot()) * min(halfWidth, halfHeight) / pixel + 0.5
      let below = (v - top) / pixel + 0.5
      let above = (bottom - v) / pixel + 0.5
      let cover = min(max(min(inside, below, above), 0), 1)
      under += (color - under) * cover
    }
  }

  /// Back to front.
  private func shapes(at time: Double) -> [Ellipse] {
    let headU = 0.07 * sway.value(at: time)
    let headV = -0.06 + 0.035 * nod.value(at: time)
    let look = turn.value(at: time) * 0.22 * headWidth
    let talking = min(max(0.55 + 0.9 * speech.value(at: time), 0), 1)
    let opening = talking * (0.5 + 0.5 * mouth.value(at: time))
    let blinkTime = (time / blinkPeriod + blinkPhase).truncatingRemainder(dividingBy: 1)
    let distance = abs(blinkTime - 0.5) * blinkPeriod
    let lid = min(max(1 - distance / 0.14, 0), 1)
    let eyeV = headV - 0.02 + 0.01 * nod.value(at: time + 0.2)
    let mouthV = headV + 0.52 * headHeight
    let brow = 0.02 * brows.value(at: time)
    let dark = Color(repeating: 0.08)

    var result = [
      Ellipse(
        u: headU, v: headV - 0.03 + hairLength / 2, halfWidth: headWidth * 1.22,
        halfHeight: headHeight * 1.12 + hairLength / 2, color: hair),
      Ellipse(u: headU * 0.5, v: 0.62, halfWidth: 0.46, halfHeight: 0.34, color: shirt),
      Ellipse(
        u: headU * 0.7, v: headV + 0.3, halfWidth: headWidth * 0.5, halfHeight: 0.14,
        color: skin * 0.82),
      Ellipse(u: headU, v: headV, halfWidth: headWidth, halfHeight: headHeight, color: skin),
      Ellipse(
        u: headU + look * 0.3, v: headV - 0.04, halfWidth: headWidth * 1.08,
        halfHeight: headHeight * 1.02, color: hair, bottom: headV - 0.55 * headHeight),
      Ellipse(
        u: headU + look * 1.2, v: headV + 0.2 * headHeight, halfWidth: 0.02,
        halfHeight: 0.2 * headHeight, color: skin * 0.84),
    ]
    for side in [-1.0, 1.0] {
      let eyeU = headU + look + side * eyeGap * headWidth
      let openHeight = max(0.026 * (1 - lid), 0.004)
      result += [
        Ellipse(
          u: eyeU, v: eyeV, halfWidth: 0.042, halfHeight: openHeight,
          color: lid > 0.8 ? skin * 0.6 : Color(repeating: 0.93)),
        Ellipse(
          u: eyeU + look * 0.25, v: eyeV, halfWidth: 0.019, halfHeight: min(0.021, openHeight),
          color: lid > 0.8 ? skin * 0.6 : iris),
        Ellipse(
          u: eyeU, v: eyeV - 0.055 - brow, halfWidth: 0.05, halfHeight: 0.011, color: hair * 0.8),
      ]
    }
    let gape = 0.008 + 0.042 * opening
    let mouthHalfWidth = mouthWidth * headWidth * (1.08 - 0.2 * opening)
    result += [
      Ellipse(
        u: headU + look, v: mouthV, halfWidth: mouthHalfWidth, halfHeight: gape + 0.014,
        color: lips),
      Ellipse(
        u: headU + look, v: mouthV, halfWidth: mouthHalfWidth * 0.82, halfHeight: gape,
        color: dark),
      Ellipse(
        u: headU + look, v: mouthV - gape * 0.3, halfWidth: mouthHalfWidth * 0.6,
        halfHeight: gape * 0.5, color: Color(repeating: 0.9), bottom: mouthV - gape * 0.3),
    ]
    return result
  }
}
