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

  /// Own columns of the group's rows → own rows of all outputs:
  /// y = Σ_s Σ_p x_ps W_psᵀ + bias + scale · (Σ_s Σ_p x_ps A_psᵀ) Bᵀ, slices s in the tree.
  /// - Shapes: x_p shape × K_p with Σ K_p = K, weight [D, K], bias [D] → own shape × D.
  /// - Parameters:
  ///   - sums: gradients of what is cut, over the group's rows.
  ///   - ownSums: gradients of what all ranks have, over own rows.
  package func rowLinear(
    parts: [Value<Scalar>], weight: Parameter<Scalar>, bias: Parameter<Scalar>,
    update: LowRankUpdate<Scalar>?, _ slices: WeightSlices<Scalar>, sums: RowSums, ownSums: RowSums
  ) -> Value<Scalar> {
    let outputWidth = weight.value.shape[0]
    let widths = parts.map { $0.shape.last ?? 1 }
    let leading = Array(parts[0].shape.dropLast())
    precondition(
      widths.reduce(0, +) == weight.value.count / outputWidth
        && parts.allSatisfy { Array($0.shape.dropLast()) == leading },
      "\(weight.name) of \(weight.value.shape), the input is \(parts.map(\.shape))")
    let count = leading.reduce(1, *)
    let ownCount = slices.exchange.map { $0.ownShape.reduce(1, *) } ?? count
    let update = update.flatMap { $0.scale == 0 ? nil : $0 }
    let kept = KeptInputs(parts, rowCount: count, widths: widths)
    let inputs = parts.map { $0.tensor }

    func products(_ matrix: Tensor<Scalar>) -> (OwnSlice) -> [Product] {
      let columns = columns(of: matrix, rows: matrix.shape[0], widths)
      return { slice in
        zip(zip(inputs, widths), columns).map { input, columns in
          let x = Matrix(input.0.buffer, rows: count, columns: input.1)
          return (slice.columns(of: x), slice.columns(of: columns).transposed)
        }
      }
    }
    let output = result((slices.exchange?.ownShape ?? leading) + [outputWidth])
    sum(
      into: output, slices, rows: (ownCount, count), scale: 1, bias: bias.value.buffer,
      packed: parts.count == 1 ? weight.packed(precision) : nil, products(weight.value))
    let hidden = update.map { update in
      sum(
        of: update.down.value.shape[0], slices, rows: (ownCount, count),
        scale: Scalar(update.scale), isKept: true, products(update.down.value))
    }
    func up(_ update: LowRankUpdate<Scalar>) -> Matrix<Scalar> {
      Matrix(update.up.value.buffer, rows: outputWidth, columns: update.up.value.shape[1])
    }
    func ownHidden() -> Matrix<Scalar>? {
      hidden.map { Matrix($0.buffer, rows: ownCount, columns: $0.shape[1]) }
    }
    if let update, let hidden = ownHidden() {
      Scalar.multiply(
        hidden, up(update).transposed, scale: 1, accumulating: true, precision: precision,
        choice: .sameForParts, into: Matrix(output.buffer, rows: ownCount, columns: outputWidth))
    }

    let factors = update.map { [self.weight($0.down), self.weight($0.up)] } ?? []
    let values = parts + [self.weight(weight), self.weight(bias)] + factors
    let place = parts.count
    return record(output, from: values) { [unowned self] outputGradient, gradients in
      let ownGradient = Matrix(outputGradient.buffer, rows: ownCount, columns: outputWidth)
      var all = outputGradient
      if let exchange = slices.exchange {
        all = scratch([count, outputWidth])
        exchange.gather(outputGradient.buffer, all.buffer)
      }
      let dy = Matrix(all.buffer, rows: count, columns: outputWidth)
      contribute(dy, inputs: kept, weight: weight, to: gradients, weightPlace: place, sums)
      if let update, let hidden = ownHidden() {
        let hiddenGradient = scratch([count, hidden.columnCount])
        let dh = Matrix(hiddenGradient.buffer, rows: count, columns: hidden.columnCount)
        Scalar.multiply(
          dy, up(update), scale: Scalar(update.scale), accumulating: false, precision: precision,
          choice: .sameForParts, into: dh)
        contribute(
          dh, inputs: kept, weight: update.down, to: gradients, weightPlace: place + 2, sums)
        if let upGradient = gradients.place(of: place + 3) {
          addProducts(ownGradient, [hidden], [hidden.columnCount], to: upGradient, ownSums)
        }
      }
      addColumnSums(of: ownGradient, to: gradients.place(of: place + 1), ownSums)
    }
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
