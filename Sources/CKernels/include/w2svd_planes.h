// Loops over bytes that travel: byte planes and checksums.
// No argument needs alignment; counts are in words unless named bytes.
#ifndef W2SVD_PLANES_H
#define W2SVD_PLANES_H
#include <stddef.h>
#include <stdint.h>

// Splits words into byte planes, lowest byte first: plane k is planes[k * count ..< (k + 1) * count].
// Without a base a word is rotated left by one, so that the sign is the lowest bit and the top plane
// is the pure exponent. With a base it is the zigzag of the difference of the bit patterns.
void w2svd_split_planes_32(const void *words, const void *base, size_t count, uint8_t *planes);
void w2svd_split_planes_16(const void *words, const void *base, size_t count, uint8_t *planes);

// The inverse; `base` may be `words` itself.
void w2svd_join_planes_32(
    const uint8_t *plane0, const uint8_t *plane1, const uint8_t *plane2, const uint8_t *plane3,
    const void *base, size_t count, void *words);
void w2svd_join_planes_16(
    const uint8_t *plane0, const uint8_t *plane1, const void *base, size_t count, void *words);

// Unbiased estimate, from a sample, of the chance that two bytes of the plane are equal; 1 / 256 for
// noise. -log2 of it is a lower bound of the entropy in bits.
double w2svd_collision_rate(const uint8_t *plane, size_t byte_count);

// CRC-32C (Castagnoli) of `bytes` appended to bytes whose checksum is `crc`; 0 for none.
uint32_t w2svd_crc32c(uint32_t crc, const void *bytes, size_t byte_count);
// The same by table, one byte at a time: the slow twin.
uint32_t w2svd_crc32c_by_table(uint32_t crc, const void *bytes, size_t byte_count);
#endif
