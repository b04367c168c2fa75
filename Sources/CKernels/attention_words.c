// The softmax of attention between products of packed operands: scores become words on the way.
//
// Goals: 1 the same bits for the same sizes, 2 one pass over a tile for each of softmax and its
// gradient, so that a tile of scores is touched as rarely as it can be.
// Source: FlashAttention-2 (2307.08691), algorithms 1 and 2.
#include "words.h"

#if defined(__x86_64__)
// e^x within 2 ulp for x <= 88; 0 below -87.33; NaN for NaN: 2^n 2^f with n the nearest integer to
// x log2 e, |f| <= 1/2. The polynomial is the best of its degree for the relative error (3e-9).
INLINE __m512 exponential(__m512 x) {
  const __m512 log2_e = _mm512_set1_ps(1.44269504f), rest = _mm512_set1_ps(1.92596299e-8f);
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, log2_e), _MM_FROUND_TO_NEAREST_INT);
  const __m512 f = _mm512_fmadd_ps(x, rest, _mm512_fmsub_ps(x, log2_e, n));
  __m512 p = _mm512_set1_ps(1.5353362e-4f);
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.33988744e-3f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(9.61843736e-3f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.55033247e-2f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.40226479e-1f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.93147203e-1f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
  const __mmask16 counts = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-87.33654f), _CMP_NLT_UQ);
  return _mm512_maskz_scalef_ps(counts, p, n);
}

// Sixteen scores and their bias; columns beyond the mask are −∞. Where `whole`, a constant, there are
// none, and neither is there a bias.
INLINE __m512 score(const float *s, const float *bias, __mmask16 mask, int whole) {
  if (whole) return _mm512_loadu_ps(s);
  __m512 x = _mm512_mask_loadu_ps(_mm512_set1_ps(-INFINITY), mask, s);
  if (bias) x = _mm512_mask_add_ps(x, mask, x, _mm512_maskz_loadu_ps(mask, bias));
  return x;
}

enum { GROUP = 16 };  // rows whose scores stay in the first-level cache

// Largest of `columns` scores from j on, a multiple of 32 unless the rest is less.
INLINE __m512 largest_score(__m512 largest, const float *s, const float *bias, size_t j,
                            size_t columns, int whole) {
  return _mm512_max_ps(
      largest, _mm512_max_ps(score(s + j, bias ? bias + j : NULL, first(columns - j), whole),
                             score(s + j + 16, bias ? bias + j + 16 : NULL,
                                   first(beyond(columns, j + 16)), whole)));
}

INLINE void weigh_row(Words words, float *s, const float *bias, size_t j, size_t columns,
                      __m512 shift, __m512 sum[2], int whole) {
  __m512 p[2];
  UNROLLED for (size_t v = 0; v < 2; v++) {
    const size_t k = j + 16 * v;
    p[v] = exponential(_mm512_sub_ps(
        score(s + k, bias ? bias + k : NULL, first(beyond(columns, k)), whole), shift));
    sum[v] = _mm512_add_ps(sum[v], p[v]);
  }
  if (words == BFLOATS) {
    _mm512_storeu_si512((uint32_t *)s + j / 2, joined(p[0], p[1]));
  } else {
    _mm512_storeu_ps(s + j, p[0]);
    if (whole || j + 16 < columns) _mm512_storeu_ps(s + j + 16, p[1]);
  }
}

