// Owns: CN2, CryptoNight variant 2 (CryptoNote standard 008 with Monero's variant of 2018): one hash,
// the search for a nonce, and the four hash functions that may end it. Integers and IEEE square roots
// only: every path gives the same bits. Host pointers throughout.
#pragma once
#include "exact-math.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TESRA_CN2_SCRATCHPAD 2097152   // bytes, one for each hash under way
#define TESRA_CN2_ITERATIONS 524288
#define TESRA_CN2_MASK 0x1FFFF0u       // a scratchpad address: a multiple of 16
#define TESRA_CN2_SIZE_MAX (1u << 20)  // of one input: block headers have some hundred bytes

// Any size from 0; no minimum length and no nonce tweak.
typedef struct tesra_cn2 {
  const uint8_t* data;  // may be NULL when size = 0
  size_t size;
  uint8_t* out;  // 32 bytes
} tesra_cn2;

// Hashes `data` with nonces nonce_start, nonce_start + 1, ... written as nonce_bytes (1 to 8)
// little-endian bytes at nonce_offset. A hash wins when it is at most the target, both read as
// little-endian 256-bit numbers. The search ends after `count` nonces, when `capacity` hashes have
// won, or soon after stopped(context) gave not 0 (asked between hashes, from any thread; may be
// NULL). In any case the first `tried` nonces were hashed, and all their winners are listed, in
// ascending order of nonces. 1 <= count, 1 <= capacity; nonce_start + count <= 2^(8 nonce_bytes).
typedef struct tesra_cn2_scan {
  const uint8_t* data;
  size_t size;
  size_t nonce_offset;
  uint32_t nonce_bytes;
  uint64_t nonce_start, count;
  const uint8_t* target;  // 32 bytes little-endian
  int32_t (*stopped)(void* context);
  void* context;
  uint32_t capacity;
  uint32_t found;    // out
  uint64_t* nonces;  // out: capacity values
  uint8_t* hashes;   // out: capacity * 32 bytes
  uint64_t tried;    // out
  int32_t pages;     // out: enum tesra_cn2_pages
} tesra_cn2_scan;

enum tesra_cn2_pages {
  TESRA_PAGES_SMALL = 0,        // the system's own size
  TESRA_PAGES_TRANSPARENT = 1,  // 2 MiB, given on madvise
  TESRA_PAGES_RESERVED = 2,     // 2 MiB, from the system's reserve (vm.nr_hugepages)
  TESRA_PAGES_DEVICE = 3,       // a GPU's own memory
};

// floor(2 sqrt(2^64 + n) - 2^33), given the bits of root = sqrt(1 + floor(n / 2^12) / 2^52), correctly
// rounded: the first 33 bits of its mantissa, or one less. Never one more: dropping 12 bits of n moves
// the root by less than 2^-53, so rounding to the nearest reaches the next multiple of 2^-33 when the
// true root does.
TESRA_HD uint64_t tesra_cn2_root(uint64_t n, uint64_t root_bits) {
  const uint64_t r = (root_bits & (((uint64_t)1 << 52) - 1)) >> 19;
  const uint64_t s = r >> 1, odd = r & 1;
  // r is too large when r (r + 2^34) > 4 n, divided by 4 so that it fits.
  return r - (s * (s + odd) + (r << 32) + odd > n ? 1 : 0);
}
// The bits of the double 1 + floor(n / 2^12) / 2^52.
TESRA_HD uint64_t tesra_cn2_radicand(uint64_t n) { return (n >> 12) + ((uint64_t)1023 << 52); }

#ifdef __cplusplus
}
#endif
