// What went wrong, in words for people.

import Foundation

/// The words of an error for the middle of a sentence. Ours say them themselves; Foundation's
/// descriptions show their whole structure, so of those only the localized sentence is taken.
package func words(of error: any Error) -> String {
  switch error {
  case _ where error is CocoaError || error is POSIXError || type(of: error) is NSError.Type:
    let sentence = error.localizedDescription
    return sentence.hasSuffix(".") ? String(sentence.dropLast()) : sentence
  default: return "\(error)"
  }
}
