// Our own mistakes end the process with a message, in release builds too: optimized code keeps the
// trap of `precondition` but drops its message, and a job of many ranks then dies without a word.

/// Ends the process unless `condition` holds; prints `file:line: Fatal error: message` on standard
/// error first. For our mistakes only: what users and the world do wrong is thrown.
///
/// - Parameter message: names both sides ("q has 12 heads, k has 8"); built only on failure.
@inlinable
package func require(
  _ condition: @autoclosure () -> Bool, _ message: @autoclosure () -> String,
  file: StaticString = #fileID, line: UInt = #line
) {
  guard condition() else { trap(message(), file: file, line: line) }
}

/// Ends the process and prints `file:line: Fatal error: message` on standard error first.
@inlinable
package func trap(
  _ message: @autoclosure () -> String, file: StaticString = #fileID, line: UInt = #line
) -> Never {
  fatalError(message(), file: file, line: line)
}
