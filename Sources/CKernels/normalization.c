// LayerNorm with modulation, per-head RMSNorm with rotation, and rotation alone. Formulas of the
// gradients: KernelScalar+SlowNormalization.swift.
#include "loops.h"

KERNEL void w2svd_layer_norm(const float *x, const float *scale, const float *shift, float offset,
                             float epsilon, size_t groups, size_t rows, size_t width, float *y,
                             float *mean, float *inverse) {
  for (size_t row = 0; row < groups * rows; row++, x += width, y += width) {
    size_t start = row / rows * width;
    float sum;
    SUM(sum, width, GET16(x + j), x[j]);
    const float mu = sum / (float)width;
    // Two passes: the second sees deviations, so large means cost no digits.
    SUM(sum, width, (GET16(x + j) - mu) * (GET16(x + j) - mu), (x[j] - mu) * (x[j] - mu));
    const float factor = 1.0f / sqrtf(sum / (float)width + epsilon);
    mean[row] = mu;
    inverse[row] = factor;
    if (scale && shift) {
      const float *a = scale + start, *b = shift + start;
      INDEPENDENT
      for (size_t i = 0; i < width; i++) y[i] = (x[i] - mu) * factor * (offset + a[i]) + b[i];
    } else if (scale) {
      const float *a = scale + start;
      INDEPENDENT
      for (size_t i = 0; i < width; i++) y[i] = (x[i] - mu) * factor * (offset + a[i]);
    } else if (shift) {
      const float *b = shift + start;
      INDEPENDENT
      for (size_t i = 0; i < width; i++) y[i] = (x[i] - mu) * factor * offset + b[i];
    } else {
      INDEPENDENT
      for (size_t i = 0; i < width; i++) y[i] = (x[i] - mu) * factor * offset;
    }
  }
}

KERNEL void w2svd_layer_norm_backward(const float *dy, const float *x, const float *scale,
                                      float offset, size_t groups, size_t rows, size_t width,
                                      size_t stride, const float *mean, const float *inverse,
                                      float *dx, int accumulating, float *dscale, float *dshift) {
  for (size_t row = 0; row < groups * rows; row++, x += stride, dy += stride) {
    size_t start = row / rows * stride;
    const float mu = mean[row], factor = inverse[row];
    if (dscale) {
      float *ds = dscale + start;
      INDEPENDENT
      for (size_t i = 0; i < width; i++) ds[i] += dy[i] * ((x[i] - mu) * factor);
    }
    if (dshift) {
      float *db = dshift + start;
      INDEPENDENT
      for (size_t i = 0; i < width; i++) db[i] += dy[i];
    }
    if (!dx) continue;
    float *d = dx + row * stride;
    float sum, product;
    if (scale) {
      const float *a = scale + start;
      SUM(sum, width, GET16(dy + j) * (offset + GET16(a + j)), dy[j] * (offset + a[j]));
      SUM(product, width, GET16(dy + j) * (offset + GET16(a + j)) * (GET16(x + j) - mu),
          dy[j] * (offset + a[j]) * (x[j] - mu));
      const float g0 = sum / (float)width, g1 = product * factor / (float)width;
      STORE_EACH(INDEPENDENT, width, accumulating, d[i],
                 factor * (dy[i] * (offset + a[i]) - g0 - (x[i] - mu) * factor * g1));
    } else {
      SUM(sum, width, GET16(dy + j) * offset, dy[j] * offset);
      SUM(product, width, GET16(dy + j) * offset * (GET16(x + j) - mu),
          dy[j] * offset * (x[j] - mu));
      const float g0 = sum / (float)width, g1 = product * factor / (float)width;
      STORE_EACH(INDEPENDENT, width, accumulating, d[i],
                 factor * (dy[i] * offset - g0 - (x[i] - mu) * factor * g1));
    }
  }
}

// The rotation of a pair (a, b) -> (a c − b s, b c + a s) as u · c + swapped(u) · s with the tables
// spread to full width: c twice, s as (−s, s). They serve all heads of a token.
static inline void spread(const float *cosines, const float *sines, size_t width, float *c,
                          float *s) {
  for (size_t i = 0; i < width / 2; i++) {
    c[2 * i] = c[2 * i + 1] = cosines[i];
    s[2 * i] = -sines[i];
    s[2 * i + 1] = sines[i];
  }
}

#define SWAPPED(v) \
  __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14)

KERNEL void w2svd_head_norm(const float *x, const float *gain, const float *cosines,
                            const float *sines, float epsilon, size_t samples, size_t tokens,
                            size_t heads, size_t width, size_t rotated, float *y, float *inverse) {
  float c[W2SVD_LARGEST_HEAD], s[W2SVD_LARGEST_HEAD], ones[W2SVD_LARGEST_HEAD];
  if (!gain) {
    for (size_t i = 0; i < width; i++) ones[i] = 1;
    gain = ones;
  }
  for (size_t row = 0; row < samples * tokens; row++) {
    const size_t token = row % tokens;
    const int rotates = token < rotated;
    if (rotates) spread(cosines + token * (width / 2), sines + token * (width / 2), width, c, s);
    for (size_t head = 0; head < heads; head++, x += width, y += width) {
      float squares;
      SUM(squares, width, GET16(x + j) * GET16(x + j), x[j] * x[j]);
      const float factor = 1.0f / sqrtf(squares / (float)width + epsilon);
      inverse[row * heads + head] = factor;
      if (!rotates) {
        INDEPENDENT16
        for (size_t i = 0; i < width; i++) y[i] = x[i] * factor * gain[i];
        continue;
      }
      size_t i = 0;
      for (; i + 16 <= width; i += 16) {
        v16 u = GET16(x + i) * factor * GET16(gain + i);
        AT16(y + i) = u * GET16(c + i) + SWAPPED(u) * GET16(s + i);
      }
      for (; i < width; i += 2) {
        float a = x[i] * factor * gain[i], b = x[i + 1] * factor * gain[i + 1];
        y[i] = a * c[i] + b * s[i];
        y[i + 1] = b * c[i + 1] + a * s[i + 1];
      }
    }
  }
}

