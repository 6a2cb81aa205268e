// Owns: copies between two layouts of up to TESRA_COPY_RANK_MAX dimensions: transposition, slices,
// concatenation, broadcasting, and their gradients by adding.
// Invariant: no two indices name one place of the output, so order and tiling change no bit.
#pragma once
#include "exact-math.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TESRA_COPY_RANK_MAX 6

// For every index: out[sum index x to] = x[sum index x from], or += with accumulate. A stride `from` of 0
// repeats. clear: all `out_elements` of the output are +0 before. x and out start at their first element
// taken; `all` is the whole output.
typedef struct tesra_copy {
  const float* x;
  float* out;
  float* all;
  int64_t out_elements;
  int64_t size[TESRA_COPY_RANK_MAX], from[TESRA_COPY_RANK_MAX], to[TESRA_COPY_RANK_MAX];
  uint8_t accumulate, clear;
} tesra_copy;

#ifdef __cplusplus
}
#endif
