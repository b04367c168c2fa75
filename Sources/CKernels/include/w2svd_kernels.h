// Fused elementwise and reduction loops in C11. All symbols start with w2svd_.
#ifndef W2SVD_KERNELS_H
#define W2SVD_KERNELS_H
#include <stddef.h>
#include <stdint.h>
#endif
