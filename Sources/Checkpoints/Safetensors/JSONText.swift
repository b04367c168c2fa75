// A strict JSON reader for headers. Foundation's keeps only one of two equal names, and the format
// forbids two: so this one keeps the members of an object as the list that they are.

/// A JSON value; of the numbers only those that a header uses, unsigned integers, keep their value.
enum JSONValue {
  case object([(name: String, value: JSONValue)])
  case array([JSONValue])
  case string(String)
  case unsigned(Int)
  /// A negative or fractional number, a boolean or null.
  case other
}

/// Where and why a text is not JSON.
struct JSONSyntaxError: Error, CustomStringConvertible {
  let byte: Int
  let reason: String
  var description: String { "\(reason) at byte \(byte)" }
}

struct JSONText {
  private let bytes: [UInt8]
  private var position = 0
  /// A header nests three deep; more than this is an attack on the stack.
  private static let deepest = 32

  /// The value that `bytes` hold, with nothing but white space after it.
  static func parse(_ bytes: [UInt8]) throws(JSONSyntaxError) -> JSONValue {
    var text = JSONText(bytes: bytes)
    let value = try text.value(depth: 0)
    text.skipSpace()
    guard text.position == bytes.count else { throw text.error("text after the end") }
    return value
  }

  private init(bytes: [UInt8]) { self.bytes = bytes }

  private func error(_ reason: String) -> JSONSyntaxError {
    JSONSyntaxError(byte: position, reason: reason)
  }

  private var next: UInt8? { position < bytes.count ? bytes[position] : nil }

  private mutating func skipSpace() {
    while let byte = next, byte == 0x20 || byte == 0x09 || byte == 0x0A || byte == 0x0D {
      position += 1
    }
  }

  private mutating func take(_ character: Unicode.Scalar) -> Bool {
    skipSpace()
    guard next == UInt8(ascii: character) else { return false }
    position += 1
    return true
  }

  private mutating func expect(_ character: Unicode.Scalar) throws(JSONSyntaxError) {
    guard take(character) else { throw error("'\(character)' missing") }
  }

  private mutating func value(depth: Int) throws(JSONSyntaxError) -> JSONValue {
    guard depth < Self.deepest else { throw error("nested too deeply") }
    skipSpace()
    switch next {
    case UInt8(ascii: "{"): return .object(try members(depth: depth))
    case UInt8(ascii: "["): return .array(try elements(depth: depth))
    case UInt8(ascii: "\""): return .string(try string())
    case UInt8(ascii: "t"): return try word("true")
    case UInt8(ascii: "f"): return try word("false")
    case UInt8(ascii: "n"): return try word("null")
    default: return try number()
    }
  }

  private mutating func members(depth: Int) throws(JSONSyntaxError) -> [(
    name: String, value: JSONValue
  )] {
    try expect("{")
    var result: [(name: String, value: JSONValue)] = []
    if take("}") { return result }
    repeat {
      skipSpace()
      let name = try string()
      try expect(":")
      result.append((name, try value(depth: depth + 1)))
    } while take(",")
    try expect("}")
    return result
  }

  private mutating func elements(depth: Int) throws(JSONSyntaxError) -> [JSONValue] {
    try expect("[")
    var result: [JSONValue] = []
    if take("]") { return result }
    repeat { result.append(try value(depth: depth + 1)) } while take(",")
    try expect("]")
    return result
  }

  private mutating func word(_ text: String) throws(JSONSyntaxError) -> JSONValue {
    for byte in text.utf8 {
      guard next == byte else { throw error("unknown word") }
      position += 1
    }
    return .other
  }

  private mutating func number() throws(JSONSyntaxError) -> JSONValue {
    let start = position
    while let byte = next, "+-.0123456789eE".utf8.contains(byte) { position += 1 }
    let text = String(decoding: bytes[start..<position], as: UTF8.self)
    guard let magnitude = Double(text), text.first?.isNumber == true || text.first == "-" else {
      throw JSONSyntaxError(byte: start, reason: "not a value")
    }
    if text.utf8.allSatisfy({ $0 >= UInt8(ascii: "0") && $0 <= UInt8(ascii: "9") }) {
      guard text.count == 1 || text.first != "0" else { throw error("number with a leading zero") }
      guard let whole = Int(text) else { throw error("number \(magnitude) too large") }
      return .unsigned(whole)
    }
    return .other
  }

  private mutating func string() throws(JSONSyntaxError) -> String {
    guard next == UInt8(ascii: "\"") else { throw error("'\"' missing") }
    position += 1
    var units: [UInt8] = []
    while let byte = next {
      position += 1
      switch byte {
      case UInt8(ascii: "\""):
        guard let result = String(validating: units, as: UTF8.self) else {
          throw error("string that is not UTF-8")
        }
        return result
      case UInt8(ascii: "\\"): units.append(contentsOf: try escape())
      case 0..<0x20: throw error("control character in a string")
      default: units.append(byte)
      }
    }
    throw error("string without an end")
  }

  private mutating func escape() throws(JSONSyntaxError) -> [UInt8] {
    guard let byte = next else { throw error("string without an end") }
    position += 1
    switch byte {
    case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): return [byte]
    case UInt8(ascii: "b"): return [0x08]
    case UInt8(ascii: "f"): return [0x0C]
    case UInt8(ascii: "n"): return [0x0A]
    case UInt8(ascii: "r"): return [0x0D]
    case UInt8(ascii: "t"): return [0x09]
    case UInt8(ascii: "u"):
      var units = [try hexUnit()]
      if UTF16.isLeadSurrogate(units[0]), bytes[position...].starts(with: "\\u".utf8) {
        position += 2
        units.append(try hexUnit())
      }
      guard let text = String(validating: units, as: UTF16.self) else {
        throw error("half a surrogate pair")
      }
      return Array(text.utf8)
    default: throw error("unknown escape")
    }
  }

  private mutating func hexUnit() throws(JSONSyntaxError) -> UInt16 {
    var unit: UInt16 = 0
    for _ in 0..<4 {
      guard let byte = next, let digit = Character(Unicode.Scalar(byte)).hexDigitValue else {
        throw error("four hexadecimal digits expected")
      }
      unit = unit << 4 | UInt16(digit)
      position += 1
    }
    return unit
  }
}
