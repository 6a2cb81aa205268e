// Owns: BLAKE-256 with 14 rounds (Aumasson, Henzen, Meier, Phan: SHA-3 proposal BLAKE, version 1.3).
#include <cstring>

#include "cn2.h"

namespace tesra {
namespace {

constexpr uint32_t kConstants[16] = {
    0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344, 0xA4093822, 0x299F31D0, 0x082EFA98, 0xEC4E6C89,
    0x452821E6, 0x38D01377, 0xBE5466CF, 0x34E90C6C, 0xC0AC29B7, 0xC97C50DD, 0x3F84D5B5, 0xB5470917};
constexpr uint8_t kOrder[10][16] = {{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
                                    {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
                                    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4},
                                    {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
                                    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13},
                                    {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
                                    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11},
                                    {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
                                    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5},
                                    {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0}};

inline uint32_t rotr(uint32_t x, int n) { return x >> n | x << (32 - n); }
inline uint32_t read(const uint8_t* p) {
  return static_cast<uint32_t>(p[0]) << 24 | static_cast<uint32_t>(p[1]) << 16 |
         static_cast<uint32_t>(p[2]) << 8 | p[3];
}
inline void write(uint8_t* p, uint32_t x) {
  for (int i = 0; i < 4; ++i) p[i] = static_cast<uint8_t>(x >> (24 - 8 * i));
}

// `bits`: message bits up to the end of this block, 0 for a block of padding alone.
void compress(uint32_t h[8], const uint8_t block[64], uint64_t bits) {
  uint32_t m[16], v[16];
  for (int i = 0; i < 16; ++i) m[i] = read(block + 4 * i);
  for (int i = 0; i < 8; ++i) v[i] = h[i], v[8 + i] = kConstants[i];
  v[12] ^= static_cast<uint32_t>(bits), v[13] ^= static_cast<uint32_t>(bits);
  v[14] ^= static_cast<uint32_t>(bits >> 32), v[15] ^= static_cast<uint32_t>(bits >> 32);
  for (int round = 0; round < 14; ++round) {
    const uint8_t* s = kOrder[round % 10];
    auto mix = [&](int a, int b, int c, int d, int i) {
      v[a] += v[b] + (m[s[i]] ^ kConstants[s[i + 1]]);
      v[d] = rotr(v[d] ^ v[a], 16);
      v[c] += v[d];
      v[b] = rotr(v[b] ^ v[c], 12);
      v[a] += v[b] + (m[s[i + 1]] ^ kConstants[s[i]]);
      v[d] = rotr(v[d] ^ v[a], 8);
      v[c] += v[d];
      v[b] = rotr(v[b] ^ v[c], 7);
    };
    for (int i = 0; i < 4; ++i) mix(i, 4 + i, 8 + i, 12 + i, 2 * i);
    for (int i = 0; i < 4; ++i) mix(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4, 8 + 2 * i);
  }
  for (int i = 0; i < 8; ++i) h[i] ^= v[i] ^ v[8 + i];
}

}  // namespace

void blake256(const uint8_t* data, size_t size, uint8_t* out) {
  uint32_t h[8] = {0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A,
                   0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19};
  const uint64_t bits = static_cast<uint64_t>(size) * 8;
  size_t at = 0;
  for (; at + 64 <= size; at += 64) compress(h, data + at, static_cast<uint64_t>(at + 64) * 8);
  const size_t left = size - at;
  uint8_t last[128] = {};
  if (left) std::memcpy(last, data + at, left);
  // The 1 bit after the message, and a second one right before the length (which tells 256 from 224).
  const size_t end = left < 56 ? 64 : 128;
  last[left] = 0x80;
  last[end - 9] |= 0x01;
  write(last + end - 8, static_cast<uint32_t>(bits >> 32));
  write(last + end - 4, static_cast<uint32_t>(bits));
  compress(h, last, left ? bits : 0);
  if (end == 128) compress(h, last + 64, 0);
  for (int i = 0; i < 8; ++i) write(out + 4 * i, h[i]);
}

}  // namespace tesra
