// Owns: what the paths of CN2 share: the Keccak state, the paths' table, and the final hashes.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "../../kernels/cn2.h"

namespace tesra {

constexpr int kKeccakWords = 25;

void keccak_f1600(uint64_t state[kKeccakWords]);
// Keccak with a 136-byte rate and CryptoNote's padding 0x01: the whole state, not a digest.
void keccak1600(const uint8_t* data, size_t size, uint64_t state[kKeccakWords]);

// The SHA-3 finalists in their 256-bit form; `out` is 32 bytes.
void blake256(const uint8_t* data, size_t size, uint8_t* out);
void groestl256(const uint8_t* data, size_t size, uint8_t* out);
void jh256(const uint8_t* data, size_t size, uint8_t* out);
void skein512_256(const uint8_t* data, size_t size, uint8_t* out);

// Keccak-f of the walked state, then the final hash that its first byte chooses.
void cn2_finish(uint64_t state[kKeccakWords], uint8_t* out);

// Steps 2 to 5 of CN2: fills the scratchpad from the Keccak state, walks it, and folds it back into
// bytes 64-191. `two` interleaves two hashes, with a scratchpad (64-byte aligned) each.
struct Cn2Path {
  const char* name;
  void (*one)(uint64_t* state, uint8_t* pad);
  void (*two)(uint64_t* const* states, uint8_t* const* pads);
};

const Cn2Path* cn2_portable();
const Cn2Path* cn2_aes();   // AES-NI; NULL where this CPU or compiler lacks it
const Cn2Path* cn2_vaes();  // AVX-512 and VAES; NULL likewise

// floor(2 sqrt(2^64 + n) - 2^33). `root` = sqrt(1 + floor(n / 2^12) / 2^52), correctly rounded: the
// result is its mantissa's first 33 bits, or one less. Never one more: dropping 12 bits of n moves
// the root by less than 2^-53, and rounding to the nearest then reaches the next multiple of 2^-33
// when the true root does.
inline uint64_t cn2_correct_root(uint64_t n, uint64_t root_bits) {
  const uint64_t r = (root_bits & ((uint64_t{1} << 52) - 1)) >> 19;
  const uint64_t s = r >> 1, odd = r & 1;
  // r is too large when r (r + 2^34) > 4 n, divided by 4 so that it fits.
  return r - (s * (s + odd) + (r << 32) + odd > n ? 1 : 0);
}

inline uint64_t cn2_integer_root(uint64_t n) {
  const uint64_t bits = (n >> 12) + (uint64_t{1023} << 52);
  double x;
  std::memcpy(&x, &bits, 8);
  x = std::sqrt(x);
  uint64_t root;
  std::memcpy(&root, &x, 8);
  return cn2_correct_root(n, root);
}

}  // namespace tesra
