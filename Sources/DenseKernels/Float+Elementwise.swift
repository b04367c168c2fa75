// Elementwise kernels of Float: sizes are checked and threads given their parts here, the loops are in
// CKernels.

import CKernels

extension Float {
  package static func apply(_ activation: Activation, to x: Buffer<Self>, into y: Buffer<Self>) {
    requireCount(y.count, x.count, "y")
    KernelThreads.splitElements(x.count) { part in
      let (x, y, count) = unsafe (x.base + part.lowerBound, y.base + part.lowerBound, part.count)
      switch activation {
      case .geluTanh: unsafe w2svd_gelu(x, y, count)
      case .silu: unsafe w2svd_silu(x, y, count)
      case .softplus: unsafe w2svd_softplus(x, y, count)
      case .pseudoHuber(let c): unsafe w2svd_pseudo_huber(Float(c), x, y, count)
      }
    }
  }

  package static func applyBackward(
    _ activation: Activation, outputGradient: Buffer<Self>, x: Buffer<Self>,
    inputGradient: GradientBuffer<Self>
  ) {
    requireCount(outputGradient.count, x.count, "outputGradient")
    requireCount(inputGradient.count, x.count, "inputGradient")
    let flag = inputGradient.flag
    KernelThreads.splitElements(x.count) { part in
      let start = part.lowerBound
      let (dy, dx) = unsafe (outputGradient.base + start, inputGradient.buffer.base + start)
      let (x, count) = unsafe (x.base + start, part.count)
      switch activation {
      case .geluTanh: unsafe w2svd_gelu_backward(dy, x, dx, count, flag)
      case .silu: unsafe w2svd_silu_backward(dy, x, dx, count, flag)
      case .softplus: unsafe w2svd_softplus_backward(dy, x, dx, count, flag)
      case .pseudoHuber(let c):
        unsafe w2svd_pseudo_huber_backward(Float(c), dy, x, dx, count, flag)
      }
    }
  }

  package static func gatedResidual(
    _ x: Buffer<Self>, gate: Buffer<Self>, h: Buffer<Self>, shape: ModulationShape,
    into y: Buffer<Self>
  ) {
    shape.require(rows: [("x", x), ("h", h), ("y", y)], groups: [("gate", gate)])
    shape.splitRows { group, start, rows in
      unsafe w2svd_gated_residual(
        x.base + start, gate.base + group * shape.width, h.base + start, y.base + start, 1, rows,
        shape.width)
    }
  }

  package static func gatedResidualBackward(
    outputGradient: Buffer<Self>, gate: Buffer<Self>, h: Buffer<Self>, shape: ModulationShape,
    hGradient: GradientBuffer<Self>?, gateGradient: Buffer<Self>?
  ) {
    shape.require(
      rows: [("outputGradient", outputGradient), ("h", h), ("hGradient", hGradient?.buffer)],
      groups: [("gate", gate), ("gateGradient", gateGradient)])
    // All of it by columns: the gradient of the gate is a sum over rows.
    KernelThreads.splitColumns(shape.width, rowCount: shape.rowCount) { columns in
      let first = columns.lowerBound
      unsafe w2svd_gated_residual_backward(
        outputGradient.base + first, gate.base + first, h.base + first,
        (hGradient?.buffer.base).map { unsafe $0 + first },
        (gateGradient?.base).map { unsafe $0 + first }, shape.groupCount, shape.rowsPerGroup,
        columns.count, shape.width, hGradient?.flag ?? 0)
    }
  }

  package static func combine(
    _ a: Self, _ x: Buffer<Self>, _ b: Self, _ y: Buffer<Self>, into z: Buffer<Self>
  ) {
    requireCount(x.count, z.count, "x")
    requireCount(y.count, z.count, "y")
    KernelThreads.splitElements(z.count) { part in
      let start = part.lowerBound
      unsafe w2svd_combine(a, x.base + start, b, y.base + start, z.base + start, part.count)
    }
  }

  package static func add(_ a: Self, _ x: Buffer<Self>, to y: Buffer<Self>) {
    requireCount(x.count, y.count, "x")
    KernelThreads.splitElements(y.count) { part in
      unsafe w2svd_add(a, x.base + part.lowerBound, y.base + part.lowerBound, part.count)
    }
  }

  package static func multiplyElements(
    _ x: Buffer<Self>, _ y: Buffer<Self>, into z: Buffer<Self>
  ) {
    requireCount(x.count, z.count, "x")
    requireCount(y.count, z.count, "y")
    KernelThreads.splitElements(z.count) { part in
      let start = part.lowerBound
      unsafe w2svd_multiply(x.base + start, y.base + start, z.base + start, part.count)
    }
  }

  package static func addProduct(_ x: Buffer<Self>, _ y: Buffer<Self>, to z: Buffer<Self>) {
    requireCount(x.count, z.count, "x")
    requireCount(y.count, z.count, "y")
    KernelThreads.splitElements(z.count) { part in
      let start = part.lowerBound
      unsafe w2svd_add_product(x.base + start, y.base + start, z.base + start, part.count)
    }
  }
}

extension ModulationShape {
  /// Runs `body` on rows of one group at a time: the group, the first row's first element, how many.
  func splitRows(_ body: (_ group: Int, _ start: Int, _ count: Int) -> Void) {
    KernelThreads.splitRows(groups: groupCount, rows: rowsPerGroup, width: width) { group, rows in
      body(group, (group * rowsPerGroup + rows.lowerBound) * width, rows.count)
    }
  }
}
