// Owns: Skein-512-256 (Ferguson et al.: The Skein Hash Function Family, version 1.3).
#include <cstring>

#include "cn2.h"

namespace tesra {
namespace {

constexpr uint8_t kRotations[8][4] = {{46, 36, 19, 37}, {33, 27, 14, 42}, {17, 49, 36, 39},
                                      {44, 9, 54, 56},  {39, 30, 34, 24}, {13, 50, 10, 17},
                                      {25, 29, 39, 43}, {8, 35, 56, 22}};
constexpr uint8_t kPermutation[8] = {2, 1, 4, 7, 6, 5, 0, 3};
constexpr uint64_t kParity = 0x1BD11BDAA9FC1A22;
enum Type : uint64_t { kConfig = 4, kMessage = 48, kOutput = 63 };
constexpr uint64_t kFirst = uint64_t{1} << 62, kFinal = uint64_t{1} << 63;

// Threefish-512 in UBI mode: g = E(g, tweak, block) xor block.
void chain(uint64_t g[8], const uint8_t bytes[64], uint64_t position, uint64_t flags) {
  uint64_t m[8], x[8], key[9], tweak[3] = {position, flags, position ^ flags};
  std::memcpy(m, bytes, 64);
  key[8] = kParity;
  for (int i = 0; i < 8; ++i) key[i] = g[i], key[8] ^= g[i], x[i] = m[i];
  auto add_key = [&](int s) {
    for (int i = 0; i < 8; ++i) x[i] += key[(s + i) % 9];
    x[5] += tweak[s % 3];
    x[6] += tweak[(s + 1) % 3];
    x[7] += static_cast<uint64_t>(s);
  };
  for (int round = 0; round < 72; ++round) {
    if (round % 4 == 0) add_key(round / 4);
    uint64_t y[8];
    for (int i = 0; i < 4; ++i) {
      const int n = kRotations[round % 8][i];
      y[2 * i] = x[2 * i] + x[2 * i + 1];
      y[2 * i + 1] = (x[2 * i + 1] << n | x[2 * i + 1] >> (64 - n)) ^ y[2 * i];
    }
    for (int i = 0; i < 8; ++i) x[i] = y[kPermutation[i]];
  }
  add_key(18);
  for (int i = 0; i < 8; ++i) g[i] = x[i] ^ m[i];
}

}  // namespace

void skein512_256(const uint8_t* data, size_t size, uint8_t* out) {
  uint64_t g[8] = {};
  uint8_t block[64] = {'S', 'H', 'A', '3', 1};  // schema and version
  block[9] = 0x01;                              // 256 bits of output, little-endian at byte 8
  chain(g, block, 32, kConfig << 56 | kFirst | kFinal);
  uint64_t flags = kMessage << 56 | kFirst;
  size_t at = 0;
  for (; size - at > 64; at += 64, flags &= ~kFirst) chain(g, data + at, at + 64, flags);
  std::memset(block, 0, 64);
  if (size) std::memcpy(block, data + at, size - at);
  chain(g, block, size, flags | kFinal);
  std::memset(block, 0, 64);
  chain(g, block, 8, kOutput << 56 | kFirst | kFinal);
  std::memcpy(out, g, 32);
}

}  // namespace tesra
