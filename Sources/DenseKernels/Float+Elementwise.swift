// Elementwise kernels of Float: sizes are checked here, the loops are in CKernels.

import CKernels

extension Float {
  package static func apply(_ activation: Activation, to x: Buffer<Self>, into y: Buffer<Self>) {
    requireCount(y.count, x.count, "y")
    switch activation {
    case .geluTanh: unsafe w2svd_gelu(x.base, y.base, x.count)
    case .silu: unsafe w2svd_silu(x.base, y.base, x.count)
    case .softplus: unsafe w2svd_softplus(x.base, y.base, x.count)
    case .pseudoHuber(let c): unsafe w2svd_pseudo_huber(Float(c), x.base, y.base, x.count)
    }
  }

  package static func applyBackward(
    _ activation: Activation, outputGradient: Buffer<Self>, x: Buffer<Self>,
    inputGradient: GradientBuffer<Self>
  ) {
    requireCount(outputGradient.count, x.count, "outputGradient")
    requireCount(inputGradient.count, x.count, "inputGradient")
    let (dy, dx) = unsafe (outputGradient.base, inputGradient.buffer.base)
    let flag = inputGradient.flag
    switch activation {
    case .geluTanh: unsafe w2svd_gelu_backward(dy, x.base, dx, x.count, flag)
    case .silu: unsafe w2svd_silu_backward(dy, x.base, dx, x.count, flag)
    case .softplus: unsafe w2svd_softplus_backward(dy, x.base, dx, x.count, flag)
    case .pseudoHuber(let c):
      unsafe w2svd_pseudo_huber_backward(Float(c), dy, x.base, dx, x.count, flag)
    }
  }

  package static func gatedResidual(
    _ x: Buffer<Self>, gate: Buffer<Self>, h: Buffer<Self>, shape: ModulationShape,
    into y: Buffer<Self>
  ) {
    shape.require(rows: [("x", x), ("h", h), ("y", y)], groups: [("gate", gate)])
    unsafe w2svd_gated_residual(
      x.base, gate.base, h.base, y.base, shape.groupCount, shape.rowsPerGroup, shape.width)
  }

  package static func gatedResidualBackward(
    outputGradient: Buffer<Self>, gate: Buffer<Self>, h: Buffer<Self>, shape: ModulationShape,
    hGradient: GradientBuffer<Self>?, gateGradient: Buffer<Self>?
  ) {
    shape.require(
      rows: [("outputGradient", outputGradient), ("h", h), ("hGradient", hGradient?.buffer)],
      groups: [("gate", gate), ("gateGradient", gateGradient)])
    unsafe w2svd_gated_residual_backward(
      outputGradient.base, gate.base, h.base, hGradient?.buffer.base, gateGradient?.base,
      shape.groupCount, shape.rowsPerGroup, shape.width, hGradient?.flag ?? 0)
  }

  package static func combine(
    _ a: Self, _ x: Buffer<Self>, _ b: Self, _ y: Buffer<Self>, into z: Buffer<Self>
  ) {
    requireCount(x.count, z.count, "x")
    requireCount(y.count, z.count, "y")
    unsafe w2svd_combine(a, x.base, b, y.base, z.base, z.count)
  }

  package static func add(_ a: Self, _ x: Buffer<Self>, to y: Buffer<Self>) {
    requireCount(x.count, y.count, "x")
    unsafe w2svd_add(a, x.base, y.base, y.count)
  }

  package static func multiplyElements(
    _ x: Buffer<Self>, _ y: Buffer<Self>, into z: Buffer<Self>
  ) {
    requireCount(x.count, z.count, "x")
    requireCount(y.count, z.count, "y")
    unsafe w2svd_multiply(x.base, y.base, z.base, z.count)
  }

  package static func addProduct(_ x: Buffer<Self>, _ y: Buffer<Self>, to z: Buffer<Self>) {
    requireCount(x.count, z.count, "x")
    requireCount(y.count, z.count, "y")
    unsafe w2svd_add_product(x.base, y.base, z.base, z.count)
  }
}
