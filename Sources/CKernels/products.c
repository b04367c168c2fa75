// Matrix products: c = scale · Σ_t a_t b_t (+ bias, + c), on operands as they are or rounded from float32 to the
// nearest bfloat16 while they are packed; products and sums in float32.
//
// Goals: 1 the same bits for the same sizes, 2 speed at the sizes of a transformer's layers, without
// an extra pass that converts or transposes operands. Packed operands consist of words of 32 bits: one
// float, or two bfloat16 that follow each other along k, as vdpbf16ps takes them; all but the
// conversion and the multiplication is the same for both. A tile of 12 × 32 sums stays in
// registers; a is packed for blocks of 240 rows, b for panels of 32 columns. A block of a (at most
// 260 KiB) stays in the second-level cache, a panel of b (32 KiB) in the first.
// Slices: where the sum is cut into slices that meet in the tree of Sources/MeshLayout/TreeOrder.swift, each is a
// product by itself; a tile of it is added to those of its left neighbors while it is in the first-level cache.
// Source of the blocking: Goto and van de Geijn, Anatomy of high-performance matrix multiplication.
#include "packing.h"

#if defined(__x86_64__)
#include <cpuid.h>

enum {
  ROW_BLOCK = 240,
  WORD_BLOCK = 256,  // words along k
  COLUMN_BLOCK = 1024,
  PLANE_BYTES = 8 << 20,  // partial sums of slices that are held at once, about
};

int w2svd_has_bfloat16(void) {
  unsigned a, b, c, d;
  return w2svd_has_avx512() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 5);
}

INLINE __m512 multiply_add(Words words, __m512 sum, __m512i a, __m512i b) {
  return words == FLOATS ? _mm512_fmadd_ps((__m512)a, (__m512)b, sum)
                         : _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
}

// A panel of b: `depth` times 32 words.
typedef struct {
  const uint32_t *words;
  size_t depth;
} Panel;

