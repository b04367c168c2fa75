// Layers whose weights may be cut among ranks without changing a bit: sums over what is cut are made in slices of heads,
// hidden units or columns, and the slices meet in the one tree (contract 4.2), on one rank as on many.
//
// Outputs of column-parallel layers do not depend on each other. The gradient of their input does: all layers that
// read it leave theirs with it, and where the way back comes to the input each slice is one product over all
// of them. Outputs of a row-parallel layer are products of slices. What every rank has whole (biases of row-parallel
// layers, one factor of a low-rank update) meets own rows only, like the layers between blocks.
// Source: rule 2 of the specification of distributed systems, §6; Megatron-LM (1909.08053) §3.

package import DenseKernels
import MeshLayout
import Tensors

/// How a layer is cut into slices, and who has the others.
package struct WeightSlices<Scalar: KernelScalar> {
  /// Own slices, a power of two of them.
  package let count: Int
  /// Nil: this rank has all slices, and all rows.
  package let exchange: SliceExchange<Scalar>?

  package init(count: Int, exchange: SliceExchange<Scalar>? = nil) {
    self.count = count
    self.exchange = exchange
  }
}

/// Between own rows, which no other rank of a group has, and the rows of the group, which all compute with. The
/// elements of a row are as many as the buffers say.
package struct SliceExchange<Scalar: KernelScalar> {
  /// All dimensions of own rows, and of the group's, but the width.
  package let ownShape: [Int]
  package let shape: [Int]
  /// Own rows → the group's.
  package let gather: (_ own: Buffer<Scalar>, _ all: Buffer<Scalar>) -> Void
  /// What the ranks have for the group's rows → the sum over the ranks for own rows, in the tree.
  package let sum: (_ all: Buffer<Scalar>, _ own: Buffer<Scalar>) -> Void
  /// The same of blocks of rows: of all blocks of the group → of those that own rows consist of.
  package let sumBlocks: (_ all: Buffer<Scalar>, _ own: Buffer<Scalar>) -> Void
  /// How many ranks there are.
  package let degree: Int

  package init(
    degree: Int, ownShape: [Int], shape: [Int],
    gather: @escaping (_ own: Buffer<Scalar>, _ all: Buffer<Scalar>) -> Void,
    sum: @escaping (_ all: Buffer<Scalar>, _ own: Buffer<Scalar>) -> Void,
    sumBlocks: @escaping (_ all: Buffer<Scalar>, _ own: Buffer<Scalar>) -> Void
  ) {
    self.degree = degree
    self.ownShape = ownShape
    self.shape = shape
    self.gather = gather
    self.sum = sum
    self.sumBlocks = sumBlocks
  }
}

/// What column-parallel layers leave with their input on the way back.
final class ColumnGradients<Scalar: KernelScalar> {
  struct Term {
    let outputGradient: Tensor<Scalar>
    let weight: Parameter<Scalar>
    let update: LowRankUpdate<Scalar>?
    /// Of the layer's inputs, and which of them is the lower factor.
    let gradients: InputGradients<Scalar>
    let downPlace: Int

    var wantsDown: Bool { update != nil && gradients.isWanted(downPlace) }
  }

  private let isInputTracked: Bool
  fileprivate private(set) var terms: [Term] = []

  init(isInputTracked: Bool) { self.isInputTracked = isInputTracked }

  func add(_ term: Term) {
    if isInputTracked || term.wantsDown { terms.append(term) }
  }

  fileprivate func take() -> [Term] {
    defer { terms = [] }
    return terms
  }
}

