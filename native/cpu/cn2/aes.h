// Owns: the AES round in portable form (FIPS 197) and the AES-256 key schedule that CryptoNight
// takes its first ten round keys of. Public data only: table look-ups need not be constant-time.
#pragma once
#include <cstdint>
#include <cstring>

namespace tesra {

struct AesTables {
  uint8_t sbox[256];
  uint32_t mixed[256];  // the S-box times MixColumns' first column (2, 1, 1, 3), little-endian
};

constexpr AesTables make_aes_tables() {
  AesTables t{};
  auto rotl8 = [](uint8_t x, int n) {
    return static_cast<uint8_t>((x << n) | (x >> (8 - n)));
  };
  // p runs through the powers of the generator 3, q through those of its inverse: q = 1 / p.
  uint8_t p = 1, q = 1;
  do {
    p = static_cast<uint8_t>(p ^ (p << 1) ^ (p & 0x80 ? 0x1b : 0));
    q = static_cast<uint8_t>(q ^ (q << 1));
    q = static_cast<uint8_t>(q ^ (q << 2));
    q = static_cast<uint8_t>(q ^ (q << 4));
    q = static_cast<uint8_t>(q ^ (q & 0x80 ? 0x09 : 0));
    t.sbox[p] = static_cast<uint8_t>(q ^ rotl8(q, 1) ^ rotl8(q, 2) ^ rotl8(q, 3) ^ rotl8(q, 4) ^
                                     0x63);
  } while (p != 1);
  t.sbox[0] = 0x63;
  for (int i = 0; i < 256; ++i) {
    const uint32_t s = t.sbox[i];
    const uint32_t doubled = ((s << 1) ^ (s & 0x80 ? 0x1b : 0)) & 0xff;
    t.mixed[i] = doubled | s << 8 | s << 16 | (doubled ^ s) << 24;
  }
  return t;
}

inline constexpr AesTables kAes = make_aes_tables();

// As AESENC: ShiftRows, SubBytes, MixColumns, then the round key. `out` may be `in`.
inline void aes_round(const uint32_t in[4], const uint32_t key[4], uint32_t out[4]) {
  auto rotl = [](uint32_t x, int n) { return (x << n) | (x >> (32 - n)); };
  uint32_t r[4];
  for (int c = 0; c < 4; ++c)
    r[c] = kAes.mixed[in[c] & 0xff] ^ rotl(kAes.mixed[in[(c + 1) & 3] >> 8 & 0xff], 8) ^
           rotl(kAes.mixed[in[(c + 2) & 3] >> 16 & 0xff], 16) ^
           rotl(kAes.mixed[in[(c + 3) & 3] >> 24], 24) ^ key[c];
  std::memcpy(out, r, sizeof r);
}

constexpr int kCryptoNightKeys = 10;

// The first ten of AES-256's fifteen round keys, 4 words each.
inline void aes256_round_keys(const uint8_t key[32], uint32_t out[kCryptoNightKeys * 4]) {
  auto substitute = [](uint32_t x) {
    return static_cast<uint32_t>(kAes.sbox[x & 0xff]) |
           static_cast<uint32_t>(kAes.sbox[x >> 8 & 0xff]) << 8 |
           static_cast<uint32_t>(kAes.sbox[x >> 16 & 0xff]) << 16 |
           static_cast<uint32_t>(kAes.sbox[x >> 24]) << 24;
  };
  std::memcpy(out, key, 32);
  for (int i = 8; i < kCryptoNightKeys * 4; ++i) {
    uint32_t x = out[i - 1];
    if (i % 8 == 0) x = substitute(x >> 8 | x << 24) ^ 1u << (i / 8 - 1);
    else if (i % 8 == 4) x = substitute(x);
    out[i] = out[i - 8] ^ x;
  }
}

}  // namespace tesra
