// Owns: Philox4x32-10 (Salmon et al., SC 2011), a generator whose words are a pure function of counter and
// key; dropout by it, which stores no mask and whose gradient is the same operation on dY; first weights.
// Invariant: the words are those of src/training/graph/philox.ts, and the weights those of initializer.ts.
#pragma once
#include "exact-math.h"

#ifdef __cplusplus
extern "C" {
#endif

TESRA_HD void tesra_philox(const uint32_t counter[4], uint32_t key_low, uint32_t key_high,
                           uint32_t out[4]) {
  uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = (uint64_t)0xd2511f53u * c0, b = (uint64_t)0xcd9e8d57u * c2;
    c0 = (uint32_t)(b >> 32) ^ c1 ^ key_low;
    c1 = (uint32_t)b;
    c2 = (uint32_t)(a >> 32) ^ c3 ^ key_high;
    c3 = (uint32_t)a;
    key_low += 0x9e3779b9u;
    key_high += 0xbb67ae85u;
  }
  out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

// Element i is kept when (word >> 8) >= threshold, word = word i % 4 of the counter
// (low 32 bits of i / 4, high 32 bits of i / 4, stream, (uint32_t)step[0] with step in [0, 2^24]);
// out = kept ? x * scale : +0. threshold = rate * 2^24, scale = 1 / (1 - threshold / 2^24). out may be x.
typedef struct tesra_dropout {
  const float* x;
  const float* step;
  float* out;
  int64_t n;
  uint32_t key_low, key_high, stream, threshold;
  float scale;
} tesra_dropout;

TESRA_HD uint32_t tesra_dropout_step(float step) {
  return step >= 16777216.0f ? 16777216u : step >= 0.0f ? (uint32_t)step : 0u;
}

// First values of a variable. Word w of the stream is word w % 4 of the counter (low and high 32 bits of w / 4,
// stream, 0), and u_w = (word >> 8) / 2^24; all in double, rounded once.
//   uniform: out[i] = (2 u_i - 1) * scale
//   normal:  out[i] = (-6 + u_(12i) + ... + u_(12i+11)) * scale    (Irwin-Hall: no libm, cut at 6 deviations)
typedef struct tesra_fill {
  float* out;
  int64_t n;
  uint32_t key_low, key_high, stream;
  uint8_t normal;
  double scale;
} tesra_fill;

TESRA_HD void tesra_uniforms(const tesra_fill* o, uint64_t block, double out[4]) {
  const uint32_t counter[4] = {(uint32_t)block, (uint32_t)(block >> 32), o->stream, 0u};
  uint32_t words[4];
  tesra_philox(counter, o->key_low, o->key_high, words);
  for (int j = 0; j < 4; ++j) out[j] = (double)(words[j] >> 8) / 16777216.0;
}
TESRA_HD float tesra_normal(const tesra_fill* o, int64_t i) {
  double sum = -6.0, u[4];
  for (int block = 0; block < 3; ++block) {
    tesra_uniforms(o, (uint64_t)i * 3 + (uint64_t)block, u);
    for (int j = 0; j < 4; ++j) sum = sum + u[j];
  }
  return (float)(sum * o->scale);
}

#ifdef __cplusplus
}
#endif
