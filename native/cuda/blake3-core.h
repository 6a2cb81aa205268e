// Owns the BLAKE3 compression function, for device and host, on words in registers.
// Invariant: the BLAKE3 specification (github.com/BLAKE3-team/BLAKE3-specs, 2.2); all words
// little-endian.
#pragma once
#include "../kernels/hash.h"
#include "intrinsics.h"

namespace tesra::cuda {

struct Key {
  uint32_t word[8];
};

__device__ __forceinline__ uint32_t rotateRight(uint32_t x, int by) {
  return (x >> by) | (x << (32 - by));
}

__device__ __forceinline__ void mix(uint32_t& a, uint32_t& b, uint32_t& c, uint32_t& d, uint32_t x,
                                    uint32_t y) {
  a = a + b + x;
  d = rotateRight(d ^ a, 16);
  c = c + d;
  b = rotateRight(b ^ c, 12);
  a = a + b + y;
  d = rotateRight(d ^ a, 8);
  c = c + d;
  b = rotateRight(b ^ c, 7);
}

// cv becomes the first half of the output: the chaining value, or the hash when ROOT is set.
// m is permuted on the way and holds no message afterwards.
__device__ __forceinline__ void compress(uint32_t (&cv)[8], uint32_t (&m)[16], uint64_t counter,
                                         uint32_t length, uint32_t flags) {
  constexpr uint32_t kIv[8] = TESRA_BLAKE3_IV;
  uint32_t v[16] = {cv[0],
                    cv[1],
                    cv[2],
                    cv[3],
                    cv[4],
                    cv[5],
                    cv[6],
                    cv[7],
                    kIv[0],
                    kIv[1],
                    kIv[2],
                    kIv[3],
                    static_cast<uint32_t>(counter),
                    static_cast<uint32_t>(counter >> 32),
                    length,
                    flags};
  TESRA_FOR(round, 7) {
    mix(v[0], v[4], v[8], v[12], m[0], m[1]);
    mix(v[1], v[5], v[9], v[13], m[2], m[3]);
    mix(v[2], v[6], v[10], v[14], m[4], m[5]);
    mix(v[3], v[7], v[11], v[15], m[6], m[7]);
    mix(v[0], v[5], v[10], v[15], m[8], m[9]);
    mix(v[1], v[6], v[11], v[12], m[10], m[11]);
    mix(v[2], v[7], v[8], v[13], m[12], m[13]);
    mix(v[3], v[4], v[9], v[14], m[14], m[15]);
    // Renames registers only, once the rounds are unrolled.
    const uint32_t p[16] = {m[2], m[6],  m[3],  m[10], m[7], m[0],  m[4],  m[13],
                            m[1], m[11], m[12], m[5],  m[9], m[14], m[15], m[8]};
    TESRA_FOR(i, 16) m[i] = p[i];
  }
  TESRA_FOR(i, 8) cv[i] = v[i] ^ v[i + 8];
}

}  // namespace tesra::cuda
