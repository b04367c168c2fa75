// Operands that are packed ahead: attention shares them among many products, and weights may be kept packed.
#include "packing.h"

#if defined(__x86_64__)
TARGET void w2svd_pack_rows(int is_bfloat16, const float *x, size_t stride, size_t rows,
                            size_t inner, uint32_t *packed) {
  if (is_bfloat16)
    copy_lines(BFLOATS, x, stride, rows, inner, packed);
  else
    copy_lines(FLOATS, x, stride, rows, inner, packed);
}

INLINE void pack_panels(Words words, const float *b, size_t stride, int crossed, size_t inner,
                        size_t columns, uint32_t *packed) {
  const size_t next = (inner + words - 1) / words * TILE_COLUMNS;
  if (crossed)
    for (size_t j = 0; j < columns; j += TILE_COLUMNS)
      cross_lines(words, b + j * stride, stride, columns - j, inner,
                  packed + j / TILE_COLUMNS * next);
  else
    interleave(words, b, stride, columns, inner, next, packed);
}

TARGET void w2svd_pack_panels(int is_bfloat16, const float *b, size_t stride, int is_crossed,
                              size_t inner, size_t columns, uint32_t *packed) {
  if (is_bfloat16)
    pack_panels(BFLOATS, b, stride, is_crossed, inner, columns, packed);
  else
    pack_panels(FLOATS, b, stride, is_crossed, inner, columns, packed);
}
#else
void w2svd_pack_rows(int is_bfloat16, const float *x, size_t stride, size_t rows, size_t inner,
                     uint32_t *packed) {
  (void)is_bfloat16, (void)x, (void)stride, (void)rows, (void)inner, (void)packed;
  __builtin_trap();
}

void w2svd_pack_panels(int is_bfloat16, const float *b, size_t stride, int is_crossed,
                       size_t inner, size_t columns, uint32_t *packed) {
  (void)is_bfloat16, (void)b, (void)stride, (void)is_crossed, (void)inner, (void)columns;
  (void)packed;
  __builtin_trap();
}
#endif