/// One of the row-parallel layers whose outputs are summed.
package struct RowLayer<Scalar: KernelScalar> {
  /// Side by side.
  let parts: [Value<Scalar>]
  let weight: Parameter<Scalar>
  let bias: Parameter<Scalar>?
  private let update: LowRankUpdate<Scalar>?

  package init(
    parts: [Value<Scalar>], weight: Parameter<Scalar>, bias: Parameter<Scalar>?,
    update: LowRankUpdate<Scalar>?
  ) {
    self.parts = parts
    self.weight = weight
    self.bias = bias
    self.update = update
  }

  /// K_p.
  var widths: [Int] { parts.map { $0.shape.last ?? 1 } }
  var activeUpdate: LowRankUpdate<Scalar>? { update.flatMap { $0.scale == 0 ? nil : $0 } }

  func requireSizes(leading: [Int], outputWidth: Int) {
    precondition(
      weight.value.shape[0] == outputWidth
        && widths.reduce(0, +) == weight.value.count / outputWidth
        && parts.allSatisfy { Array($0.shape.dropLast()) == leading },
      "\(weight.name) of \(weight.value.shape), the input is \(parts.map(\.shape))")
  }
}

/// What the way back of such a layer needs.
private struct RowLayerRecord<Scalar: KernelScalar> {
  let inputs: KeptInputs<Scalar>
  let weight: Parameter<Scalar>
  let update: LowRankUpdate<Scalar>?
  /// x Aᵀ of own rows, scaled.
  let hidden: Tensor<Scalar>?
  /// Among the operation's inputs: of the first part, of the weight, of the bias and of the lower factor.
  let firstPlace: Int
  let weightPlace: Int
  let biasPlace: Int?
  let downPlace: Int

  init(_ layer: RowLayer<Scalar>, hidden: Tensor<Scalar>?, rowCount: Int, firstPlace: Int) {
    inputs = KeptInputs(layer.parts, rowCount: rowCount, widths: layer.widths)
    (weight, update) = (layer.weight, layer.activeUpdate)
    self.hidden = hidden
    self.firstPlace = firstPlace
    let weightPlace = firstPlace + layer.parts.count
    self.weightPlace = weightPlace
    biasPlace = layer.bias == nil ? nil : weightPlace + 1
    downPlace = weightPlace + (layer.bias == nil ? 1 : 2)
  }
}

extension Tape {
  // MARK: Column-parallel layers

  /// Own rows → the rows that column-parallel layers run on. Only `linear` may read the result.
  ///
  /// Rows of others are not kept for the way back but gathered again (2205.05198 §4.2.2), unless that follows at once.
  /// - Shapes: own shape × D → shape × D.
  /// - Parameter ownSums: gradients of what all ranks have, over own rows.
  package func columnInput(
    _ x: Value<Scalar>, _ slices: WeightSlices<Scalar>, ownSums: RowSums
  ) -> Value<Scalar> {
    let own = x.tensor
    let width = x.shape[x.shape.count - 1]
    func gathered() -> Tensor<Scalar> {
      guard let exchange = slices.exchange else { return own }
      let all = result(exchange.shape + [width])
      exchange.gather(own.buffer, all.buffer)
      return all
    }
    let all = gathered()
    guard isRecording else { return Value(constant: all) }
    let columns = ColumnGradients<Scalar>(isInputTracked: x.isTracked)
    onWayBack(of: [x]) { [unowned self] gradients in
      finish(columns.take(), own, gradients, slices, ownSums)
    }
    let value = ungraded(all, isTracked: x.isTracked).read(by: columns)
    guard slices.exchange != nil, !isRecomputing else { return value }
    return value.remade { [unowned self] in
      guard let exchange = slices.exchange else { return own }
      let again = result(exchange.shape + [width])
      exchange.gather(own.buffer, again.buffer)
      return again
    }
  }

