// Strided copies and sums, transposition, and the columns of a convolution.
#include "loops.h"

KERNEL void w2svd_copy_rows(const float *x, size_t x_stride, float *y, size_t y_stride,
                            size_t rows, size_t width) {
  for (size_t r = 0; r < rows; r++, x += x_stride, y += y_stride) {
    if (width >= 64) {
      memcpy(y, x, width * sizeof(float));
    } else {
      for (size_t i = 0; i < width; i++) y[i] = x[i];
    }
  }
}

KERNEL void w2svd_add_rows(const float *x, size_t x_stride, float *y, size_t y_stride, size_t rows,
                           size_t width) {
  for (size_t r = 0; r < rows; r++, x += x_stride, y += y_stride) {
    INDEPENDENT
    for (size_t i = 0; i < width; i++) y[i] += x[i];
  }
}

typedef float v8 __attribute__((ext_vector_type(8)));
typedef v8 v8_unaligned __attribute__((aligned(4), may_alias));
#define LOW(a, b) __builtin_shufflevector(a, b, 0, 8, 1, 9, 4, 12, 5, 13)
#define HIGH(a, b) __builtin_shufflevector(a, b, 2, 10, 3, 11, 6, 14, 7, 15)
#define LOW_PAIRS(a, b) __builtin_shufflevector(a, b, 0, 1, 8, 9, 4, 5, 12, 13)
#define HIGH_PAIRS(a, b) __builtin_shufflevector(a, b, 2, 3, 10, 11, 6, 7, 14, 15)
#define LOW_HALVES(a, b) __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11)
#define HIGH_HALVES(a, b) __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15)

// Eight by eight in registers: pairs of rows, pairs of pairs, then halves.
#define TRANSPOSE8(x, x_stride, y, y_stride)                                             \
  do {                                                                                   \
    v8 a[8], b[8];                                                                       \
    for (int k = 0; k < 8; k++) a[k] = *(const v8_unaligned *)((x) + k * (x_stride));    \
    for (int k = 0; k < 4; k++) {                                                        \
      b[2 * k] = LOW(a[2 * k], a[2 * k + 1]);                                            \
      b[2 * k + 1] = HIGH(a[2 * k], a[2 * k + 1]);                                       \
    }                                                                                    \
    for (int k = 0; k < 2; k++) {                                                        \
      a[4 * k] = LOW_PAIRS(b[4 * k], b[4 * k + 2]);                                      \
      a[4 * k + 1] = HIGH_PAIRS(b[4 * k], b[4 * k + 2]);                                 \
      a[4 * k + 2] = LOW_PAIRS(b[4 * k + 1], b[4 * k + 3]);                              \
      a[4 * k + 3] = HIGH_PAIRS(b[4 * k + 1], b[4 * k + 3]);                             \
    }                                                                                    \
    for (int k = 0; k < 4; k++) {                                                        \
      *(v8_unaligned *)((y) + k * (y_stride)) = LOW_HALVES(a[k], a[k + 4]);              \
      *(v8_unaligned *)((y) + (k + 4) * (y_stride)) = HIGH_HALVES(a[k], a[k + 4]);       \
    }                                                                                    \
  } while (0)

// By strips of 256 columns, so that the half-filled cache lines of y are still there when the next
// eight rows fill the other half.
KERNEL void w2svd_transpose(const float *x, size_t x_stride, float *y, size_t y_stride,
                            size_t rows, size_t columns) {
  for (size_t first = 0; first < columns; first += 256) {
    const size_t end = first + 256 < columns ? first + 256 : columns;
    size_t r = 0;
    for (; r + 8 <= rows; r += 8) {
      size_t c = first;
      for (; c + 8 <= end; c += 8)
        TRANSPOSE8(x + r * x_stride + c, x_stride, y + c * y_stride + r, y_stride);
      for (; c < end; c++)
        for (size_t k = 0; k < 8; k++) y[c * y_stride + r + k] = x[(r + k) * x_stride + c];
    }
    for (; r < rows; r++)
      for (size_t c = first; c < end; c++) y[c * y_stride + r] = x[r * x_stride + c];
  }
}

void w2svd_unfold(const float *x, const struct w2svd_unfolding *u, size_t first_line, size_t lines,
                  float *columns) {
  const size_t count = lines * u->output_width;
  for (size_t row = 0; row < u->channels * u->kernel[0] * u->kernel[1] * u->kernel[2]; row++) {
    const size_t e = row % u->kernel[2];
    const size_t b = row / u->kernel[2] % u->kernel[1];
    const size_t a = row / (u->kernel[2] * u->kernel[1]) % u->kernel[0];
    const size_t c = row / (u->kernel[2] * u->kernel[1] * u->kernel[0]);
    float *target = columns + row * count;
    for (size_t line = first_line; line < first_line + lines; line++, target += u->output_width) {
      // Before the start of an axis the unsigned difference wraps around and is beyond its end.
      const size_t t = line / u->output_height * u->stride[0] + a - u->padding[0];
      const size_t h = line % u->output_height * u->stride[1] + b - u->padding[1];
      if (t >= u->size[0] || h >= u->size[1]) {
        memset(target, 0, u->output_width * sizeof(float));
        continue;
      }
      const float *source = x + ((c * u->size[0] + t) * u->size[1] + h) * u->size[2];
      for (size_t i = 0; i < u->output_width; i++) {
        const size_t w = i * u->stride[2] + e - u->padding[2];
        target[i] = w < u->size[2] ? source[w] : 0.0f;
      }
    }
  }
}
