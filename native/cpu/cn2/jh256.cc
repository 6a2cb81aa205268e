// Owns: JH-256 with 42 rounds (Wu: The Hash Function JH, 2011), in the paper's own terms of 256
// elements of 4 bits. One of four CN2 hashes ends here: 0.2 ms of some 16.
#include <cstring>

#include "cn2.h"

namespace tesra {
namespace {

constexpr uint8_t kSbox[2][16] = {{9, 0, 4, 11, 13, 12, 3, 15, 1, 10, 2, 6, 7, 5, 8, 14},
                                  {3, 12, 6, 13, 5, 7, 1, 9, 15, 2, 0, 4, 11, 10, 14, 8}};

// The linear map L on two elements: x -> 2x is multiplication in GF(16) modulo x^4 + x + 1.
inline void mix(uint8_t& a, uint8_t& b) {
  auto twice = [](uint8_t x) {
    return static_cast<uint8_t>((x << 1 ^ x >> 3 ^ (x >> 2 & 2)) & 15);
  };
  b ^= twice(a);
  a ^= twice(b);
}

inline void exchange(uint8_t& a, uint8_t& b) {
  const uint8_t t = a;
  a = b;
  b = t;
}

// One round R_d over N = 2^d elements; bit i of `constant` (one in each element's place) chooses the
// S-box of element i, NULL the first for all.
template <int N>
void round(uint8_t x[N], const uint8_t* constant) {
  uint8_t t[N];
  for (int i = 0; i < N; ++i) t[i] = kSbox[constant ? constant[i / 4] >> (3 - i % 4) & 1 : 0][x[i]];
  for (int i = 0; i < N; i += 2) mix(t[i], t[i + 1]);
  for (int i = 0; i < N; i += 4) exchange(t[i + 2], t[i + 3]);
  for (int i = 0; i < N / 2; ++i) x[i] = t[2 * i], x[i + N / 2] = t[2 * i + 1];
  for (int i = N / 2; i < N; i += 2) exchange(x[i], x[i + 1]);
}

inline int bit(const uint8_t* h, int i) { return h[i / 8] >> (7 - i % 8) & 1; }

// The bijection E8: bits i, i + 256, i + 512, i + 768 make an element; halves interleave.
void permute(uint8_t h[128]) {
  uint8_t x[256];
  for (int i = 0; i < 256; ++i)
    x[i % 128 * 2 + i / 128] = static_cast<uint8_t>(bit(h, i) << 3 | bit(h, i + 256) << 2 |
                                                    bit(h, i + 512) << 1 | bit(h, i + 768));
  // The first round constant is the fraction of sqrt(2); each next is R6 of the one before.
  uint8_t constant[64] = {6,  10, 0,  9,  14, 6,  6,  7, 15, 3,  11, 12, 12, 9,  0, 8,
                          11, 2,  15, 11, 1,  3,  6,  6, 14, 10, 9,  5,  7,  13, 3, 14,
                          3,  10, 13, 14, 12, 1,  7,  5, 1,  2,  7,  7,  5,  0,  9, 9,
                          13, 10, 2,  15, 5,  9,  0,  11, 0,  6,  6,  7,  3,  2,  2, 10};
  for (int r = 0; r < 42; ++r) {
    round<256>(x, constant);
    round<64>(constant, nullptr);
  }
  std::memset(h, 0, 128);
  for (int i = 0; i < 256; ++i)
    for (int part = 0; part < 4; ++part)
      h[(i + 256 * part) / 8] |=
          static_cast<uint8_t>((x[i % 128 * 2 + i / 128] >> (3 - part) & 1) << (7 - i % 8));
}

void compress(uint8_t h[128], const uint8_t block[64]) {
  for (int i = 0; i < 64; ++i) h[i] ^= block[i];
  permute(h);
  for (int i = 0; i < 64; ++i) h[64 + i] ^= block[i];
}

}  // namespace

void jh256(const uint8_t* data, size_t size, uint8_t* out) {
  uint8_t h[128] = {0x01, 0x00};  // the digest's bits, big-endian
  uint8_t block[64] = {};
  compress(h, block);
  size_t at = 0;
  for (; at + 64 <= size; at += 64) compress(h, data + at);
  // At least 512 bits of padding: a begun block is filled up, and the length has a block of its own.
  const size_t left = size - at;
  if (left) {
    std::memcpy(block, data + at, left);
    block[left] = 0x80;
    compress(h, block);
    std::memset(block, 0, 64);
  } else {
    block[0] = 0x80;
  }
  const uint64_t bits = static_cast<uint64_t>(size) * 8;
  for (int i = 0; i < 8; ++i) block[63 - i] = static_cast<uint8_t>(bits >> (8 * i));
  compress(h, block);
  std::memcpy(out, h + 96, 32);
}

}  // namespace tesra
