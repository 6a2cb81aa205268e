// Owns: element-wise operations. n elements each; out may be exactly one of the inputs.
#pragma once
#include "special-functions.h"

#ifdef __cplusplus
extern "C" {
#endif

// relu:       out = tesra_relu(x)
// relu_grad:  out = (y > 0) ? x : +0, with x = dY and y = the forward output
// add:        out = x + y
// scale:      out = fma(alpha, x, beta)
// gelu, gelu_tanh, silu:                 out = tesra_gelu(x), ... (special-functions.h)
// gelu_grad, gelu_tanh_grad, silu_grad:  out = x * tesra_gelu_derivative(y), ..., with x = dY and
//                                        y = the forward input
// mul, div:   out = x * y, x / y
// exp, log, sqrt, erf, sigmoid:  out = tesra_exp(x), tesra_natural_log(x), sqrt(x), tesra_erf(x), tesra_sigmoid(x)
typedef struct tesra_map {
  const float* x;
  const float* y;
  float* out;
  int64_t n;
  float alpha, beta;
} tesra_map;

// bias_add: out[i][j] = x[i][j] + bias[j], x and out m x n; out may be x.
typedef struct tesra_bias_add {
  const float* x;
  const float* bias;
  float* out;
  int64_t m, n;
} tesra_bias_add;

// u8_to_f32: out = fma(scale, (float)x, shift)
typedef struct tesra_u8_to_f32 {
  const uint8_t* x;
  float* out;
  int64_t n;
  float scale, shift;
} tesra_u8_to_f32;

// finite: out[0] = 1 when all x are finite, else 0
typedef struct tesra_finite {
  const float* x;
  int32_t* out;
  int64_t n;
} tesra_finite;

#ifdef __cplusplus
}
#endif