// The gradient of the gain sums over all vectors, or those of each slice of the heads: per token in Float32, over
// tokens in Float64.
KERNEL void w2svd_head_norm_backward(const float *dy, const float *x, const float *gain,
                                     const float *cosines, const float *sines, size_t samples,
                                     size_t tokens, size_t heads, size_t width, size_t rotated,
                                     const float *inverse, float *dx, int accumulating,
                                     float *dgain, size_t slices) {
  float c[W2SVD_LARGEST_HEAD], s[W2SVD_LARGEST_HEAD], ones[W2SVD_LARGEST_HEAD];
  float u[W2SVD_LARGEST_HEAD], part[W2SVD_LARGEST_HEAD];
  double totals[W2SVD_MOST_SLICES][W2SVD_LARGEST_HEAD];
  for (size_t i = 0; i < width; i++) ones[i] = 1;
  for (size_t slice = 0; slice < slices; slice++)
    for (size_t i = 0; i < width; i++) totals[slice][i] = 0;
  const size_t slice_heads = heads / slices;
  if (!gain) gain = ones;
  for (size_t row = 0; row < samples * tokens; row++) {
    const size_t token = row % tokens;
    const int rotates = token < rotated;
    if (rotates) spread(cosines + token * (width / 2), sines + token * (width / 2), width, c, s);
    for (size_t head = 0; head < heads; head++, x += width, dy += width) {
      if (dgain && head % slice_heads == 0)
        for (size_t i = 0; i < width; i++) part[i] = 0;
      // Rotated back: the transposed rotation has the other sign of s.
      size_t i = 0;
      if (rotates) {
        for (; i + 16 <= width; i += 16) {
          v16 g = GET16(dy + i);
          AT16(u + i) = g * GET16(c + i) - SWAPPED(g) * GET16(s + i);
        }
        for (; i < width; i += 2) {
          u[i] = dy[i] * c[i] - dy[i + 1] * s[i];
          u[i + 1] = dy[i + 1] * c[i + 1] - dy[i] * s[i + 1];
        }
      } else {
        memcpy(u, dy, width * sizeof(float));
      }
      const float factor = inverse[row * heads + head];
      if (dgain) {
        INDEPENDENT16
        for (size_t k = 0; k < width; k++) part[k] += u[k] * (x[k] * factor);
        if ((head + 1) % slice_heads == 0) {
          double *const total = totals[head / slice_heads];
          for (size_t k = 0; k < width; k++) total[k] += (double)part[k];
        }
      }
      if (!dx) continue;
      float product;
      SUM(product, width, GET16(u + j) * GET16(gain + j) * GET16(x + j), u[j] * gain[j] * x[j]);
      const float g1 = product * factor / (float)width;
      float *d = dx + (row * heads + head) * width;
      STORE_EACH(INDEPENDENT16, width, accumulating, d[i],
                 factor * (u[i] * gain[i] - x[i] * factor * g1));
    }
  }
  if (dgain)
    for (size_t slice = 0; slice < slices; slice++)
      for (size_t i = 0; i < width; i++) dgain[slice * width + i] += (float)totals[slice][i];
}

KERNEL void w2svd_rotate_rows(const float *x, size_t x_stride, float *y, size_t y_stride,
                              size_t rows, size_t width, const float *cosines, const float *sines,
                              size_t head_width, int backwards, int accumulating) {
  float c[W2SVD_LARGEST_HEAD], s[W2SVD_LARGEST_HEAD];
  spread(cosines, sines, head_width, c, s);
  if (backwards)
    for (size_t i = 0; i < head_width; i++) s[i] = -s[i];
  for (size_t row = 0; row < rows; row++, x += x_stride, y += y_stride) {
    for (size_t head = 0; head < width; head += head_width) {
      const float *u = x + head;
      float *v = y + head;
      size_t i = 0;
      for (; i + 16 <= head_width; i += 16) {
        v16 rotated = GET16(u + i) * GET16(c + i) + SWAPPED(GET16(u + i)) * GET16(s + i);
        if (accumulating) rotated += GET16(v + i);
        AT16(v + i) = rotated;
      }
      for (; i < head_width; i += 2) {
        const float a = u[i] * c[i] + u[i + 1] * s[i];
        const float b = u[i + 1] * c[i + 1] + u[i] * s[i + 1];
        v[i] = accumulating ? v[i] + a : a;
        v[i + 1] = accumulating ? v[i + 1] + b : b;
      }
    }
  }
}
