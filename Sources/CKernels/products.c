// Matrix products on bfloat16 operands: c = scale · a b (+ c), a and b rounded from float32 to the
// nearest bfloat16 while they are packed, products and sums in float32.
//
// Goals: 1 the same bits for the same sizes, 2 speed at the sizes of a transformer's layers, without
// an extra pass that converts operands. A tile of 12 × 32 sums stays in registers; a is packed for
// blocks of 240 rows, b for panels of 32 columns, k in pairs as vdpbf16ps takes them. A block of a
// (at most 260 KiB) stays in the second-level cache, a panel of b (32 KiB) in the first.
// Source of the blocking: Goto and van de Geijn, Anatomy of high-performance matrix multiplication.
#include "loops.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>

#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))
#define INLINE TARGET static inline __attribute__((always_inline))
#define UNROLLED _Pragma("clang loop unroll(full)")

enum {
  TILE_ROWS = 12,
  TILE_COLUMNS = 32,
  ROW_BLOCK = 240,
  PAIR_BLOCK = 256,  // pairs of k
  COLUMN_BLOCK = 1024,
  ROW_STRIDE = PAIR_BLOCK + 16,  // pairs from row to row of a; 17 cache lines, so rows spread
};

int w2svd_has_bfloat16(void) {
  unsigned a, b, c, d;
  return w2svd_has_avx512() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 5);
}

INLINE __mmask16 first(size_t count) {
  return count >= 16 ? 0xffff : (__mmask16)((1u << count) - 1);
}

static inline size_t least(size_t x, size_t y) { return x < y ? x : y; }
static inline size_t beyond(size_t x, size_t y) { return x > y ? x - y : 0; }

// One tile of c. a: pair p of row r at a[r · row + p · step]; b: 32 pairs per p. row, step and
// vectors (16 columns each) are constants where this is inlined.
INLINE void tile(const uint32_t *a, size_t row, size_t step, const uint32_t *b, size_t pairs,
                 const float *bias, float *c, size_t c_row, size_t rows, size_t columns,
                 int vectors, float scale, int accumulating) {
  __m512 sum[TILE_ROWS][2];
  UNROLLED for (int r = 0; r < TILE_ROWS; r++) sum[r][0] = sum[r][1] = _mm512_setzero_ps();
  for (size_t p = 0; p < pairs; p++, a += step, b += TILE_COLUMNS) {
    const __m512bh b0 = (__m512bh)_mm512_loadu_si512(b);
    const __m512bh b1 = (__m512bh)_mm512_loadu_si512(b + 16);
    UNROLLED for (int r = 0; r < TILE_ROWS; r++) {
      const __m512bh x = (__m512bh)_mm512_set1_epi32((int)a[r * row]);
      sum[r][0] = _mm512_dpbf16_ps(sum[r][0], x, b0);
      if (vectors > 1) sum[r][1] = _mm512_dpbf16_ps(sum[r][1], x, b1);
    }
  }
  const __m512 factor = _mm512_set1_ps(scale);
  UNROLLED for (int r = 0; r < TILE_ROWS; r++) {
    if ((size_t)r >= rows) break;
    UNROLLED for (int v = 0; v < vectors; v++) {
      float *target = c + r * c_row + 16 * v;
      const __mmask16 mask = first(beyond(columns, 16 * (size_t)v));
      __m512 value = _mm512_mul_ps(factor, sum[r][v]);
      if (accumulating) value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(mask, target));
      if (bias) value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(mask, bias + 16 * v));
      _mm512_mask_storeu_ps(target, mask, value);
    }
  }
}

typedef void Tile(const uint32_t *a, const uint32_t *b, size_t pairs, const float *bias, float *c,
                  size_t c_row, size_t rows, size_t columns, float scale, int accumulating);

#define TILE(name, row, step, vectors)                                                        \
  TARGET static void name(const uint32_t *a, const uint32_t *b, size_t pairs,                 \
                          const float *bias, float *c, size_t c_row, size_t rows,             \
                          size_t columns, float scale, int accumulating) {                    \
    tile(a, row, step, b, pairs, bias, c, c_row, rows, columns, vectors, scale, accumulating); \
  }