  /// dx += Σ_s Σ_i dy_is W_is + Σ_i scale_i dh_i A_i with dh_i = Σ_s dy_is B_is, of layers i in slices s; dA_i += dh_iᵀ x.
  private func finish(
    _ terms: [ColumnGradients<Scalar>.Term], _ own: Tensor<Scalar>,
    _ gradients: InputGradients<Scalar>, _ slices: WeightSlices<Scalar>, _ ownSums: RowSums
  ) {
    guard !terms.isEmpty else { return }
    let width = own.shape[own.shape.count - 1]
    let (ownCount, count) = rowCounts(own.count / width, slices)
    let hidden = terms.map { term in
      term.update.flatMap { update -> Tensor<Scalar>? in
        guard gradients.isWanted(0) || term.wantsDown else { return nil }
        let rank = update.up.value.shape[1]
        return sum(of: rank, slices, rows: (ownCount, count), scale: Scalar(update.scale)) {
          slice in
          [slice.product(of: term.outputGradient, rows: count, by: update.up.value)]
        }
      }
    }
    if let dx = gradients.place(of: 0) {
      let products = { (slice: OwnSlice) in
        terms.map { slice.product(of: $0.outputGradient, rows: count, by: $0.weight.value) }
      }
      let sum =
        dx.accumulates
        ? scratch([ownCount, width]) : Tensor(dx.buffer, shape: [ownCount, width])
      self.sum(into: sum, slices, rows: (ownCount, count), scale: 1, products)
      let target = Matrix(sum.buffer, rows: ownCount, columns: width)
      for case (let update?, let hidden?) in zip(terms.map(\.update), hidden) {
        Scalar.multiply(
          Matrix(hidden.buffer, rows: ownCount, columns: hidden.shape[1]),
          Matrix(update.down.value.buffer, rows: hidden.shape[1], columns: width), scale: 1,
          accumulating: true, precision: precision, choice: .sameForParts, into: target)
      }
      if dx.accumulates { Scalar.add(1, sum.buffer, to: dx.buffer) }
    }
    let input = Matrix(own.buffer, rows: ownCount, columns: width)
    for (term, hidden) in zip(terms, hidden) {
      guard let hidden, term.update != nil,
        let down = term.gradients.place(of: term.downPlace)
      else { continue }
      addProducts(
        Matrix(hidden.buffer, rows: ownCount, columns: hidden.shape[1]), [input], [width],
        to: down, ownSums)
    }
  }

  // MARK: Row-parallel layers

  /// The sum of row-parallel layers: own columns of the group's rows → own rows of all outputs,
  /// y = Σ_l (Σ_s Σ_p x_lps W_lpsᵀ + bias_l + scale_l · (Σ_s Σ_p x_lps A_lpsᵀ) B_lᵀ), slices s in the tree, each of them one
  /// product over all layers l.
  /// - Shapes: x_lp shape × K_lp with Σ_p K_lp = K_l, weights [D, K_l], biases [D] → own shape × D.
  /// - Parameters:
  ///   - sums: gradients of what is cut, over the group's rows.
  ///   - ownSums: gradients of what all ranks have, over own rows.
  package func rowLinear(
    _ layers: [RowLayer<Scalar>], _ slices: WeightSlices<Scalar>, sums: RowSums, ownSums: RowSums
  ) -> Value<Scalar> {
    let outputWidth = layers[0].weight.value.shape[0]
    let leading = Array(layers[0].parts[0].shape.dropLast())
    for layer in layers { layer.requireSizes(leading: leading, outputWidth: outputWidth) }
    let count = leading.reduce(1, *)
    let ownCount = slices.exchange.map { $0.ownShape.reduce(1, *) } ?? count
    func products(_ layer: RowLayer<Scalar>, _ matrix: Tensor<Scalar>, _ slice: OwnSlice)
      -> [Product]
    {
      let columns = columns(of: matrix, rows: matrix.shape[0], layer.widths)
      return zip(zip(layer.parts, layer.widths), columns).map { input, columns in
        let x = Matrix(input.0.tensor.buffer, rows: count, columns: input.1)
        return (slice.columns(of: x), slice.columns(of: columns).transposed)
      }
    }
    let output = result((slices.exchange?.ownShape ?? leading) + [outputWidth])
    let isSingle = layers.count == 1 && layers[0].parts.count == 1
    sum(
      into: output, slices, rows: (ownCount, count), scale: 1, bias: layers[0].bias?.value.buffer,
      packed: isSingle ? layers[0].weight.packed(precision) : nil
    ) { slice in layers.flatMap { products($0, $0.weight.value, slice) } }
    for case let bias? in layers.dropFirst().map(\.bias) {
      Scalar.addBias(bias.value.buffer, toRowsOf: output.buffer, rowCount: ownCount)
    }
    var values: [Value<Scalar>] = []
    let records = layers.map { layer -> RowLayerRecord<Scalar> in
      let hidden = layer.activeUpdate.map { update in
        let hidden = sum(
          of: update.down.value.shape[0], slices, rows: (ownCount, count),
          scale: Scalar(update.scale), isKept: true
        ) { products(layer, update.down.value, $0) }
        let rank = hidden.shape[1]
        Scalar.multiply(
          Matrix(hidden.buffer, rows: ownCount, columns: rank),
          Matrix(update.up.value.buffer, rows: outputWidth, columns: rank).transposed, scale: 1,
          accumulating: true, precision: precision, choice: .sameForParts,
          into: Matrix(output.buffer, rows: ownCount, columns: outputWidth))
        return hidden
      }
      let first = values.count
      values += layer.parts
      let parameters =
        [layer.weight] + (layer.bias.map { [$0] } ?? [])
        + (layer.activeUpdate.map { [$0.down, $0.up] } ?? [])
      values += parameters.map { weight($0) }
      return RowLayerRecord(layer, hidden: hidden, rowCount: count, firstPlace: first)
    }
    return record(output, from: values) { [unowned self] outputGradient, gradients in
      var all = outputGradient
      if let exchange = slices.exchange {
        all = scratch([count, outputWidth])
        exchange.gather(outputGradient.buffer, all.buffer)
      }
      for layer in records {
        differentiate(
          layer, dy: Matrix(all.buffer, rows: count, columns: outputWidth),
          own: Matrix(outputGradient.buffer, rows: ownCount, columns: outputWidth), gradients,
          sums, ownSums)
      }
    }
  }

