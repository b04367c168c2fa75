// Sums in Float64: four registers of eight lanes, each lane in index order, then a tree of the
// lanes, then the tail in order. Products of two floats are exact in Float64, so a fused and an
// unfused multiply-add agree and the result is the same on every CPU.
#include "loops.h"

typedef float v8 __attribute__((ext_vector_type(8)));
typedef v8 v8_unaligned __attribute__((aligned(4), may_alias));
typedef double v8d __attribute__((ext_vector_type(8)));
#define WIDE(pointer) __builtin_convertvector(*(const v8_unaligned *)(pointer), v8d)

static inline double tree(const v8d *lanes) {
  double t[32];
  memcpy(t, lanes, sizeof t);
  for (int half = 16; half > 0; half /= 2)
    for (int i = 0; i < half; i++) t[i] += t[i + half];
  return t[0];
}

KERNEL double w2svd_sum(const float *x, size_t count) {
  v8d lanes[4] = {0, 0, 0, 0};
  size_t i = 0;
  for (; i + 32 <= count; i += 32)
    for (int k = 0; k < 4; k++) lanes[k] += WIDE(x + i + 8 * k);
  double sum = tree(lanes);
  for (; i < count; i++) sum += (double)x[i];
  return sum;
}

KERNEL double w2svd_sum_of_magnitudes(const float *x, size_t count) {
  v8d lanes[4] = {0, 0, 0, 0};
  size_t i = 0;
  for (; i + 32 <= count; i += 32)
    for (int k = 0; k < 4; k++) lanes[k] += __builtin_elementwise_abs(WIDE(x + i + 8 * k));
  double sum = tree(lanes);
  for (; i < count; i++) sum += fabs((double)x[i]);
  return sum;
}

KERNEL double w2svd_dot(const float *x, const float *y, size_t count) {
  v8d lanes[4] = {0, 0, 0, 0};
  size_t i = 0;
  for (; i + 32 <= count; i += 32)
    for (int k = 0; k < 4; k++) lanes[k] += WIDE(x + i + 8 * k) * WIDE(y + i + 8 * k);
  double sum = tree(lanes);
  for (; i < count; i++) sum += (double)x[i] * (double)y[i];
  return sum;
}

KERNEL void w2svd_add_bias(const float *bias, float *x, size_t rows, size_t width) {
  for (size_t r = 0; r < rows; r++, x += width) {
    INDEPENDENT
    for (size_t i = 0; i < width; i++) x[i] += bias[i];
  }
}

// The sum of a column is Σ over blocks of 64 rows of the sum of the block, both in order, so that
// rounding grows with 64 + rows / 64 and not with rows.
KERNEL void w2svd_add_column_sums(const float *x, size_t stride, float *sums, size_t rows,
                                  size_t width) {
  enum { block = 64 };
  size_t i = 0;
  for (; i + 64 <= width; i += 64) {
    v16 total[4] = {0, 0, 0, 0};
    for (size_t first = 0; first < rows; first += block) {
      size_t end = first + block < rows ? first + block : rows;
      v16 part[4] = {0, 0, 0, 0};
      for (size_t r = first; r < end; r++)
        for (int k = 0; k < 4; k++) part[k] += GET16(x + r * stride + i + 16 * k);
      for (int k = 0; k < 4; k++) total[k] += part[k];
    }
    for (int k = 0; k < 4; k++) AT16(sums + i + 16 * k) += total[k];
  }
  for (; i < width; i++) {
    float total = 0;
    for (size_t first = 0; first < rows; first += block) {
      size_t end = first + block < rows ? first + block : rows;
      float part = 0;
      for (size_t r = first; r < end; r++) part += x[r * stride + i];
      total += part;
    }
    sums[i] += total;
  }
}
