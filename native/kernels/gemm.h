// Owns: fp32 matrix product and the bias gradient.
// Invariant: see "Fixed orders" in exact-math.h; the same bits on every ISA and device, but for
// BF16_GEMM.
#pragma once
#include "exact-math.h"

#ifdef __cplusplus
extern "C" {
#endif

// C (m x n) = op(A) op(B), all row-major and dense.
//   A is m x k, or k x m when trans_a;  B is k x n, or n x k when trans_b.
// For each output, with c0, c1, ... the chunk sums over TESRA_K_CHUNK:
//   s = accumulate ? C + c0 : c0;  s = s + c1; ...
//   s = s + bias[column] when bias;  C = relu ? tesra_relu(s) : s.
// BF16_GEMM: op(A) and op(B) rounded to bf16 (bf16.h), their products exact, sums in fp32 in an
// order of the device's own, then accumulate, bias and relu as above. Fast on tensor cores, and NOT
// the same bits on every device: each output is within about k 2^-23 sum |a b| of the exact sum.
// k = 0: s = accumulate ? C : +0.  m = 0 or n = 0: nothing is done.
// C overlaps neither A nor B nor bias.
typedef struct tesra_gemm {
  const float* a;
  const float* b;
  const float* bias;  // n floats or NULL
  float* c;
  int32_t m, n, k;
  uint8_t trans_a, trans_b, relu, accumulate;
} tesra_gemm;

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
