// Owns: what a parameter server does to whole vectors in host memory, each in one pass: an optimizer's
// step out of place, and the mean of several gradients. The arithmetic is optimizer.h's, line by line.
// Host pointers throughout; outputs do not overlap inputs or each other.
#pragma once
#include "optimizer.h"

#ifdef __cplusplus
extern "C" {
#endif

// p_out, m_out, v_out = one step from p, m, v along g. `largest` is set to the largest |g[i]| as bits: NaN
// above infinity above numbers, so one look tells a bad gradient, whose step is then not used.
typedef struct tesra_update {
  int32_t kind;      // TESRA_OP_SGD, TESRA_OP_MOMENTUM, TESRA_OP_ADAM
  tesra_sgd sgd;     // of the first two: the constants alone
  tesra_adam adam;   // of the third: the constants and `step`
  const float *p, *g, *m, *v;
  float *p_out, *m_out, *v_out;
  int64_t n;
  uint32_t largest;
} tesra_update;

#define TESRA_MEAN_MAX 1024

// out[i] = (float)((0.0 + x[0][i] + x[1][i] + ...) / count) in double, 1 <= count <= TESRA_MEAN_MAX
typedef struct tesra_mean {
  const float* const* x;
  int32_t count;
  float* out;
  int64_t n;
} tesra_mean;

#ifdef __cplusplus
}
#endif
