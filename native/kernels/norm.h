// Owns: layer normalisation (Ba et al. 2016), RMS normalisation (Zhang and Sennrich 2019), softmax
// over rows, and their gradients.
// Invariant: sums over a row by TESRA_LANES, sums over rows by TESRA_NORM_ROWS; `/ n` is an IEEE
// division by (float)columns. columns >= 1.
#pragma once
#include "exact-math.h"

#ifdef __cplusplus
extern "C" {
#endif

// Layer norm: mean = sum(x) / n;  d = x - mean;  rstd = 1 / sqrt(sum(fma(d, d, .)) / n + epsilon);
//             y = fma(d * rstd, gamma, beta).
// RMS norm (mean, beta NULL): rstd = 1 / sqrt(sum(fma(x, x, .)) / n + epsilon);
//             y = (x * rstd) * gamma.
// y may be x.
typedef struct tesra_norm {
  const float* x;
  const float* gamma;
  const float* beta;
  float* y;
  float* mean;  // rows floats
  float* rstd;  // rows floats
  int64_t rows;
  int32_t columns;
  float epsilon;
} tesra_norm;

// h = (x - mean) * rstd, or x * rstd;  g = dy * gamma;  b = sum(fma(g, h, .)) / n.
// Layer norm: a = sum(g) / n;  dx = (fma(-h, b, g) - a) * rstd;  dbeta = column sum of dy.
// RMS norm:   dx = fma(-h, b, g) * rstd.
// dgamma = column sum of fma(dy, h, .). dx may be dy. rows = 0 gives dgamma = dbeta = +0.
typedef struct tesra_norm_grad {
  const float* dy;
  const float* x;
  const float* gamma;
  const float* mean;  // NULL: RMS
  const float* rstd;
  float* dx;
  float* dgamma;
  float* dbeta;  // NULL: RMS
  int64_t rows;
  int32_t columns;
} tesra_norm_grad;

// softmax:      mx = maximum (fold: best = x > best ? x : best, from x[0]); e = tesra_exp(x - mx);
//               out = e * (1 / sum(e)).
// softmax_grad: d = sum(fma(y, dy, .)); out = y * (dy - d), with x = dY, y = the forward output.
// out may be x.
typedef struct tesra_softmax {
  const float* x;
  const float* y;
  float* out;
  int64_t rows;
  int32_t columns;
} tesra_softmax;

#ifdef __cplusplus
}
#endif
