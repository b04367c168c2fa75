// The softmax parts of flash attention; products and tiling are in Float+Attention.swift.
// Source: FlashAttention-2 (2307.08691), algorithms 1 and 2.
#include "loops.h"

static inline size_t up16(size_t n) { return (n + 15) / 16 * 16; }

// Adds the bias and makes the padding −∞, whose exponential is 0.
#define PREPARE_ROW(s, columns, padded, bias)                              \
  do {                                                                     \
    if (bias) {                                                            \
      INDEPENDENT16                                                        \
      for (size_t j = 0; j < (columns); j++) (s)[j] += (bias)[j];          \
    }                                                                      \
    for (size_t j = (columns); j < (padded); j++) (s)[j] = -INFINITY;      \
  } while (0)

KERNEL void w2svd_softmax_tile(float *scores, size_t rows, size_t columns, size_t stride,
                               const float *bias, float *maximum, float *total, float *factor) {
  const size_t padded = up16(columns);
  for (size_t r = 0; r < rows; r++) {
    float *s = scores + r * stride;
    PREPARE_ROW(s, columns, padded, bias);
    v16 largest = GET16(s);
    for (size_t j = 16; j < padded; j += 16) {
      v16 t = GET16(s + j);
      largest = t > largest ? t : largest;
    }
    float m = maximum[r];
    for (int k = 0; k < 16; k++) m = largest[k] > m ? largest[k] : m;
    INDEPENDENT16
    for (size_t j = 0; j < padded; j++) s[j] = exp_fast(s[j] - m);
    float sum;
    SUM(sum, padded, GET16(s + j), s[j]);
    const float f = exp_fast(maximum[r] - m);
    factor[r] = f;
    maximum[r] = m;
    total[r] = total[r] * f + sum;
  }
}

KERNEL void w2svd_scale_rows(float *x, size_t stride, size_t rows, size_t width,
                             const float *factor) {
  for (size_t r = 0; r < rows; r++) {
    float *row = x + r * stride;
    const float f = factor[r];
    INDEPENDENT16
    for (size_t i = 0; i < width; i++) row[i] *= f;
  }
}

KERNEL void w2svd_finish_rows(float *x, size_t stride, size_t rows, size_t width,
                              const float *maximum, const float *total, float *log_sum_exp) {
  for (size_t r = 0; r < rows; r++) {
    float *row = x + r * stride;
    const float f = total[r] == 0 ? 0.0f : 1.0f / total[r];
    INDEPENDENT16
    for (size_t i = 0; i < width; i++) row[i] *= f;
    log_sum_exp[r] = total[r] == 0 ? -INFINITY : maximum[r] + logf(total[r]);
  }
}

KERNEL void w2svd_join_attention(float *x, float *log_sum_exp, const float *other,
                                 const float *other_log_sum_exp, size_t stride, size_t rows,
                                 size_t width) {
  for (size_t r = 0; r < rows; r++) {
    const float a = log_sum_exp[r], b = other_log_sum_exp[r];
    const float largest = a > b ? a : b;
    if (largest == -INFINITY) continue;  // neither saw a key: zeros stay
    const float p = expf(a - largest), q = expf(b - largest), total = p + q;
    const float f = p / total, g = q / total;
    float *row = x + r * stride;
    const float *added = other + r * stride;
    INDEPENDENT16
    for (size_t i = 0; i < width; i++) row[i] = f * row[i] + g * added[i];
    log_sum_exp[r] = largest + logf(total);
  }
}

KERNEL void w2svd_probabilities(float *scores, size_t rows, size_t columns, size_t stride,
                                const float *bias, const float *log_sum_exp) {
  const size_t padded = up16(columns);
  for (size_t r = 0; r < rows; r++) {
    float *s = scores + r * stride;
    PREPARE_ROW(s, columns, padded, bias);
    const float m = log_sum_exp[r];
    INDEPENDENT16
    for (size_t j = 0; j < padded; j++) s[j] = exp_fast(s[j] - m);
  }
}

KERNEL void w2svd_score_gradients(const float *p, float *dp, size_t rows, size_t columns,
                                  size_t stride, const float *correction, float scale) {
  const size_t padded = up16(columns);
  for (size_t r = 0; r < rows; r++) {
    const float *row = p + r * stride;
    float *d = dp + r * stride;
    const float mean = correction[r];
    for (size_t j = columns; j < padded; j++) d[j] = 0;
    INDEPENDENT16
    for (size_t j = 0; j < padded; j++) d[j] = row[j] * (d[j] - mean) * scale;
  }
}

KERNEL void w2svd_row_dots(const float *x, const float *y, size_t stride, size_t rows,
                           size_t width, float *dots) {
  for (size_t r = 0; r < rows; r++) {
    const float *a = x + r * stride, *b = y + r * stride;
    SUM(dots[r], width, GET16(a + j) * GET16(b + j), a[j] * b[j]);
  }
}
