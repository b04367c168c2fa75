// What the kernels share: dispatch, vector types, loop pragmas, and exp.
#ifndef W2SVD_LOOPS_H
#define W2SVD_LOOPS_H
#include <math.h>
#include <string.h>

#include "w2svd_kernels.h"

// One copy per CPU level, chosen by the loader. Elsewhere plain C.
#if defined(__x86_64__) && defined(__linux__)
#define KERNEL __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define KERNEL
#endif

// For loops whose iterations are independent, also when run in place.
#define INDEPENDENT \
  _Pragma("clang loop vectorize(assume_safety) vectorize_width(16) interleave_count(2)")
#define INDEPENDENT16 \
  _Pragma("clang loop vectorize(assume_safety) vectorize_width(16) interleave_count(1)")

// target = value, or target += value where `accumulating`, for i < count.
#define STORE_EACH(loop, count, accumulating, target, value) \
  do {                                                       \
    if (accumulating) {                                      \
      loop for (size_t i = 0; i < (count); i++)(target) += (value); \
    } else {                                                 \
      loop for (size_t i = 0; i < (count); i++)(target) = (value);  \
    }                                                        \
  } while (0)

// Sixteen floats, as one register of AVX-512, two of AVX2 or four of SSE: lanes, and with them the
// order of sums, are the same everywhere. Vectors never pass a function border (their ABI varies).
typedef float v16 __attribute__((ext_vector_type(16)));
typedef v16 v16_unaligned __attribute__((aligned(4), may_alias));
#define AT16(pointer) (*(v16_unaligned *)(pointer))
#define GET16(pointer) (*(const v16_unaligned *)(pointer))

// Sum of sixteen lanes as a balanced tree.
static inline float tree16(const v16 *lanes) {
  float t[16];
  memcpy(t, lanes, sizeof t);
  for (int half = 8; half > 0; half /= 2)
    for (int i = 0; i < half; i++) t[i] += t[i + half];
  return t[0];
}

// result = Σ_{j<n} of an expression in j, given for sixteen elements and for one: two registers of
// lanes, their tree, then the tail in order.
#define SUM(result, n, expression16, expression1)   \
  do {                                              \
    v16 lanes0_ = 0, lanes1_ = 0;                   \
    size_t i_ = 0;                                  \
    for (; i_ + 32 <= (n); i_ += 32) {              \
      size_t j = i_;                                \
      lanes0_ += (expression16);                    \
      j = i_ + 16;                                  \
      lanes1_ += (expression16);                    \
    }                                               \
    if (i_ + 16 <= (n)) {                           \
      size_t j = i_;                                \
      lanes0_ += (expression16);                    \
      i_ += 16;                                     \
    }                                               \
    lanes0_ += lanes1_;                             \
    float sum_ = tree16(&lanes0_);                  \
    for (; i_ < (n); i_++) {                        \
      size_t j = i_;                                \
      sum_ += (expression1);                        \
    }                                               \
    (result) = sum_;                                \
  } while (0)

// e^x within 2 ulp on [-87.33, 88.37]; 0 below, 2.4e38 above, NaN for NaN. No branches, so that
// loops over it vectorize: x = n ln 2 + r, |r| <= ln 2 / 2, degree 6 (coefficients: Cephes expf).
static inline float exp_fast(float x) {
  float c = x > 88.37626f ? 88.37626f : x;
  c = c < -87.33654f ? -87.33654f : c;
  const float shifter = 12582912.0f;  // 1.5 · 2^23: adding it rounds to an integer
  float t = c * 1.44269504f + shifter;
  float n = t - shifter;
  float r = c - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  uint32_t bits;
  memcpy(&bits, &t, 4);
  bits = (bits << 23) + 0x3f800000u;
  float power;
  memcpy(&power, &bits, 4);
  return x < -87.33654f ? 0.0f : p * power;
}

static inline float sigmoid(float x) { return 1.0f / (1.0f + exp_fast(-x)); }
#endif
