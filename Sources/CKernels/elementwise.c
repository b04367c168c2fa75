// Activations with their derivatives, and sums of products.
#include "loops.h"

// gelu(x) = 0.5 x (1 + tanh u) = x sigmoid(2u) with u = √(2/π) (x + 0.044715 x³). Beyond |x| = 30
// the sigmoid is 0 or 1 to the last bit, so its argument is clamped there against overflow.
static inline float gelu_exp(float c) {
  return exp_fast(-c * (1.5957691216f + 0.07135481627f * (c * c)));
}

static inline float clamp30(float x) {
  float c = x > 30.0f ? 30.0f : x;
  return c < -30.0f ? -30.0f : c;
}

KERNEL void w2svd_gelu(const float *x, float *y, size_t count) {
  INDEPENDENT
  for (size_t i = 0; i < count; i++) y[i] = x[i] / (1.0f + gelu_exp(clamp30(x[i])));
}

// Derivatives take 1 − sigmoid as e^−x sigmoid, which keeps its digits where the sigmoid is near 1.
static inline float gelu_slope(float x) {
  float c = clamp30(x);
  float e = gelu_exp(c), s = 1.0f / (1.0f + e);
  float slope = 1.5957691216f + 0.2140644488f * (c * c);
  return s + c * slope * ((e * s) * s);
}

KERNEL void w2svd_gelu_backward(const float *dy, const float *x, float *dx, size_t count,
                                int accumulating) {
  STORE_EACH(INDEPENDENT, count, accumulating, dx[i], dy[i] * gelu_slope(x[i]));
}

KERNEL void w2svd_silu(const float *x, float *y, size_t count) {
  INDEPENDENT
  for (size_t i = 0; i < count; i++) y[i] = x[i] * sigmoid(x[i]);
}

static inline float silu_slope(float x) {
  float e = exp_fast(-x), s = 1.0f / (1.0f + e);
  return s * (1.0f + x * (e * s));
}

KERNEL void w2svd_silu_backward(const float *dy, const float *x, float *dx, size_t count,
                                int accumulating) {
  STORE_EACH(INDEPENDENT, count, accumulating, dx[i], dy[i] * silu_slope(x[i]));
}

// log(1 + z) for z in (0, 1] as 2 atanh(w), w = z / (2 + z) <= 1/3; the first term left out is
// 2 w^17 / 17 < 1e-9 w.
static inline float log1p_unit(float z) {
  float w = z / (2.0f + z);
  float q = w * w;
  float p = 2.0f / 15.0f;
  p = p * q + 2.0f / 13.0f;
  p = p * q + 2.0f / 11.0f;
  p = p * q + 2.0f / 9.0f;
  p = p * q + 2.0f / 7.0f;
  p = p * q + 2.0f / 5.0f;
  p = p * q + 2.0f / 3.0f;
  return w * (p * q + 2.0f);
}

KERNEL void w2svd_softplus(const float *x, float *y, size_t count) {
  INDEPENDENT
  for (size_t i = 0; i < count; i++) {
    float positive = x[i] < 0.0f ? 0.0f : x[i];
    y[i] = positive + log1p_unit(exp_fast(-fabsf(x[i])));
  }
}

KERNEL void w2svd_softplus_backward(const float *dy, const float *x, float *dx, size_t count,
                                    int accumulating) {
  STORE_EACH(INDEPENDENT, count, accumulating, dx[i], dy[i] * sigmoid(x[i]));
}

KERNEL void w2svd_pseudo_huber(float c, const float *x, float *y, size_t count) {
  INDEPENDENT
  for (size_t i = 0; i < count; i++) y[i] = x[i] * x[i] / (sqrtf(x[i] * x[i] + c * c) + c);
}

KERNEL void w2svd_pseudo_huber_backward(float c, const float *dy, const float *x, float *dx,
                                        size_t count, int accumulating) {
  STORE_EACH(INDEPENDENT, count, accumulating, dx[i],
             dy[i] * (x[i] / sqrtf(x[i] * x[i] + c * c)));
}

KERNEL void w2svd_exp(const float *x, float *y, size_t count) {
  INDEPENDENT
  for (size_t i = 0; i < count; i++) y[i] = exp_fast(x[i]);
}

KERNEL void w2svd_combine(float a, const float *x, float b, const float *y, float *z,
                          size_t count) {
  INDEPENDENT
  for (size_t i = 0; i < count; i++) z[i] = a * x[i] + b * y[i];
}

KERNEL void w2svd_add(float a, const float *x, float *y, size_t count) {
  INDEPENDENT
  for (size_t i = 0; i < count; i++) y[i] += a * x[i];
}

KERNEL void w2svd_multiply(const float *x, const float *y, float *z, size_t count) {
  INDEPENDENT
  for (size_t i = 0; i < count; i++) z[i] = x[i] * y[i];
}

KERNEL void w2svd_add_product(const float *x, const float *y, float *z, size_t count) {
  INDEPENDENT
  for (size_t i = 0; i < count; i++) z[i] += x[i] * y[i];
}

KERNEL void w2svd_gated_residual(const float *x, const float *gate, const float *h, float *y,
                                 size_t groups, size_t rows, size_t width) {
  for (size_t g = 0; g < groups; g++, gate += width)
    for (size_t r = 0; r < rows; r++, x += width, h += width, y += width) {
      INDEPENDENT
      for (size_t i = 0; i < width; i++) y[i] = x[i] + gate[i] * h[i];
    }
}

KERNEL void w2svd_gated_residual_backward(const float *dy, const float *gate, const float *h,
                                          float *dh, float *dgate, size_t groups, size_t rows,
                                          size_t width, size_t stride, int accumulating) {
  for (size_t g = 0; g < groups; g++) {
    for (size_t r = 0; r < rows; r++) {
      size_t row = (g * rows + r) * stride;
      if (dh)
        STORE_EACH(INDEPENDENT, width, accumulating, dh[row + i],
                   gate[g * stride + i] * dy[row + i]);
      if (dgate) {
        INDEPENDENT
        for (size_t i = 0; i < width; i++) dgate[g * stride + i] += h[row + i] * dy[row + i];
      }
    }
  }
}
