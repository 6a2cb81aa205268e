// Owns: bf16 as an operand's form: the upper half of a float, rounded to the nearest, ties to even.
// A NaN stays a NaN (quiet, of its sign and leading bits); infinities, zeros and denormals are as
// any other value.
#pragma once
#include "exact-math.h"

// The bits of the bf16 nearest to x.
TESRA_HD uint32_t tesra_bf16_bits(float x) {
  const uint32_t bits = tesra_float_bits(x);
  const uint32_t nearest = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  return (bits & 0x7fffffffu) > 0x7f800000u ? (bits >> 16 | 0x40u) : nearest;
}
// The bf16 nearest to x, as a float.
TESRA_HD float tesra_bf16_round(float x) { return tesra_bits_float(tesra_bf16_bits(x) << 16); }
