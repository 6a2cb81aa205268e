// Owns: Keccak-f[1600] (FIPS 202) and CryptoNote's use of it.
#include <cstring>

#include "cn2.h"

namespace tesra {
namespace {

inline uint64_t rotl(uint64_t x, int n) { return n == 0 ? x : x << n | x >> (64 - n); }

struct KeccakTables {
  uint64_t round[24];
  int rotation[25];  // of lane x + 5y
};

// Round constants from the linear feedback register, rotations from the walk (x, y) -> (y, 2x + 3y).
constexpr KeccakTables make_tables() {
  KeccakTables t{};
  uint8_t lfsr = 1;
  for (int r = 0; r < 24; ++r)
    for (int j = 0; j < 7; ++j) {
      if (lfsr & 1) t.round[r] ^= uint64_t{1} << ((1 << j) - 1);
      lfsr = static_cast<uint8_t>(lfsr << 1 ^ (lfsr & 0x80 ? 0x71 : 0));
    }
  int x = 1, y = 0;
  for (int i = 0; i < 24; ++i) {
    t.rotation[x + 5 * y] = (i + 1) * (i + 2) / 2 % 64;
    const int next = (2 * x + 3 * y) % 5;
    x = y;
    y = next;
  }
  return t;
}
constexpr KeccakTables kTables = make_tables();

}  // namespace

void keccak_f1600(uint64_t a[kKeccakWords]) {
  for (int round = 0; round < 24; ++round) {
    uint64_t c[5], b[25];
    for (int x = 0; x < 5; ++x) c[x] = a[x] ^ a[x + 5] ^ a[x + 10] ^ a[x + 15] ^ a[x + 20];
    for (int x = 0; x < 5; ++x) {
      const uint64_t d = c[(x + 4) % 5] ^ rotl(c[(x + 1) % 5], 1);
      for (int y = 0; y < 5; ++y)
        b[y + 5 * ((2 * x + 3 * y) % 5)] = rotl(a[x + 5 * y] ^ d, kTables.rotation[x + 5 * y]);
    }
    for (int y = 0; y < 25; y += 5)
      for (int x = 0; x < 5; ++x) a[y + x] = b[y + x] ^ (~b[y + (x + 1) % 5] & b[y + (x + 2) % 5]);
    a[0] ^= kTables.round[round];
  }
}

void keccak1600(const uint8_t* data, size_t size, uint64_t state[kKeccakWords]) {
  constexpr size_t kRate = 136;
  std::memset(state, 0, sizeof(uint64_t) * kKeccakWords);
  auto absorb = [&](const uint8_t* block) {
    for (size_t i = 0; i < kRate / 8; ++i) {
      uint64_t word;
      std::memcpy(&word, block + 8 * i, 8);
      state[i] ^= word;
    }
    keccak_f1600(state);
  };
  for (; size >= kRate; data += kRate, size -= kRate) absorb(data);
  uint8_t last[kRate] = {};
  if (size) std::memcpy(last, data, size);
  last[size] = 0x01;
  last[kRate - 1] |= 0x80;
  absorb(last);
}

}  // namespace tesra
