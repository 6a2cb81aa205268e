// Owns: what the paths of CN2 share: the Keccak state, the paths' table, and the final hashes.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

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

// A hash as a little-endian number is at most the target.
bool cn2_wins(const uint8_t* hash, const uint8_t* target);
struct Cn2Winner {
  uint64_t nonce;
  uint8_t hash[32];
};
// Ends a search in which the first `tried` nonces gave `winners`, in any order: fills the outputs.
void cn2_settle(std::vector<Cn2Winner>& winners, uint64_t tried, tesra_cn2_scan& s);

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

inline uint64_t cn2_integer_root(uint64_t n) {
  const uint64_t bits = tesra_cn2_radicand(n);
  double x;
  std::memcpy(&x, &bits, 8);
  x = std::sqrt(x);
  uint64_t root;
  std::memcpy(&root, &x, 8);
  return tesra_cn2_root(n, root);
}

}  // namespace tesra
