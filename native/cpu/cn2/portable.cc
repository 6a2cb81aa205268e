// Owns: CN2's scratchpad walk in plain C++: the reference that the AES-NI paths must equal.
// Little-endian hosts, as the whole addon.
#include <cstring>

#include "aes.h"
#include "cn2.h"

namespace tesra {
namespace {

struct Pair {
  uint64_t lo, hi;
};

inline Pair load(const uint8_t* p) {
  Pair x;
  std::memcpy(&x, p, 16);
  return x;
}
inline void store(uint8_t* p, Pair x) { std::memcpy(p, &x, 16); }
inline Pair operator^(Pair a, Pair b) { return {a.lo ^ b.lo, a.hi ^ b.hi}; }
inline Pair operator+(Pair a, Pair b) { return {a.lo + b.lo, a.hi + b.hi}; }

inline Pair encrypt(Pair x, Pair key) {
  uint32_t in[4], k[4], out[4];
  std::memcpy(in, &x, 16);
  std::memcpy(k, &key, 16);
  aes_round(in, k, out);
  std::memcpy(&x, out, 16);
  return x;
}

inline Pair multiply(uint64_t a, uint64_t b) {
#ifdef __SIZEOF_INT128__
  const unsigned __int128 p = static_cast<unsigned __int128>(a) * b;
  return {static_cast<uint64_t>(p >> 64), static_cast<uint64_t>(p)};
#else
  const uint64_t al = a & 0xffffffff, ah = a >> 32, bl = b & 0xffffffff, bh = b >> 32;
  const uint64_t low = al * bl, m1 = ah * bl + (low >> 32), m2 = al * bh + (m1 & 0xffffffff);
  return {ah * bh + (m1 >> 32) + (m2 >> 32), m2 << 32 | (low & 0xffffffff)};
#endif
}

// Eight blocks of the scratchpad through the ten rounds.
inline void encrypt_blocks(uint32_t text[8][4], const uint32_t* keys) {
  for (int b = 0; b < 8; ++b)
    for (int r = 0; r < kCryptoNightKeys; ++r) aes_round(text[b], keys + 4 * r, text[b]);
}

inline void shuffle(uint8_t* pad, uint64_t j, Pair a, Pair b0, Pair b1) {
  const Pair x1 = load(pad + (j ^ 16)), x2 = load(pad + (j ^ 32)), x3 = load(pad + (j ^ 48));
  store(pad + (j ^ 16), x3 + b1);
  store(pad + (j ^ 32), x1 + b0);
  store(pad + (j ^ 48), x2 + a);
}

void run(uint64_t* w, uint8_t* pad) {
  uint8_t* bytes = reinterpret_cast<uint8_t*>(w);
  uint32_t keys[kCryptoNightKeys * 4], text[8][4];
  aes256_round_keys(bytes, keys);
  std::memcpy(text, bytes + 64, sizeof text);
  for (size_t at = 0; at < TESRA_CN2_SCRATCHPAD; at += sizeof text) {
    encrypt_blocks(text, keys);
    std::memcpy(pad + at, text, sizeof text);
  }

  Pair a{w[0] ^ w[4], w[1] ^ w[5]}, b0{w[2] ^ w[6], w[3] ^ w[7]}, b1{w[8] ^ w[10], w[9] ^ w[11]};
  uint64_t quotient = w[12], root = w[13];
  for (int i = 0; i < TESRA_CN2_ITERATIONS; ++i) {
    uint64_t j = a.lo & TESRA_CN2_MASK;
    const Pair c = encrypt(load(pad + j), a);
    shuffle(pad, j, a, b0, b1);
    store(pad + j, c ^ b0);
    j = c.lo & TESRA_CN2_MASK;
    Pair d = load(pad + j);
    d.lo ^= quotient ^ root << 32;
    const uint32_t divisor = static_cast<uint32_t>(c.lo + static_cast<uint32_t>(root << 1)) | 0x80000001u;
    quotient = static_cast<uint32_t>(c.hi / divisor) + (c.hi % divisor << 32);
    root = cn2_integer_root(c.lo + quotient);
    Pair product = multiply(c.lo, d.lo);
    store(pad + (j ^ 16), load(pad + (j ^ 16)) ^ product);
    product = product ^ load(pad + (j ^ 32));
    shuffle(pad, j, a, b0, b1);
    a = a + product;
    store(pad + j, a);
    a = a ^ d;
    b1 = b0;
    b0 = c;
  }

  aes256_round_keys(bytes + 32, keys);
  std::memcpy(text, bytes + 64, sizeof text);
  for (size_t at = 0; at < TESRA_CN2_SCRATCHPAD; at += sizeof text) {
    uint32_t part[8][4];
    std::memcpy(part, pad + at, sizeof part);
    for (int b = 0; b < 8; ++b)
      for (int i = 0; i < 4; ++i) text[b][i] ^= part[b][i];
    encrypt_blocks(text, keys);
  }
  std::memcpy(bytes + 64, text, sizeof text);
}

void run_two(uint64_t* const* states, uint8_t* const* pads) {
  for (int i = 0; i < 2; ++i) run(states[i], pads[i]);
}

}  // namespace

const Cn2Path* cn2_portable() {
  static const Cn2Path path{"portable", run, run_two};
  return &path;
}

}  // namespace tesra
