// What the CPU can do, and loops that measure it.
#include "loops.h"

#if defined(__x86_64__)
#include <cpuid.h>
int w2svd_has_avx512(void) {
  unsigned a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & (1u << 27))) return 0;  // OSXSAVE
  unsigned low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  if ((low & 0xe6u) != 0xe6u) return 0;  // SSE, AVX, opmask, upper ZMM, ZMM16-31
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
  const unsigned wanted = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;  // F, DQ, BW, VL
  return (b & wanted) == wanted;
}
#else
int w2svd_has_avx512(void) { return 0; }
#endif

// Twelve independent chains: two units with a latency of four or five cycles need eight to ten.
KERNEL float w2svd_fma_loop(size_t rounds, float factor) {
  v16 a[12];
  for (int k = 0; k < 12; k++) a[k] = (float)k;
  const v16 m = factor, c = 1.0f - factor;
  for (size_t r = 0; r < rounds; r++)
    for (int k = 0; k < 12; k++) a[k] = a[k] * m + c;
  for (int k = 1; k < 12; k++) a[0] += a[k];
  return tree16(&a[0]);
}

void w2svd_pause(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

KERNEL void w2svd_triad(float a, const float *x, const float *y, float *z, size_t count) {
  INDEPENDENT
  for (size_t i = 0; i < count; i++) z[i] = x[i] + a * y[i];
}

#if defined(__GLIBC__)
#include <malloc.h>
#endif

void w2svd_keep_freed_memory(void) {
#if defined(__GLIBC__)
  mallopt(M_MMAP_THRESHOLD, 32 << 20);
  mallopt(M_TRIM_THRESHOLD, 256 << 20);
  mallopt(M_ARENA_MAX, 1);
#endif
}
