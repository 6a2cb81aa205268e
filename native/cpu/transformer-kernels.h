// Owns: the part of the kernel table that transformers need: activations, norms, softmax, attention.
#pragma once
#include <stdint.h>

#include "../kernels/backend.h"

namespace tesra {

// One block of at most TESRA_ATTENTION_BLOCK queries of one head against its first `blocks` blocks of
// keys. Packed: keys as [head_size][64], values as [64][head_padded], both zero-padded.
struct AttentionQueries {
  const float* q;  // rows apart by `stride`
  const float *keys, *values;
  float* out;  // rows apart by `out_stride`
  float* lse;
  int64_t stride, out_stride;
  int32_t first, rows, blocks, length, head_size, head_padded;
  float scale;
  bool causal;
};

// The gradient of one head. scratch: attention_head_scratch() floats.
struct AttentionHead {
  const float *q, *k, *v, *out, *dout, *lse;
  float *dq, *dk, *dv, *scratch;
  int64_t stride, out_stride;
  int32_t length, head_size, head_padded;
  float scale;
  bool causal;
};
inline int64_t attention_head_scratch(int32_t length, int32_t head_padded) {
  constexpr int64_t block = TESRA_ATTENTION_BLOCK;
  const int64_t rows = (length + block - 1) / block * block;
  return rows * (3 * head_padded + 2) + block * (5 * head_padded + 2 * block);
}

struct TransformerKernels {
  using Map = void (*)(const float* x, const float* y, float* out, int64_t n);
  Map gelu, gelu_grad, gelu_tanh, gelu_tanh_grad, silu, silu_grad;
  Map mul, div, exp, log, sqrt, erf, sigmoid;
  // The rows [row, row + rows) of an operation.
  void (*norm)(const tesra_norm& o, int64_t row, int64_t rows);
  // `sums`: columns floats for dgamma, then as many for dbeta (layer norm), of these rows alone.
  void (*norm_grad)(const tesra_norm_grad& o, int64_t row, int64_t rows, float* sums);
  void (*softmax)(const tesra_softmax& o, int64_t row, int64_t rows);
  void (*softmax_grad)(const tesra_softmax& o, int64_t row, int64_t rows);
  float (*square_sum)(const float* x, int32_t n);  // of fma(x, x, .) by lanes
  void (*multiply)(float* x, int64_t n, float by);
  void (*rotate)(const float* x, const float* turn, float* out, int32_t half);
  void (*attention_queries)(const AttentionQueries& o);
  void (*attention_grad)(const AttentionHead& o);
};

}  // namespace tesra
