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

// The order in which tasks that share a head add to a block of dq: key blocks ascending, as attention.h
// has it.
struct AttentionTurns {
  void (*wait)(void* of, int32_t query_block, int32_t key_block);  // until it is this key block's turn
  void (*done)(void* of, int32_t query_block, int32_t key_block);
  void* of;
};

// The gradient of one head. shared: attention_shared() floats, of the head; own: attention_own() floats,
// of the task. turns: NULL when one task goes through the key blocks in order.
struct AttentionHead {
  const float *q, *k, *v, *out, *dout, *lse;
  float *dq, *dk, *dv, *shared, *own;
  const AttentionTurns* turns;
  int64_t stride, out_stride;
  int32_t length, head_size, head_padded;
  float scale;
  bool causal;
};
inline int64_t attention_shared(int32_t length, int32_t head_padded) {
  constexpr int64_t block = TESRA_ATTENTION_BLOCK;
  return (length + block - 1) / block * block * (3 * head_padded + 2);
}
inline int64_t attention_own(int32_t head_padded) {
  constexpr int64_t block = TESRA_ATTENTION_BLOCK;
  return block * (5 * head_padded + 2 * block);
}

// What gemm.h fuses behind the bias, over rows x columns of C; all at the tile's first element, rows
// apart by `ld`.
struct Epilogue {
  float *c, *saved;
  const float *before, *residual;
  int64_t ld;
  int32_t rows, columns;
  uint8_t activation;
};

struct TransformerKernels {
  using Map = void (*)(const float* x, const float* y, float* out, int64_t n);
  Map gelu, gelu_grad, gelu_tanh, gelu_tanh_grad, silu, silu_grad;
  void (*epilogue)(const Epilogue& e);
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
  // In this order, each over all blocks: what a block of rows needs (queries scaled, dout, e, lse), a
  // block of keys with dk and dv, and a block of dq's rows written out.
  void (*attention_grad_rows)(const AttentionHead& o, int block);
  void (*attention_grad_keys)(const AttentionHead& o, int block);
  void (*attention_grad_store)(const AttentionHead& o, int block);
};

}  // namespace tesra