INLINE void softmax(Words words, float *scores, size_t rows, size_t columns, const float *bias,
                    float *maximum, float *total, float *factor) {
  const size_t whole = bias ? 0 : columns / 32 * 32;
  for (size_t r0 = 0; r0 < rows; r0 += GROUP) {
    const size_t count = least(rows - r0, GROUP);
    float shifts[GROUP], sums[GROUP];
    for (size_t r = 0; r < count; r++) {
      const float *s = scores + (r0 + r) * W2SVD_ROW_STRIDE;
      __m512 largest = _mm512_set1_ps(maximum[r0 + r]);
      for (size_t j = 0; j < whole; j += 32)
        largest = largest_score(largest, s, bias, j, columns, 1);
      for (size_t j = whole; j < columns; j += 32)
        largest = largest_score(largest, s, bias, j, columns, 0);
      shifts[r] = _mm512_reduce_max_ps(largest);
    }
    for (size_t r = 0; r < count; r++) {
      float *s = scores + (r0 + r) * W2SVD_ROW_STRIDE;
      const __m512 shift = _mm512_set1_ps(shifts[r]);
      __m512 sum[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
      for (size_t j = 0; j < whole; j += 32)
        weigh_row(words, s, bias, j, columns, shift, sum, 1);
      for (size_t j = whole; j < columns; j += 32)
        weigh_row(words, s, bias, j, columns, shift, sum, 0);
      sums[r] = _mm512_reduce_add_ps(_mm512_add_ps(sum[0], sum[1]));
    }
    // A row that has seen nothing yet has maximum −∞, and its total and factor are 0.
    const __mmask16 mask = first(count);
    const __m512 shift = _mm512_maskz_loadu_ps(mask, shifts);
    const __m512 f = exponential(_mm512_sub_ps(_mm512_maskz_loadu_ps(mask, maximum + r0), shift));
    const __m512 sum = _mm512_maskz_loadu_ps(mask, sums);
    _mm512_mask_storeu_ps(factor + r0, mask, f);
    _mm512_mask_storeu_ps(maximum + r0, mask, shift);
    _mm512_mask_storeu_ps(
        total + r0, mask, _mm512_fmadd_ps(_mm512_maskz_loadu_ps(mask, total + r0), f, sum));
  }
}

TARGET void w2svd_softmax_words(int is_bfloat16, float *scores, size_t rows, size_t columns,
                                const float *bias, float *maximum, float *total, float *factor) {
  if (is_bfloat16)
    softmax(BFLOATS, scores, rows, columns, bias, maximum, total, factor);
  else
    softmax(FLOATS, scores, rows, columns, bias, maximum, total, factor);
}

// Probabilities and score gradients of sixteen columns of a row.
INLINE void weigh(const float *s, const float *dp, const float *bias, __mmask16 mask, int whole,
                  __m512 log_sum_exp, __m512 correction, __m512 scale, __m512 *p, __m512 *ds) {
  *p = exponential(_mm512_sub_ps(score(s, bias, mask, whole), log_sum_exp));
  const __m512 d = whole ? _mm512_loadu_ps(dp) : _mm512_maskz_loadu_ps(mask, dp);
  *ds = _mm512_mul_ps(*p, _mm512_mul_ps(_mm512_sub_ps(d, correction), scale));
}

INLINE void float_gradients(float *scores, float *dp, size_t rows, size_t columns,
                            const float *bias, const float *log_sum_exp, const float *correction,
                            float scale) {
  const size_t whole = bias ? 0 : columns / 16 * 16;
  for (size_t r = 0; r < rows; r++) {
    float *s = scores + r * W2SVD_ROW_STRIDE, *d = dp + r * W2SVD_ROW_STRIDE;
    const __m512 shift = _mm512_set1_ps(log_sum_exp[r]), mean = _mm512_set1_ps(correction[r]),
                 factor = _mm512_set1_ps(scale);
    for (size_t j = 0; j < columns; j += 16) {
      __m512 p, ds;
      if (j < whole)
        weigh(s + j, d + j, NULL, 0xffff, 1, shift, mean, factor, &p, &ds);
      else
        weigh(s + j, d + j, bias ? bias + j : NULL, first(columns - j), 0, shift, mean, factor,
              &p, &ds);
      _mm512_storeu_ps(s + j, p);
      _mm512_storeu_ps(d + j, ds);
    }
  }
}

// Two rows and 32 columns from j on; `whole`, a constant: both rows and all columns exist.
INLINE void bfloat16_square(const float *scores, float *dp, size_t r, size_t j, size_t rows,
                            size_t columns, const float *bias, const float *log_sum_exp,
                            const float *correction, float scale, uint32_t *p_pairs,
                            uint32_t *ds_pairs, int whole) {
  __m512 p[2][2], ds[2][2];
  UNROLLED for (size_t i = 0; i < 2; i++) UNROLLED for (size_t v = 0; v < 2; v++) {
    const size_t k = j + 16 * v, row = r + i;
    p[i][v] = ds[i][v] = _mm512_setzero_ps();
    if (whole || (row < rows && k < columns))
      weigh(scores + row * W2SVD_ROW_STRIDE + k, dp + row * W2SVD_ROW_STRIDE + k,
            bias ? bias + k : NULL, first(beyond(columns, k)), whole,
            _mm512_set1_ps(log_sum_exp[row]), _mm512_set1_ps(correction[row]),
            _mm512_set1_ps(scale), &p[i][v], &ds[i][v]);
  }
  UNROLLED for (size_t v = 0; v < 2; v++) {
    const size_t place = r / 2 * W2SVD_ROW_STRIDE + j + 16 * v;
    _mm512_storeu_si512(p_pairs + place, pairs_of(p[0][v], p[1][v]));
    _mm512_storeu_si512(ds_pairs + place, pairs_of(ds[0][v], ds[1][v]));
  }
  UNROLLED for (size_t i = 0; i < 2; i++)
    if (whole || r + i < rows)
      _mm512_storeu_si512((uint32_t *)dp + (r + i) * W2SVD_ROW_STRIDE + j / 2,
                          joined(ds[i][0], ds[i][1]));
}

INLINE void bfloat16_gradients(const float *scores, float *dp, size_t rows, size_t columns,
                               const float *bias, const float *log_sum_exp,
                               const float *correction, float scale, uint32_t *p_pairs,
                               uint32_t *ds_pairs) {
  for (size_t r = 0; r < rows; r += 2) {
    const size_t whole = bias || r + 1 == rows ? 0 : columns / 32 * 32;
    for (size_t j = 0; j < whole; j += 32)
      bfloat16_square(scores, dp, r, j, rows, columns, NULL, log_sum_exp, correction, scale,
                      p_pairs, ds_pairs, 1);
    for (size_t j = whole; j < columns; j += 32)
      bfloat16_square(scores, dp, r, j, rows, columns, bias, log_sum_exp, correction, scale,
                      p_pairs, ds_pairs, 0);
  }
}

TARGET void w2svd_attention_gradients(int is_bfloat16, float *scores, float *dp, size_t rows,
                                      size_t columns, const float *bias, const float *log_sum_exp,
                                      const float *correction, float scale, uint32_t *p_pairs,
                                      uint32_t *ds_pairs) {
  if (is_bfloat16)
    bfloat16_gradients(scores, dp, rows, columns, bias, log_sum_exp, correction, scale, p_pairs,
                       ds_pairs);
  else
    float_gradients(scores, dp, rows, columns, bias, log_sum_exp, correction, scale);
}
#else
void w2svd_softmax_words(int is_bfloat16, float *scores, size_t rows, size_t columns,
                         const float *bias, float *maximum, float *total, float *factor) {
  (void)is_bfloat16, (void)scores, (void)rows, (void)columns, (void)bias, (void)maximum;
  (void)total, (void)factor;
  __builtin_trap();
}

void w2svd_attention_gradients(int is_bfloat16, float *scores, float *dp, size_t rows,
                               size_t columns, const float *bias, const float *log_sum_exp,
                               const float *correction, float scale, uint32_t *p_pairs,
                               uint32_t *ds_pairs) {
  (void)is_bfloat16, (void)scores, (void)dp, (void)rows, (void)columns, (void)bias;
  (void)log_sum_exp, (void)correction, (void)scale, (void)p_pairs, (void)ds_pairs;
  __builtin_trap();
}
#endif
