// Byte planes, differences and checksums of words that travel.
//
// Words are loaded and stored with any alignment: they come out of messages. Each loop is written
// once and compiled for several instruction sets (W2SVD_CLONES); clang turns the byte extractions
// into truncating stores.

#include "w2svd_planes.h"

#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#define W2SVD_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define W2SVD_CLONES
#endif

// Iterations are independent even when base and words are the same memory.
#define INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")

typedef struct __attribute__((packed)) { uint32_t bits; } word32;
typedef struct __attribute__((packed)) { uint16_t bits; } word16;

W2SVD_CLONES
static void split_rotated_32(const word32 *words, size_t count, uint8_t *planes) {
  uint8_t *p0 = planes, *p1 = p0 + count, *p2 = p1 + count, *p3 = p2 + count;
  INDEPENDENT for (size_t i = 0; i < count; i++) {
    uint32_t bits = words[i].bits;
    uint32_t code = (bits << 1) | (bits >> 31);
    p0[i] = (uint8_t)code;
    p1[i] = (uint8_t)(code >> 8);
    p2[i] = (uint8_t)(code >> 16);
    p3[i] = (uint8_t)(code >> 24);
  }
}

W2SVD_CLONES
static void split_delta_32(
    const word32 *words, const word32 *base, size_t count, uint8_t *planes) {
  uint8_t *p0 = planes, *p1 = p0 + count, *p2 = p1 + count, *p3 = p2 + count;
  INDEPENDENT for (size_t i = 0; i < count; i++) {
    uint32_t delta = words[i].bits - base[i].bits;
    uint32_t code = (delta << 1) ^ (0u - (delta >> 31));
    p0[i] = (uint8_t)code;
    p1[i] = (uint8_t)(code >> 8);
    p2[i] = (uint8_t)(code >> 16);
    p3[i] = (uint8_t)(code >> 24);
  }
}

W2SVD_CLONES
static void split_rotated_16(const word16 *words, size_t count, uint8_t *planes) {
  uint8_t *p0 = planes, *p1 = p0 + count;
  INDEPENDENT for (size_t i = 0; i < count; i++) {
    uint16_t bits = words[i].bits;
    uint16_t code = (uint16_t)((bits << 1) | (bits >> 15));
    p0[i] = (uint8_t)code;
    p1[i] = (uint8_t)(code >> 8);
  }
}

W2SVD_CLONES
static void split_delta_16(
    const word16 *words, const word16 *base, size_t count, uint8_t *planes) {
  uint8_t *p0 = planes, *p1 = p0 + count;
  INDEPENDENT for (size_t i = 0; i < count; i++) {
    uint16_t delta = (uint16_t)(words[i].bits - base[i].bits);
    uint16_t code = (uint16_t)((delta << 1) ^ (0u - (uint16_t)(delta >> 15)));
    p0[i] = (uint8_t)code;
    p1[i] = (uint8_t)(code >> 8);
  }
}

void w2svd_split_planes_32(const void *words, const void *base, size_t count, uint8_t *planes) {
  if (base) split_delta_32(words, base, count, planes);
  else split_rotated_32(words, count, planes);
}

void w2svd_split_planes_16(const void *words, const void *base, size_t count, uint8_t *planes) {
  if (base) split_delta_16(words, base, count, planes);
  else split_rotated_16(words, count, planes);
}

W2SVD_CLONES
static void join_rotated_32(
    const uint8_t *p0, const uint8_t *p1, const uint8_t *p2, const uint8_t *p3, size_t count,
    word32 *words) {
  INDEPENDENT for (size_t i = 0; i < count; i++) {
    uint32_t code =
        p0[i] | (uint32_t)p1[i] << 8 | (uint32_t)p2[i] << 16 | (uint32_t)p3[i] << 24;
    words[i].bits = (code >> 1) | (code << 31);
  }
}

W2SVD_CLONES
static void join_delta_32(
    const uint8_t *p0, const uint8_t *p1, const uint8_t *p2, const uint8_t *p3, const word32 *base,
    size_t count, word32 *words) {
  INDEPENDENT for (size_t i = 0; i < count; i++) {
    uint32_t code =
        p0[i] | (uint32_t)p1[i] << 8 | (uint32_t)p2[i] << 16 | (uint32_t)p3[i] << 24;
    words[i].bits = base[i].bits + ((code >> 1) ^ (0u - (code & 1)));
  }
}

W2SVD_CLONES
static void join_rotated_16(const uint8_t *p0, const uint8_t *p1, size_t count, word16 *words) {
  INDEPENDENT for (size_t i = 0; i < count; i++) {
    uint16_t code = (uint16_t)(p0[i] | p1[i] << 8);
    words[i].bits = (uint16_t)((code >> 1) | (code << 15));
  }
}

W2SVD_CLONES
static void join_delta_16(
    const uint8_t *p0, const uint8_t *p1, const word16 *base, size_t count, word16 *words) {
  INDEPENDENT for (size_t i = 0; i < count; i++) {
    uint16_t code = (uint16_t)(p0[i] | p1[i] << 8);
    words[i].bits = (uint16_t)(base[i].bits + ((code >> 1) ^ (0u - (code & 1))));
  }
}

void w2svd_join_planes_32(
    const uint8_t *plane0, const uint8_t *plane1, const uint8_t *plane2, const uint8_t *plane3,
    const void *base, size_t count, void *words) {
  if (base) join_delta_32(plane0, plane1, plane2, plane3, base, count, words);
  else join_rotated_32(plane0, plane1, plane2, plane3, count, words);
}

void w2svd_join_planes_16(
    const uint8_t *plane0, const uint8_t *plane1, const void *base, size_t count, void *words) {
  if (base) join_delta_16(plane0, plane1, base, count, words);
  else join_rotated_16(plane0, plane1, count, words);
}

double w2svd_collision_rate(const uint8_t *plane, size_t byte_count) {
  enum { runs = 16, run_bytes = 128 };
  // Two histograms, so that equal neighbors do not wait for each other's increment.
  uint32_t counts[2][256];
  memset(counts, 0, sizeof counts);
  size_t sampled = 0;
  for (size_t run = 0; run < runs; run++) {
    size_t start = byte_count / runs * run;
    size_t end = run + 1 < runs ? byte_count / runs * (run + 1) : byte_count;
    if (end - start > run_bytes) end = start + run_bytes;
    for (size_t i = start; i < end; i++) counts[i & 1][plane[i]]++;
    sampled += end - start;
  }
  if (sampled < 2) return 0;
  uint64_t squares = 0;
  for (int value = 0; value < 256; value++) {
    uint64_t count = counts[0][value] + counts[1][value];
    squares += count * count;
  }
  return (double)(squares - sampled) / ((double)sampled * (double)(sampled - 1));
}