  /// dx_p += dy W_p + dh A_p with dh = scale · dy B; dW_p += dyᵀ x_p, dA_p += dhᵀ x_p over the group's rows; of own rows
  /// dB += dyᵀ h and d bias += Σ dy.
  private func differentiate(
    _ layer: RowLayerRecord<Scalar>, dy: Matrix<Scalar>, own: Matrix<Scalar>,
    _ gradients: InputGradients<Scalar>, _ sums: RowSums, _ ownSums: RowSums
  ) {
    let place = layer.firstPlace
    contribute(
      dy, inputs: layer.inputs, weight: layer.weight, to: gradients, firstPlace: place,
      weightPlace: layer.weightPlace, sums)
    if let update = layer.update, let hidden = layer.hidden {
      let rank = hidden.shape[1]
      let hiddenGradient = scratch([dy.rowCount, rank])
      let dh = Matrix(hiddenGradient.buffer, rows: dy.rowCount, columns: rank)
      Scalar.multiply(
        dy, Matrix(update.up.value.buffer, rows: dy.columnCount, columns: rank),
        scale: Scalar(update.scale), accumulating: false, precision: precision,
        choice: .sameForParts, into: dh)
      contribute(
        dh, inputs: layer.inputs, weight: update.down, to: gradients, firstPlace: place,
        weightPlace: layer.downPlace, sums)
      if let upGradient = gradients.place(of: layer.downPlace + 1) {
        addProducts(
          own, [Matrix(hidden.buffer, rows: own.rowCount, columns: rank)], [rank], to: upGradient,
          ownSums)
      }
    }
    addColumnSums(of: own, to: layer.biasPlace.flatMap(gradients.place(of:)), ownSums)
  }

  // MARK: Sums

  typealias Product = (a: Matrix<Scalar>, b: Matrix<Scalar>)

  /// One of the own slices.
  struct OwnSlice {
    let index: Int
    let count: Int

    private func range(of width: Int) -> Range<Int> {
      precondition(width % count == 0, "\(count) slices of a width of \(width)")
      return index * (width / count)..<(index + 1) * (width / count)
    }

    func columns(of matrix: Matrix<Scalar>) -> Matrix<Scalar> {
      let range = range(of: matrix.columnCount)
      return Matrix(
        matrix.buffer[min(range.lowerBound, matrix.buffer.count)..<matrix.buffer.count],
        rows: matrix.rowCount, columns: range.count, stride: matrix.stride)
    }

