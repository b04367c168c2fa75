// Sizes and work in closed form; nothing is allocated.
//
// Source: specification §5, checked against the reported 14.57 P of 100 guided steps (FasterCache,
// 2410.19355, Table 1).

import Autodiff

extension VchitectConfiguration {
  /// Multiply-adds of the blocks in one forward pass over one clip.
  ///
  /// As the released code runs it, that is, with the last block's text rows and with the temporal branch
  /// of a single frame. Neither reaches the output, and `VchitectTransformer` leaves both out.
  /// - Parameters:
  ///   - tokensPerFrame: S.
  ///   - textCount: T.
  package func multiplyAddCount(frames: Int, tokensPerFrame: Int, textCount: Int) -> Int {
    let square = width * width
    let jointCount = tokensPerFrame + textCount
    let mlp = 2 * Self.mlpRatio
    let image: Int
    let text: Int
    let lastText: Int
    var attention = 2 * frames * jointCount * jointCount + 2 * jointCount * frames * frames
    var shared = 0
    switch variant {
    case .v1: (image, text, lastText) = (3 + 1 + mlp, 3 + 1 + mlp, 3)
    case .v2:
      (image, text, lastText) = (7 + 2 + mlp, 3 + 2 + mlp, 3 + 1)
      shared = frames * jointCount
      attention += 2 * frames * jointCount * textCount
    }
    let block = (frames * tokensPerFrame * image + shared) * square + attention * width
    return blockCount * block
      + frames * textCount * ((blockCount - 1) * text + lastText) * square
  }
}
