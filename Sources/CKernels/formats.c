// bfloat16 and half precision as bits, in integer arithmetic that vectorizes on every CPU.
#include "loops.h"

static inline uint32_t bits_of(float x) {
  uint32_t u;
  memcpy(&u, &x, 4);
  return u;
}

static inline float float_of(uint32_t u) {
  float x;
  memcpy(&x, &u, 4);
  return x;
}

KERNEL void w2svd_float_to_bfloat16(const float *x, uint16_t *y, size_t count) {
  INDEPENDENT
  for (size_t i = 0; i < count; i++) {
    uint32_t u = bits_of(x[i]);
    uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    uint32_t quiet = (u >> 16) | 0x40u;
    y[i] = (uint16_t)((u & 0x7fffffffu) > 0x7f800000u ? quiet : rounded);
  }
}

KERNEL void w2svd_bfloat16_to_float(const uint16_t *x, float *y, size_t count) {
  INDEPENDENT
  for (size_t i = 0; i < count; i++) y[i] = float_of((uint32_t)x[i] << 16);
}

// Subnormal halves are rounded by adding 0.5, whose last place is theirs (F. Giesen's method).
KERNEL void w2svd_float_to_half(const float *x, uint16_t *y, size_t count) {
  INDEPENDENT
  for (size_t i = 0; i < count; i++) {
    uint32_t u = bits_of(x[i]);
    uint32_t sign = (u >> 16) & 0x8000u;
    uint32_t magnitude = u & 0x7fffffffu;
    uint32_t normal = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
    uint32_t subnormal = bits_of(float_of(magnitude) + 0.5f) - 0x3f000000u;
    uint32_t result = magnitude < 0x38800000u ? subnormal : normal;
    result = magnitude >= 0x47800000u ? 0x7c00u : result;
    result = magnitude > 0x7f800000u ? 0x7e00u : result;
    y[i] = (uint16_t)(result | sign);
  }
}

KERNEL void w2svd_half_to_float(const uint16_t *x, float *y, size_t count) {
  INDEPENDENT
  for (size_t i = 0; i < count; i++) {
    uint32_t h = x[i];
    uint32_t shifted = (h & 0x7fffu) << 13;
    uint32_t exponent = shifted & 0x0f800000u;
    uint32_t normal = shifted + 0x38000000u;
    uint32_t special = shifted + 0x70000000u;
    uint32_t subnormal = bits_of(float_of(shifted + 0x38800000u) - float_of(0x38800000u));
    uint32_t result = exponent == 0x0f800000u ? special : normal;
    result = exponent == 0 ? subnormal : result;
    y[i] = float_of(result | (h & 0x8000u) << 16);
  }
}
