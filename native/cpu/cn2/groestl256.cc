// Owns: Groestl-256 (Gauravaram et al., SHA-3 candidate, tweaked version of 2011). The 8 x 8 state is
// held as columns of 8 bytes, row 0 in the lowest byte.
#include <cstring>

#include "aes.h"
#include "cn2.h"

namespace tesra {
namespace {

struct Column {
  uint64_t of[256];  // S-box, then MixBytes of a column whose row 0 is this byte and the rest 0
};

constexpr Column make_column() {
  constexpr uint32_t factors[8] = {2, 7, 5, 3, 5, 4, 3, 2};  // down the matrix's first column
  Column t{};
  for (int x = 0; x < 256; ++x)
    for (int row = 0; row < 8; ++row) {
      uint32_t product = 0, power = kAes.sbox[x];
      for (uint32_t f = factors[row]; f; f >>= 1, power = power << 1 ^ (power & 0x80 ? 0x11b : 0))
        if (f & 1) product ^= power;
      t.of[x] |= static_cast<uint64_t>(product) << (8 * row);
    }
  return t;
}
constexpr Column kColumn = make_column();

inline uint64_t rotl(uint64_t x, int n) { return n == 0 ? x : x << n | x >> (64 - n); }

// P (Q = false) and Q, ten rounds: constants, then substitution, shift and mixing in one look-up.
template <bool Q>
void permute(uint64_t s[8]) {
  constexpr int shifts[2][8] = {{0, 1, 2, 3, 4, 5, 6, 7}, {1, 3, 5, 7, 0, 2, 4, 6}};
  for (uint64_t round = 0; round < 10; ++round) {
    uint64_t x[8];
    for (uint64_t c = 0; c < 8; ++c) {
      const uint64_t constant = c << 4 ^ round;
      x[c] = Q ? ~s[c] ^ constant << 56 : s[c] ^ constant;
    }
    for (int c = 0; c < 8; ++c) {
      uint64_t y = 0;
      for (int row = 0; row < 8; ++row)
        y ^= rotl(kColumn.of[x[(c + shifts[Q][row]) % 8] >> (8 * row) & 0xff], 8 * row);
      s[c] = y;
    }
  }
}

void compress(uint64_t h[8], const uint8_t block[64]) {
  uint64_t p[8], q[8];
  std::memcpy(q, block, 64);
  for (int i = 0; i < 8; ++i) p[i] = h[i] ^ q[i];
  permute<false>(p);
  permute<true>(q);
  for (int i = 0; i < 8; ++i) h[i] ^= p[i] ^ q[i];
}

}  // namespace

void groestl256(const uint8_t* data, size_t size, uint8_t* out) {
  uint64_t h[8] = {};
  h[7] = uint64_t{1} << 48;  // the digest's 256 bits, big-endian, in the last two bytes
  size_t at = 0;
  for (; at + 64 <= size; at += 64) compress(h, data + at);
  const size_t left = size - at, end = left < 56 ? 64 : 128;
  uint8_t last[128] = {};
  if (left) std::memcpy(last, data + at, left);
  last[left] = 0x80;
  const uint64_t blocks = (at + end) / 64;
  for (int i = 0; i < 8; ++i) last[end - 1 - i] = static_cast<uint8_t>(blocks >> (8 * i));
  compress(h, last);
  if (end == 128) compress(h, last + 64);
  uint64_t p[8];
  std::memcpy(p, h, 64);
  permute<false>(p);
  for (int i = 0; i < 8; ++i) p[i] ^= h[i];
  std::memcpy(out, p + 4, 32);
}

}  // namespace tesra