TILE(tile_rows_wide, ROW_STRIDE, 1, 2)
TILE(tile_rows_narrow, ROW_STRIDE, 1, 1)
TILE(tile_columns_wide, 1, TILE_ROWS, 2)
TILE(tile_columns_narrow, 1, TILE_ROWS, 1)

// Two vectors of elements k … k+31 as 16 pairs.
INLINE __m512i pairs_of(const float *x, size_t count) {
  return (__m512i)_mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps(first(beyond(count, 16)), x + 16),
                                      _mm512_maskz_loadu_ps(first(count), x));
}

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

// Lines along k (x[line · stride + k]) as they are: pairs of line l from out[l · ROW_STRIDE] on.
TARGET static void convert_lines(const float *x, size_t stride, size_t lines, size_t inner,
                                 uint32_t *out) {
  for (size_t l = 0; l < lines; l++)
    for (size_t k = 0; k < inner; k += 32)
      _mm512_storeu_si512(out + l * ROW_STRIDE + k / 2,
                          pairs_of(x + l * stride + k, inner - k));
}

// Lines along k, crossed: out[p · 32 + l] for up to 32 lines; further ones are zero.
TARGET static void cross_lines(const float *x, size_t stride, size_t lines, size_t inner,
                               uint32_t *out) {
  const size_t pairs = (inner + 1) / 2;
  for (size_t l = 0; l < TILE_COLUMNS; l += 16)
    for (size_t k = 0; k < inner; k += 32) {
      __m512i r[16];
      UNROLLED for (int i = 0; i < 16; i++)
        r[i] = l + i < lines ? pairs_of(x + (l + i) * stride + k, inner - k)
                             : _mm512_setzero_si512();
      transpose16(r);
      UNROLLED for (int i = 0; i < 16; i++)
        if (k / 2 + i < pairs) _mm512_storeu_si512(out + (k / 2 + i) * TILE_COLUMNS + l, r[i]);
    }
}

// Lines across k (x[k · stride + line]), `width` of them per panel (12 or 32), panels `next` pairs
// apart: out[panel · next + p · width + l]. A last panel is filled up with zeros.
INLINE void interleave(const float *x, size_t stride, size_t lines, size_t inner, size_t width,
                       size_t group, size_t next, uint32_t *out) {
  const __m512i order =
      _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                       21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  // Panels in groups, so that each cache line of x is read once and written streams stay few.
  for (size_t l0 = 0; l0 < lines; l0 += group * width)
    for (size_t k = 0; k < inner; k += 2) {
      const float *low = x + k * stride, *high = low + stride;
      for (size_t l = l0; l < least(lines, l0 + group * width); l += width)
        UNROLLED for (size_t v = 0; v < width; v += 16) {
          const size_t here = least(width - v, beyond(lines, l + v));
          const __mmask16 mask = first(here);
          const __m512i both = (__m512i)_mm512_cvtne2ps_pbh(
              _mm512_maskz_loadu_ps(k + 1 < inner ? mask : 0, high + l + v),
              _mm512_maskz_loadu_ps(mask, low + l + v));
          _mm512_mask_storeu_epi32(out + l / width * next + k / 2 * width + v, first(width - v),
                                   _mm512_permutexvar_epi16(order, both));
        }
    }
}

TARGET static void interleave_rows(const float *x, size_t stride, size_t lines, size_t inner,
                                   size_t next, uint32_t *out) {
  interleave(x, stride, lines, inner, TILE_ROWS, 4, next, out);
}

TARGET static void interleave_columns(const float *x, size_t stride, size_t lines, size_t inner,
                                      size_t next, uint32_t *out) {
  interleave(x, stride, lines, inner, TILE_COLUMNS, 2, next, out);
}

// Blocks of about equal size: a multiple of `unit`, at most `largest`, which is one too.
static size_t block_size(size_t count, size_t largest, size_t unit) {
  const size_t blocks = (count + largest - 1) / largest;
  return ((count + blocks - 1) / blocks + unit - 1) / unit * unit;
}

