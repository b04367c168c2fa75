// Packed operands of products: words of 32 bits, one float or two bfloat16 that follow each other along
// the sum, as vdpbf16ps takes them. Shared by products.c, packing.h and attention_words.c.
#ifndef W2SVD_WORDS_H
#define W2SVD_WORDS_H
#include "loops.h"

static inline size_t least(size_t x, size_t y) { return x < y ? x : y; }
static inline size_t beyond(size_t x, size_t y) { return x > y ? x - y : 0; }

// What a word holds: elements along the sum. A constant wherever it is used; functions that take it
// are inlined.
typedef enum { FLOATS = 1, BFLOATS = 2 } Words;

#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))
#define INLINE TARGET static inline __attribute__((always_inline))
#define UNROLLED _Pragma("clang loop unroll(full)")

INLINE __mmask16 first(size_t count) {
  return count >= 16 ? 0xffff : (__mmask16)((1u << count) - 1);
}

// Two times sixteen elements along the sum as words.
INLINE __m512i joined(__m512 low, __m512 high) {
  return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

// Sixteen words of elements across the sum: each of `lower` with the one of `upper` that follows it.
INLINE __m512i pairs_of(__m512 lower, __m512 upper) {
  const __m512i order =
      _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                       21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return _mm512_permutexvar_epi16(order, joined(lower, upper));
}

// Sixteen words of a line along the sum, of which `count` elements are left; further ones are zero.
INLINE __m512i words_of(Words words, const float *x, size_t count) {
  const __m512 low = _mm512_maskz_loadu_ps(first(count), x);
  if (words == FLOATS) return (__m512i)low;
  return joined(low, _mm512_maskz_loadu_ps(first(beyond(count, 16)), x + 16));
}
#endif
#endif