// One tile of c. a: word p of row r at a[r · row + p · step]; b: two panels, one after the other along k.
// words, row, step and vectors (16 columns each) are constants where this is inlined.
INLINE void tile(Words words, const uint32_t *a, size_t row, size_t step, const Panel panels[2],
                 const float *bias, float *c, size_t c_row, size_t rows, size_t columns, int vectors,
                 float scale, int accumulating) {
  __m512 sum[TILE_ROWS][2];
  UNROLLED for (int r = 0; r < TILE_ROWS; r++) sum[r][0] = sum[r][1] = _mm512_setzero_ps();
  // The tile of c is fetched while the sums are formed: its rows lie far apart.
  UNROLLED for (int r = 0; r < TILE_ROWS; r++) {
    if ((size_t)r >= rows) break;
    __builtin_prefetch(c + r * c_row, 1);
    if (vectors > 1) __builtin_prefetch(c + r * c_row + 16, 1);
    __builtin_prefetch(c + r * c_row + columns - 1, 1);
  }
  for (int part = 0; part < 2; part++) {
    const uint32_t *b = panels[part].words;
    for (size_t p = panels[part].depth; p > 0; p--, a += step, b += TILE_COLUMNS) {
      const __m512i b0 = _mm512_loadu_si512(b), b1 = _mm512_loadu_si512(b + 16);
      UNROLLED for (int r = 0; r < TILE_ROWS; r++) {
        const __m512i x = _mm512_set1_epi32((int)a[r * row]);
        sum[r][0] = multiply_add(words, sum[r][0], x, b0);
        if (vectors > 1) sum[r][1] = multiply_add(words, sum[r][1], x, b1);
      }
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

typedef void Tile(const uint32_t *a, const Panel panels[2], const float *bias, float *c,
                  size_t c_row, size_t rows, size_t columns, float scale, int accumulating);

#define TILE(name, words, row, step, vectors)                                                   \
  TARGET static void name(const uint32_t *a, const Panel panels[2], const float *bias,          \
                          float *c, size_t c_row, size_t rows, size_t columns, float scale,     \
                          int accumulating) {                                                   \
    tile(words, a, row, step, panels, bias, c, c_row, rows, columns, vectors, scale,            \
         accumulating);                                                                         \
  }
TILE(float_rows_wide, FLOATS, ROW_STRIDE, 1, 2)
TILE(float_rows_narrow, FLOATS, ROW_STRIDE, 1, 1)
TILE(float_crossed_wide, FLOATS, 1, ROW_STRIDE, 2)
TILE(float_crossed_narrow, FLOATS, 1, ROW_STRIDE, 1)
TILE(bfloat_rows_wide, BFLOATS, ROW_STRIDE, 1, 2)
TILE(bfloat_rows_narrow, BFLOATS, ROW_STRIDE, 1, 1)
TILE(bfloat_crossed_wide, BFLOATS, 1, ROW_STRIDE, 2)
TILE(bfloat_crossed_narrow, BFLOATS, 1, ROW_STRIDE, 1)

// Blocks of about equal size: a multiple of `unit`, at most `largest`, which is one too.
static size_t block_size(size_t count, size_t largest, size_t unit) {
  const size_t blocks = (count + largest - 1) / largest;
  return ((count + blocks - 1) / blocks + unit - 1) / unit * unit;
}

// Words that the packed block of b takes at most; grows with both sizes.
static size_t packed_b_size(size_t words, size_t inner, size_t columns) {
  const size_t depth = least((inner + 16 * words - 1) / (16 * words) * 16, WORD_BLOCK);
  return depth * ((least(columns, COLUMN_BLOCK) + TILE_COLUMNS - 1) / TILE_COLUMNS * TILE_COLUMNS);
}

// Words of both packed blocks.
static size_t packed_size(size_t words, size_t rows, size_t inner, size_t columns) {
  const size_t row_block = least((rows + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS, ROW_BLOCK);
  const size_t depth = least((inner + words - 1) / words, WORD_BLOCK);
  const size_t lines = row_block > depth ? row_block : depth;
  return packed_b_size(words, inner, columns) + ROW_STRIDE * lines;
}

// Partial sums beside c: while slice i is added, those of the binary digits of i are held, and its own.
static size_t plane_count(size_t slices) {
  size_t planes = 0;
  for (size_t i = 0; i < slices; i++)
    if (planes < (size_t)__builtin_popcountll(i)) planes = (size_t)__builtin_popcountll(i);
  return planes;
}

// Rows that are computed at a time: with slices so many that partial sums stay in the third-level cache.
static size_t stripe_rows(size_t slices, size_t rows, size_t columns) {
  const size_t planes = plane_count(slices);
  if (planes == 0) return rows;
  const size_t fit = PLANE_BYTES / sizeof(float) / planes / least(columns, COLUMN_BLOCK);
  const size_t most = (fit > 2 * ROW_BLOCK ? fit : 2 * ROW_BLOCK) / TILE_ROWS * TILE_ROWS;
  return least(rows, most);
}

static size_t plane_size(size_t slices, size_t rows, size_t columns) {
  return stripe_rows(slices, rows, columns) * least(columns, COLUMN_BLOCK);
}

static size_t workspace_size(size_t words, size_t rows, size_t inner, size_t columns, size_t slices) {
  return sizeof(uint32_t) * packed_size(words, rows, inner, columns)
         + sizeof(float) * plane_count(slices) * plane_size(slices, rows, columns);
}

// Has one of `parts` parts of `count` words brought near. They may lie beyond an allocation's end, which is
// harmless.
static inline void fetch_part(const uint32_t *words, size_t count, size_t part, size_t parts) {
  const size_t length = (count / 16 + parts - 1) / parts * 16;
  for (size_t line = 0; line < length; line += 16)
    __builtin_prefetch(words + part * length + line, 0, 2);
}

// A stretch of memory for sums: c itself, or a partial sum of slices.
typedef struct {
  float *sums;
  size_t stride;
} Plane;

// left += right, a tile of each.
INLINE void add_tile(Plane left, Plane right, size_t place_row, size_t place, size_t rows,
                     size_t columns) {
  for (size_t r = 0; r < rows; r++) {
    float *const sum = left.sums + (place_row + r) * left.stride + place;
    const float *const term = right.sums + (place_row + r) * right.stride + place;
    for (size_t v = 0; v < columns; v += 16) {
      const __mmask16 mask = first(least(16, columns - v));
      _mm512_mask_storeu_ps(sum + v, mask,
                            _mm512_add_ps(_mm512_maskz_loadu_ps(mask, sum + v),
                                          _mm512_maskz_loadu_ps(mask, term + v)));
    }
  }
}

// One stripe of c. The terms are those of `slices` slices, a power of two of them, each of `inner` along k.
INLINE void multiply_stripe(Words words, Tile *const tiles[2][2], const struct w2svd_term *terms,
                            size_t term_count, size_t slices, size_t inner,
                            const struct w2svd_packed *ahead, int a_crossed, int b_crossed,
                            const float *bias, float *c, size_t c_stride, size_t row0, size_t rows,
                            size_t columns, float scale, int accumulating, uint32_t *packed_b,
                            uint32_t *packed_a, float *planes) {
  const size_t inner_block = block_size(inner, words * WORD_BLOCK, 16 * words);
  const size_t row_block = block_size(rows, ROW_BLOCK, TILE_ROWS);
  for (size_t j0 = 0; j0 < columns; j0 += COLUMN_BLOCK) {
    const size_t width = least(columns - j0, COLUMN_BLOCK);
    for (size_t s = 0, first_term = 0, end_term; s < slices; s++, first_term = end_term) {
      size_t gathered = 0;
      for (end_term = first_term; end_term < term_count && gathered < inner; end_term++)
        gathered += terms[end_term].inner;
      const struct w2svd_term *const own = terms + first_term;
      const size_t own_count = end_term - first_term, packed_start = s * inner;
      // A slice at an odd place meets its left neighbor, the sum of both perhaps another one, and so on. One that is
      // a single block is added to the first of them where it is formed.
      const size_t place = (size_t)__builtin_popcountll(s);
      const size_t meetings = (size_t)__builtin_ctzll(~(unsigned long long)s);
      const size_t at_once = inner <= inner_block && meetings > 0;
      Plane held[16];
      for (size_t p = 0; p <= place; p++)
        held[p] = p == 0 ? (Plane){c + row0 * c_stride + j0, c_stride}
                         : (Plane){planes + (p - 1) * rows * least(columns, COLUMN_BLOCK), width};
      const Plane target = held[place - at_once];
      for (size_t k0 = 0; k0 < inner; k0 += inner_block) {
        const size_t length = least(inner - k0, inner_block), depth = (length + words - 1) / words;
        const int is_end = k0 + length == inner;
        // The first words of a block may have been packed ahead; the others are packed here.
        const size_t from = packed_start + k0;
        const size_t ready = ahead ? (least(beyond(ahead->inner, from), length) + words - 1) / words : 0;
        const size_t next_b = (depth - ready) * TILE_COLUMNS;
        pack_b(words, own, own_count, b_crossed, k0, length, ready, j0, width, next_b, packed_b);
        for (size_t i0 = 0; i0 < rows; i0 += row_block) {
          const size_t height = least(rows - i0, row_block);
          const size_t next_a = a_crossed ? TILE_ROWS : (size_t)ROW_STRIDE * TILE_ROWS;
          const size_t row_tiles = (height + TILE_ROWS - 1) / TILE_ROWS;
          for (size_t t = 0, start = 0; t < own_count; start += own[t++].inner) {
            const Stretch k = stretch_of(words, start, own[t].inner, k0, length);
            const size_t stride = own[t].a_stride, i = row0 + i0;
            if (k.count == 0) continue;
            if (a_crossed)
              copy_across(words, own[t].a + k.first * stride + i, stride, height, k.count,
                          packed_a + k.offset * ROW_STRIDE);
            else
              copy_lines(words, own[t].a + i * stride + k.first, stride, height, k.count,
                         packed_a + k.offset);
          }
          for (size_t j = 0; j < width; j += TILE_COLUMNS) {
            const size_t tile_columns = least(width - j, TILE_COLUMNS);
            Tile *const tile = tiles[a_crossed != 0][tile_columns <= 16];
            const Panel panels[2] = {
                {ready ? ahead->words + (j0 + j) / TILE_COLUMNS * ahead->panel_stride
                             + from / words * TILE_COLUMNS
                       : NULL,
                 ready},
                {packed_b + j / TILE_COLUMNS * next_b, depth - ready}};
            const uint32_t *next = ready ? panels[0].words + ahead->panel_stride : NULL;
            const float *const row = bias ? bias + j0 + j : NULL;
            for (size_t i = 0; i < height; i += TILE_ROWS) {
              // What was packed ahead comes from beyond the second-level cache: each tile fetches a part
              // of the next panel.
              if (next) fetch_part(next, ready * TILE_COLUMNS, i / TILE_ROWS, row_tiles);
              const size_t tile_rows = least(height - i, TILE_ROWS);
              tile(packed_a + i / TILE_ROWS * next_a, panels,
                   slices == 1 && k0 == 0 ? row : NULL,
                   target.sums + (i0 + i) * target.stride + j, target.stride, tile_rows,
                   tile_columns, scale, accumulating || at_once || k0 > 0);
              if (!is_end || slices == 1) continue;
              for (size_t p = place - at_once; p > place - meetings; p--)
                add_tile(held[p - 1], held[p], i0 + i, j, tile_rows, tile_columns);
              if (row && s + 1 == slices)
                add_tile(held[0], (Plane){(float *)bias + j0, 0}, i0 + i, j, tile_rows, tile_columns);
            }
          }
        }
      }
    }
  }
}

INLINE void multiply(Words words, Tile *const tiles[2][2], const struct w2svd_term *terms,
                     size_t term_count, size_t slices, const struct w2svd_packed *ahead,
                     int a_crossed, int b_crossed, const float *bias, float *c, size_t c_stride,
                     size_t rows, size_t columns, float scale, int accumulating, void *workspace) {
  size_t inner = 0;
  for (size_t t = 0; t < term_count; t++) inner += terms[t].inner;
  inner /= slices;
  uint32_t *const packed_b = workspace;
  uint32_t *const packed_a = packed_b + packed_b_size(words, inner, columns);
  float *const planes = (float *)(packed_b + packed_size(words, rows, inner, columns));
  const size_t stripe = stripe_rows(slices, rows, columns);
  for (size_t row0 = 0; row0 < rows; row0 += stripe)
    multiply_stripe(words, tiles, terms, term_count, slices, inner, ahead, a_crossed, b_crossed,
                    bias, c, c_stride, row0, least(rows - row0, stripe), columns, scale,
                    accumulating, packed_b, packed_a, planes);
}

size_t w2svd_multiply_float_workspace(size_t rows, size_t inner, size_t columns, size_t slices) {
  return workspace_size(FLOATS, rows, inner, columns, slices);
}

TARGET void w2svd_multiply_float(const struct w2svd_term *terms, size_t term_count, size_t slices,
                                 const struct w2svd_packed *ahead, int a_crossed, int b_crossed,
                                 const float *bias, float *c, size_t c_stride, size_t rows,
                                 size_t columns, float scale, int accumulating, void *workspace) {
  static Tile *const tiles[2][2] = {{float_rows_wide, float_rows_narrow},
                                    {float_crossed_wide, float_crossed_narrow}};
  multiply(FLOATS, tiles, terms, term_count, slices, ahead, a_crossed, b_crossed, bias, c, c_stride,
           rows, columns, scale, accumulating, workspace);
}

size_t w2svd_multiply_bfloat16_workspace(size_t rows, size_t inner, size_t columns, size_t slices) {
  return workspace_size(BFLOATS, rows, inner, columns, slices);
}

TARGET void w2svd_multiply_bfloat16(const struct w2svd_term *terms, size_t term_count, size_t slices,
                                    const struct w2svd_packed *ahead, int a_crossed, int b_crossed,
                                    const float *bias, float *c, size_t c_stride, size_t rows,
                                    size_t columns, float scale, int accumulating,
                                    void *workspace) {
  static Tile *const tiles[2][2] = {{bfloat_rows_wide, bfloat_rows_narrow},
                                    {bfloat_crossed_wide, bfloat_crossed_narrow}};
  multiply(BFLOATS, tiles, terms, term_count, slices, ahead, a_crossed, b_crossed, bias, c, c_stride,
           rows, columns, scale, accumulating, workspace);
}

void w2svd_multiply_packed(int is_bfloat16, const uint32_t *a, int a_crossed, const uint32_t *b,
                           size_t depth, float *c, size_t c_stride, size_t rows, size_t columns,
                           float scale, int accumulating) {
  static Tile *const tiles[2][2][2] = {
      {{float_rows_wide, float_rows_narrow}, {float_crossed_wide, float_crossed_narrow}},
      {{bfloat_rows_wide, bfloat_rows_narrow}, {bfloat_crossed_wide, bfloat_crossed_narrow}}};
  const size_t next_a = a_crossed ? TILE_ROWS : (size_t)ROW_STRIDE * TILE_ROWS;
  const size_t row_tiles = (rows + TILE_ROWS - 1) / TILE_ROWS;
  const size_t panel = depth * TILE_COLUMNS;
  for (size_t j = 0; j < columns; j += TILE_COLUMNS, b += panel) {
    const size_t tile_columns = least(columns - j, TILE_COLUMNS);
    Tile *const tile = tiles[is_bfloat16 != 0][a_crossed != 0][tile_columns <= 16];
    const Panel panels[2] = {{b, depth}, {NULL, 0}};
    for (size_t i = 0; i < row_tiles; i++) {
      // The next panel comes from beyond the second-level cache where a head is long.
      fetch_part(b + panel, panel, i, row_tiles);
      tile(a + i * next_a, panels, NULL, c + i * TILE_ROWS * c_stride + j, c_stride,
           least(rows - i * TILE_ROWS, TILE_ROWS), tile_columns, scale, accumulating);
    }
  }
}
#else
int w2svd_has_bfloat16(void) { return 0; }

#define WITHOUT_KERNEL(name)                                                                    \
  size_t name##_workspace(size_t rows, size_t inner, size_t columns, size_t slices) {           \
    (void)rows, (void)inner, (void)columns, (void)slices;                                       \
    return 0;                                                                                   \
  }                                                                                             \
  void name(const struct w2svd_term *terms, size_t term_count, size_t slices,                   \
            const struct w2svd_packed *ahead, int a_crossed, int b_crossed, const float *bias, float *c, size_t c_stride,         \
            size_t rows, size_t columns, float scale, int accumulating, void *workspace) {      \
    (void)terms, (void)term_count, (void)slices, (void)ahead, (void)a_crossed, (void)b_crossed, (void)bias;   \
    (void)c, (void)c_stride, (void)rows, (void)columns, (void)scale, (void)accumulating;        \
    (void)workspace;                                                                            \
    __builtin_trap();                                                                           \
  }
WITHOUT_KERNEL(w2svd_multiply_float)
WITHOUT_KERNEL(w2svd_multiply_bfloat16)

void w2svd_multiply_packed(int is_bfloat16, const uint32_t *a, int a_crossed, const uint32_t *b,
                           size_t depth, float *c, size_t c_stride, size_t rows, size_t columns,
                           float scale, int accumulating) {
  (void)is_bfloat16, (void)a, (void)a_crossed, (void)b, (void)depth, (void)c, (void)c_stride;
  (void)rows, (void)columns, (void)scale, (void)accumulating;
  __builtin_trap();
}
#endif
