// Owns: rotary position embedding (Su et al. 2021): each head's pairs (i, i + half) are turned by
// position x ratio^i, the halves' pairing of Llama as Hugging Face stores it.
// Invariant: angles, their reduction and the series are doubles in the written order, rounded to
// float once, so a rotation has the same bits everywhere; no table is stored beside the tensors.
#pragma once
#include "exact-math.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TESRA_TWO_OVER_PI 0.63661977236758138
#define TESRA_HALF_PI_HI 1.5707963267948966
#define TESRA_HALF_PI_LO 6.123233995736766e-17

// x and out are rows x columns, row r at position r % length. The first heads x head_size columns
// (head_size even) turn, the others are copied; with c, s of the position and pair i:
//   out[i]        = fma(x[i], c, -(x[i + half] * s))
//   out[i + half] = fma(x[i + half], c, x[i] * s)
// inverse takes -s: the gradient of the forward turn. out may be x.
typedef struct tesra_rope {
  const float* x;
  float* out;
  int64_t rows;
  int32_t length, columns, heads, head_size;
  double ratio;  // base^(-2 / head_size), by tesra_rope_ratio
  uint8_t inverse;
} tesra_rope;

// The positive root of r^(head_size / 2) = 1 / base, base >= 1, by Newton's method from above: it
// falls until rounding stops it, some tens of steps.
TESRA_HD double tesra_rope_ratio(double base, int32_t head_size) {
  const uint32_t n = (uint32_t)head_size / 2;
  const double target = 1.0 / base;
  double r = 1.0;
  for (int step = 0; step < 4096; ++step) {
    const double below = tesra_powi(r, n - 1);
    const double next = r - (below * r - target) / ((double)n * below);
    if (!(next < r)) break;
    r = next;
  }
  return r;
}

TESRA_HD double tesra_fma_double(double a, double b, double c) {
#ifdef __CUDA_ARCH__
  return __fma_rn(a, b, c);
#else
  return fma(a, b, c);
#endif
}

// Cosine and sine of position x ratio^pair. |rest| <= pi / 4, where the series are below 1e-16.
TESRA_HD void tesra_rotation(double ratio, int32_t position, int32_t pair, float* cosine, float* sine) {
  const double angle = (double)position * tesra_powi(ratio, (uint32_t)pair);
  const double k = floor(tesra_fma_double(angle, TESRA_TWO_OVER_PI, 0.5));
  double r = tesra_fma_double(-k, TESRA_HALF_PI_HI, angle);
  r = tesra_fma_double(-k, TESRA_HALF_PI_LO, r);
  const double z = r * r;
  double s = -1.0 / 1307674368000.0;
  s = tesra_fma_double(s, z, 1.0 / 6227020800.0);
  s = tesra_fma_double(s, z, -1.0 / 39916800.0);
  s = tesra_fma_double(s, z, 1.0 / 362880.0);
  s = tesra_fma_double(s, z, -1.0 / 5040.0);
  s = tesra_fma_double(s, z, 1.0 / 120.0);
  s = tesra_fma_double(s, z, -1.0 / 6.0);
  s = tesra_fma_double(s * z, r, r);
  double c = 1.0 / 20922789888000.0;
  c = tesra_fma_double(c, z, -1.0 / 87178291200.0);
  c = tesra_fma_double(c, z, 1.0 / 479001600.0);
  c = tesra_fma_double(c, z, -1.0 / 3628800.0);
  c = tesra_fma_double(c, z, 1.0 / 40320.0);
  c = tesra_fma_double(c, z, -1.0 / 720.0);
  c = tesra_fma_double(c, z, 1.0 / 24.0);
  c = tesra_fma_double(c, z, -0.5);
  c = tesra_fma_double(c, z, 1.0);
  const int64_t turns = (int64_t)k;
  const double cos_now = turns & 1 ? -s : c, sin_now = turns & 1 ? c : s;
  *cosine = (float)(turns & 2 ? -cos_now : cos_now);
  *sine = (float)(turns & 2 ? -sin_now : sin_now);
}

#ifdef __cplusplus
}
#endif
