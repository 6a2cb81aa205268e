// Owns: optimizer updates over flat fp32 vectors, in place, and delay compensation.
// Every line below is one rounding (or one FMA); float constants are (float) of the double given.
// p, g, m, v do not overlap each other.
#pragma once
#include "exact-math.h"

#ifdef __cplusplus
extern "C" {
#endif

// flush(x) = |x| < TESRA_FLOAT_TINY ? +0 : x   (NaN stays)
// gd = weight_decay != 0 ? fma(wd, p, g) : g       (sgd and momentum: L2, as torch)
// sgd:       p = fma(-lr, gd, p)
// momentum:  m = flush(fma(mu, m, gd));  u = nesterov ? fma(mu, m, gd) : m;  p = fma(-lr, u, p)
typedef struct tesra_sgd {
  float* p;
  const float* g;
  float* m;  // momentum only
  int64_t n;
  double learning_rate, weight_decay, momentum;
  uint8_t nesterov;
} tesra_sgd;

// t = step (1 for the first update). When step_counter != NULL: step_counter[0] += 1.0f first and
// t = (uint32_t)step_counter[0] (values outside [1, 2^24] are clamped into it); else t = step.
// Coefficients: tesra_adam_coefficients below.
//   p = p * decay                         (only when weight_decay != 0; decoupled, AdamW)
//   m = flush(fma(beta1, m, omb1 * g))
//   v = flush(fma(beta2, v, omb2 * (g * g)))
//   d = fma(sqrt(v), root, epsilon)
//   p = fma(-alpha, m / d, p)
typedef struct tesra_adam {
  float* p;
  const float* g;
  float* m;
  float* v;
  float* step_counter;
  int64_t n;
  uint32_t step;
  double learning_rate, beta1, beta2, epsilon, weight_decay;
} tesra_adam;

typedef struct tesra_adam_coefficients_t {
  float beta1, beta2, omb1, omb2, root, epsilon, alpha, decay;
} tesra_adam_coefficients_t;

TESRA_HD tesra_adam_coefficients_t tesra_adam_coefficients(const tesra_adam* o, uint32_t t) {
  tesra_adam_coefficients_t c;
  double c1 = 1.0 - tesra_powi(o->beta1, t);
  double c2 = 1.0 - tesra_powi(o->beta2, t);
  c.beta1 = (float)o->beta1;
  c.beta2 = (float)o->beta2;
  c.omb1 = (float)(1.0 - o->beta1);
  c.omb2 = (float)(1.0 - o->beta2);
  c.root = (float)(1.0 / sqrt(c2));
  c.epsilon = (float)o->epsilon;
  c.alpha = (float)(o->learning_rate / c1);
  c.decay = (float)(1.0 - o->learning_rate * o->weight_decay);
  return c;
}

// g = fma(lambda * (g * g), w_now - w_base, g)    (DC-ASGD, Zheng et al. 2017, eq. 10)
typedef struct tesra_delay_compensate {
  float* g;
  const float* w_now;
  const float* w_base;
  int64_t n;
  float lambda;
} tesra_delay_compensate;

// norm[0] = (float)sqrt(s), s the sum in double, by ascending chunk of TESRA_FLAT_CHUNK, of the chunks' sums
// by TESRA_LANES of fma(x, x, .).
typedef struct tesra_global_norm {
  const float* x;
  float* norm;
  int64_t n;
} tesra_global_norm;

// f = limit / (norm[0] + 1e-6f); x = x * f when f < 1 or normalize, else (a NaN norm too) x stays. In place.
typedef struct tesra_clip {
  float* x;
  const float* norm;
  int64_t n;
  float limit;
  uint8_t normalize;
} tesra_clip;

#ifdef __cplusplus
}
#endif
