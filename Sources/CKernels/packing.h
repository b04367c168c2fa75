// Packing of the operands of products: into lines of words, or panels of 32 lines side by side. Inlined into
// products.c, which packs block by block, and packing.c, which packs ahead.
#ifndef W2SVD_PACKING_H
#define W2SVD_PACKING_H
#include "words.h"

#if defined(__x86_64__)

enum {
  TILE_ROWS = W2SVD_TILE_ROWS,
  TILE_COLUMNS = W2SVD_TILE_COLUMNS,
  ROW_STRIDE = W2SVD_ROW_STRIDE,  // words from row to row of a; 17 cache lines, so rows spread
  COLUMN_GROUP = 8,  // panels that are packed side by side
};

INLINE void transpose16(__m512i r[16]) {
  __m512i t[16];
  UNROLLED for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
  UNROLLED for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  UNROLLED for (int i = 0; i < 4; i++) {
    t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
  }
  UNROLLED for (int i = 0; i < 4; i++) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
    r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
    r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
    r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
  }
}

// Where packing steps from one line of x to the next, the hardware does not foresee it; hence the
// prefetches. They may point beyond x, which is harmless.

// Lines along k (x[line · stride + k]) as they are: words of line l from out[l · ROW_STRIDE] on.
INLINE void copy_lines(Words words, const float *x, size_t stride, size_t lines, size_t inner,
                       uint32_t *out) {
  for (size_t l = 0; l < lines; l++)
    for (size_t k = 0; k < inner; k += 16 * words) {
      const float *line = x + l * stride + k;
      __builtin_prefetch(line + 2 * stride);
      if (words == BFLOATS) __builtin_prefetch(line + 2 * stride + 16);
      _mm512_storeu_si512(out + l * ROW_STRIDE + k / words, words_of(words, line, inner - k));
    }
}

// Lines along k, crossed: out[p · 32 + l] for up to 32 lines; further ones are zero.
INLINE void cross_lines(Words words, const float *x, size_t stride, size_t lines, size_t inner,
                        uint32_t *out) {
  const size_t depth = (inner + words - 1) / words;
  for (size_t l = 0; l < TILE_COLUMNS; l += 16)
    for (size_t k = 0; k < inner; k += 16 * words) {
      __m512i r[16];
      UNROLLED for (int i = 0; i < 16; i++)
        r[i] = l + i < lines ? words_of(words, x + (l + i) * stride + k, inner - k)
                             : _mm512_setzero_si512();
      transpose16(r);
      uint32_t *target = out + k / words * TILE_COLUMNS + l;
      if (k / words + 16 <= depth) {
        UNROLLED for (int i = 0; i < 16; i++) _mm512_storeu_si512(target + i * TILE_COLUMNS, r[i]);
      } else {
        UNROLLED for (int i = 0; i < 16; i++)
          if (k / words + i < depth) _mm512_storeu_si512(target + i * TILE_COLUMNS, r[i]);
      }
    }
}

// Sixteen lines across k (x[k · stride + line]) as words; of the last, `high` may not exist.
INLINE __m512i crossed_words(Words words, const float *low, size_t stride, __mmask16 mask,
                             int has_high) {
  const __m512 lower = _mm512_maskz_loadu_ps(mask, low);
  __builtin_prefetch(low + 8 * words * stride);
  if (words == FLOATS) return (__m512i)lower;
  __builtin_prefetch(low + (8 * words + 1) * stride);
  return pairs_of(lower, _mm512_maskz_loadu_ps(has_high ? mask : 0, low + stride));
}

// Lines across k in panels of 32, `next` words apart: out[panel · next + p · 32 + l]. A last panel is
// filled up with zeros.
INLINE void interleave(Words words, const float *x, size_t stride, size_t lines, size_t inner,
                       size_t next, uint32_t *out) {
  // Panels in groups: long stretches of x are read at a time, and written streams stay few.
  for (size_t l0 = 0; l0 < lines; l0 += COLUMN_GROUP * TILE_COLUMNS)
    for (size_t k = 0; k < inner; k += words)
      for (size_t l = l0; l < least(lines, l0 + COLUMN_GROUP * TILE_COLUMNS); l += TILE_COLUMNS)
        UNROLLED for (size_t v = 0; v < TILE_COLUMNS; v += 16)
          _mm512_storeu_si512(
              out + l / TILE_COLUMNS * next + k / words * TILE_COLUMNS + v,
              crossed_words(words, x + k * stride + l + v, stride,
                            first(least(16, beyond(lines, l + v))), k + 1 < inner));
}

// At most 256 lines across k as they lie: out[p · ROW_STRIDE + l].
INLINE void copy_across(Words words, const float *x, size_t stride, size_t lines, size_t inner,
                        uint32_t *out) {
  for (size_t k = 0; k < inner; k += words)
    for (size_t l = 0; l < lines; l += 16)
      _mm512_storeu_si512(out + k / words * ROW_STRIDE + l,
                          crossed_words(words, x + k * stride + l, stride,
                                        first(least(16, lines - l)), k + 1 < inner));
}

// The k from k0 on, `length` of them, of the terms one after the other: what part of a term they are.
typedef struct {
  size_t first, count, offset;  // first k of the term, how many, words from the block's start
} Stretch;

static inline Stretch stretch_of(size_t words, size_t term_start, size_t term_inner, size_t k0,
                                 size_t length) {
  const size_t start = term_start > k0 ? term_start : k0;
  const size_t end = least(term_start + term_inner, k0 + length);
  return (Stretch){start - term_start, beyond(end, start), beyond(start, k0) / words};
}

// Packs the k from k0 on, `length` of them, of the b of all terms that have one, for columns from j0 on:
// panels `next` words apart, beginning `skipped` words along k into the block.
INLINE void pack_b(Words words, const struct w2svd_term *terms, size_t term_count, int crossed,
                   size_t k0, size_t length, size_t skipped, size_t j0, size_t width, size_t next,
                   uint32_t *packed) {
  for (size_t t = 0, start = 0; t < term_count; start += terms[t++].inner) {
    const Stretch k = stretch_of(words, start, terms[t].inner, k0, length);
    const size_t stride = terms[t].b_stride;
    if (k.count == 0 || !terms[t].b) continue;
    uint32_t *const panel = packed + (k.offset - skipped) * TILE_COLUMNS;
    if (crossed)
      for (size_t j = 0; j < width; j += TILE_COLUMNS)
        cross_lines(words, terms[t].b + (j0 + j) * stride + k.first, stride, width - j, k.count,
                    panel + j / TILE_COLUMNS * next);
    else
      interleave(words, terms[t].b + k.first * stride + j0, stride, width, k.count, next, panel);
  }
}
#endif
#endif