    /// Own columns of `gradient` times own rows of `weight`.
    func product(
      of gradient: Tensor<Scalar>, rows: Int, by weight: Tensor<Scalar>
    ) -> Product {
      let width = weight.shape[0]
      let dy = Matrix(gradient.buffer, rows: rows, columns: width)
      let w = Matrix(weight.buffer, rows: width, columns: weight.count / width)
      return (columns(of: dy), w.rows(range(of: width)))
    }
  }

  /// Rows of which `ownCount` are own.
  private func rowCounts(
    _ ownCount: Int, _ slices: WeightSlices<Scalar>
  ) -> (own: Int, all: Int) {
    (ownCount, slices.exchange.map { $0.shape.reduce(1, *) } ?? ownCount)
  }

  /// The sum over all slices of all ranks, for own rows, in memory of its own.
  private func sum(
    of width: Int, _ slices: WeightSlices<Scalar>, rows: (own: Int, all: Int), scale: Scalar,
    isKept: Bool = false, _ products: (OwnSlice) -> [Product]
  ) -> Tensor<Scalar> {
    let sum = isKept ? result([rows.own, width]) : scratch([rows.own, width])
    self.sum(into: sum, slices, rows: rows, scale: scale, products)
    return sum
  }

  /// target = scale · Σ_s of the products of slice s, over all slices of all ranks, for own rows, + bias.
  private func sum(
    into target: Tensor<Scalar>, _ slices: WeightSlices<Scalar>, rows: (own: Int, all: Int),
    scale: Scalar, bias: Buffer<Scalar>? = nil, packed: PackedOperand? = nil,
    _ products: (OwnSlice) -> [Product]
  ) {
    let width = target.shape[target.shape.count - 1]
    let terms = (0..<slices.count).map { products(OwnSlice(index: $0, count: slices.count)) }
    guard let exchange = slices.exchange else {
      return Scalar.multiply(
        slices: terms, packed: packed, scale: scale, addingToRows: bias, precision: precision,
        into: Matrix(target.buffer, rows: rows.own, columns: width))
    }
    let partial = scratch([rows.all, width])
    Scalar.multiply(
      slices: terms, packed: packed, scale: scale, addingToRows: nil, precision: precision,
      into: Matrix(partial.buffer, rows: rows.all, columns: width))
    exchange.sum(partial.buffer, target.buffer)
    if let bias { Scalar.addBias(bias, toRowsOf: target.buffer, rowCount: rows.own) }
  }

  /// gradient += Σ over blocks of Σ over slices, given the slices' sums of every block of the group.
  /// - Parameter add: the sums of the own slices of a block, one after the other.
  func sumSlices(
    _ slices: WeightSlices<Scalar>, over blocks: RowBlocks, into gradient: GradientBuffer<Scalar>,
    add: (_ block: Int, _ sums: Buffer<Scalar>) -> Void
  ) {
    let width = gradient.count
    func joined(_ left: Buffer<Scalar>, _ right: Buffer<Scalar>) -> Buffer<Scalar> {
      Scalar.add(1, right, to: left)
      return left
    }
    let all = scratch([blocks.blocks.count, width])
    let parts = scratch([slices.count, width])
    for block in blocks.blocks.indices {
      parts.buffer.clear()
      add(block, parts.buffer)
      let sum = treeReduce(
        count: slices.count, operand: { parts.rows($0..<$0 + 1).buffer }, combine: joined)
      all.rows(block..<block + 1).buffer.copy(from: sum)
    }
    var own = all
    if let exchange = slices.exchange {
      own = scratch([blocks.blocks.count / exchange.degree, width])
      exchange.sumBlocks(all.buffer, own.buffer)
    }
    let sum = treeReduce(
      count: own.shape[0], operand: { own.rows($0..<$0 + 1).buffer }, combine: joined)
    if gradient.accumulates {
      Scalar.add(1, sum, to: gradient.buffer)
    } else {
      gradient.buffer.copy(from: sum)
    }
  }
}