// Pairs that the packed block of b takes at most; grows with both sizes.
static size_t packed_b_size(size_t inner, size_t columns) {
  const size_t pairs = least((inner + 31) / 32 * 16, PAIR_BLOCK);
  return pairs * ((least(columns, COLUMN_BLOCK) + TILE_COLUMNS - 1) / TILE_COLUMNS * TILE_COLUMNS);
}

size_t w2svd_multiply_bfloat16_workspace(size_t rows, size_t inner, size_t columns) {
  const size_t row_block = least((rows + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS, ROW_BLOCK);
  return sizeof(uint32_t) * (packed_b_size(inner, columns) + ROW_STRIDE * row_block);
}

void w2svd_multiply_bfloat16(const float *a, size_t a_stride, int a_crossed, const float *b,
                             size_t b_stride, int b_crossed, const float *bias, float *c,
                             size_t c_stride, size_t rows, size_t inner, size_t columns,
                             float scale, int accumulating, void *workspace) {
  const size_t inner_block = block_size(inner, 2 * PAIR_BLOCK, 32);
  const size_t row_block = block_size(rows, ROW_BLOCK, TILE_ROWS);
  uint32_t *const packed_b = workspace;
  uint32_t *const packed_a = packed_b + packed_b_size(inner, columns);
  for (size_t j0 = 0; j0 < columns; j0 += COLUMN_BLOCK) {
    const size_t width = least(columns - j0, COLUMN_BLOCK);
    for (size_t k0 = 0; k0 < inner; k0 += inner_block) {
      const size_t depth = least(inner - k0, inner_block), pairs = (depth + 1) / 2;
      const size_t next_b = pairs * TILE_COLUMNS;
      if (b_crossed)
        for (size_t j = 0; j < width; j += TILE_COLUMNS)
          cross_lines(b + (j0 + j) * b_stride + k0, b_stride, width - j, depth,
                      packed_b + j / TILE_COLUMNS * next_b);
      else
        interleave_columns(b + k0 * b_stride + j0, b_stride, width, depth, next_b, packed_b);
      for (size_t i0 = 0; i0 < rows; i0 += row_block) {
        const size_t height = least(rows - i0, row_block);
        const size_t next_a = a_crossed ? pairs * TILE_ROWS : (size_t)ROW_STRIDE * TILE_ROWS;
        if (a_crossed)
          interleave_rows(a + k0 * a_stride + i0, a_stride, height, depth, next_a, packed_a);
        else
          convert_lines(a + i0 * a_stride + k0, a_stride, height, depth, packed_a);
        for (size_t j = 0; j < width; j += TILE_COLUMNS) {
          const size_t tile_columns = least(width - j, TILE_COLUMNS);
          Tile *const tile = tile_columns > 16 ? a_crossed ? tile_columns_wide : tile_rows_wide
                             : a_crossed       ? tile_columns_narrow
                                               : tile_rows_narrow;
          for (size_t i = 0; i < height; i += TILE_ROWS)
            tile(packed_a + i / TILE_ROWS * next_a, packed_b + j / TILE_COLUMNS * next_b, pairs,
                 bias && k0 == 0 ? bias + j0 + j : NULL, c + (i0 + i) * c_stride + j0 + j, c_stride, least(height - i, TILE_ROWS),
                 tile_columns, scale, accumulating || k0 > 0);
        }
      }
    }
  }
}
#else
int w2svd_has_bfloat16(void) { return 0; }
size_t w2svd_multiply_bfloat16_workspace(size_t rows, size_t inner, size_t columns) {
  (void)rows, (void)inner, (void)columns;
  return 0;
}
void w2svd_multiply_bfloat16(const float *a, size_t a_stride, int a_crossed, const float *b,
                             size_t b_stride, int b_crossed, const float *bias, float *c,
                             size_t c_stride, size_t rows, size_t inner, size_t columns,
                             float scale, int accumulating, void *workspace) {
  (void)a, (void)a_stride, (void)a_crossed, (void)b, (void)b_stride, (void)b_crossed, (void)c, (void)bias;
  (void)c_stride, (void)rows, (void)inner, (void)columns, (void)scale, (void)accumulating;
  (void)workspace;
  __builtin_trap();
}
#endif
