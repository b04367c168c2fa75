// The two scalar types of the product.

/// The slow twins, except for products.
extension Double: KernelScalar {}

/// OpenBLAS and the C loops of CKernels.
extension Float: KernelScalar {}
