// Owns: fp32 matrix product with what is fused behind it, and the bias gradient.
// Invariant: see "Fixed orders" in exact-math.h; the same bits on every ISA and device, but for
// BF16_GEMM.
#pragma once
#include "special-functions.h"

#ifdef __cplusplus
extern "C" {
#endif

// C (m x n) = op(A) op(B), all row-major and dense.
//   A is m x k, or k x m when trans_a;  B is k x n, or n x k when trans_b.
// For each output, with c0, c1, ... the chunk sums over TESRA_K_CHUNK:
//   s = accumulate ? C + c0 : c0;  s = s + c1; ...
//   s = s + bias[column] when bias;  saved = s when saved;
//   s = activation(s), or s times the activation's derivative at `before` (as activation.h has it);
//   s = s + residual when residual;  C = s.
// The bits are those of the product followed by bias_add, the activation or its gradient, and add.
// BF16_GEMM: op(A) and op(B) rounded to bf16 (bf16.h), their products exact, sums in fp32 in an
// order of the device's own, then accumulate, bias and the rest as above. Fast on tensor cores, and NOT
// the same bits on every device: each sum is within about k 2^-23 sum |a b| of the exact one.
// k = 0: s = accumulate ? C : +0.  m = 0 or n = 0: nothing is done.
// C and saved overlap neither each other nor anything that is read.
enum tesra_activation {
  TESRA_ACTIVATION_NONE = 0,
  TESRA_ACTIVATION_RELU,
  TESRA_ACTIVATION_GELU,
  TESRA_ACTIVATION_GELU_TANH,
  TESRA_ACTIVATION_SILU,
};
typedef struct tesra_gemm {
  const float* a;
  const float* b;
  const float* bias;  // n floats or NULL
  // Each m x n or NULL. before: the activation's input (of ReLU: its output), for its derivative.
  const float *before, *residual;
  float *c, *saved;
  int32_t m, n, k;
  uint8_t trans_a, trans_b, accumulate;
  uint8_t activation;  // enum tesra_activation; not NONE where `before` is
} tesra_gemm;

// The activation, or with `before` the product with its derivative there.
TESRA_HD float tesra_activated(int activation, float s, const float* before) {
  switch (activation) {
    case TESRA_ACTIVATION_RELU: return before ? (*before > 0.0f ? s : 0.0f) : tesra_relu(s);
    case TESRA_ACTIVATION_GELU: return before ? s * tesra_gelu_derivative(*before) : tesra_gelu(s);
    case TESRA_ACTIVATION_GELU_TANH:
      return before ? s * tesra_gelu_tanh_derivative(*before) : tesra_gelu_tanh(s);
    case TESRA_ACTIVATION_SILU: return before ? s * tesra_silu_derivative(*before) : tesra_silu(s);
    default: return s;
  }
}

// db[j] = sum over rows i of dy[i][j]; dy is m x n row-major. Order: TESRA_ROW_CHUNK.
// m = 0 gives +0.
typedef struct tesra_bias_grad {
  const float* dy;
  float* db;
  int64_t m;
  int32_t n;
} tesra_bias_grad;

#ifdef __cplusplus
}
#endif
