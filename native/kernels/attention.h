// Owns: multi-head scaled dot-product attention (Vaswani et al. 2017) without storing the scores:
// blocks of keys with a running maximum (Dao 2024, FlashAttention-2), and its gradient.
// Invariant: memory beside the tensors is linear in the sequence length; the order below is fixed by
// TESRA_ATTENTION_BLOCK alone, so tiling, threads and device change no bit.
#pragma once
#include "exact-math.h"

#ifdef __cplusplus
extern "C" {
#endif

// Keys and queries are taken in blocks of this many, from multiples of it. 64 x 64 scores and the
// operands of head size 64 are 64 KiB: the first two cache levels, or a multiprocessor's shared memory.
#define TESRA_ATTENTION_BLOCK 64
#define TESRA_HEAD_SIZE_MAX 128

// qkv is batch x length x (3 heads head_size): queries, keys, values one after another, each head by
// head. out is batch x length x (heads head_size); lse batch x heads x length.
// scale = (float)(1 / sqrt((double)head_size)); q' = q * scale.
// Per query i, m = -inf, l = 16 lanes of +0, o = +0; then for each block of keys with a first key <= i
// (every block when !causal), ascending:
//   s_j = FMA chain over head_size of q' k_j, ascending from +0
//   pairs with j > i (causal) or j >= length are masked: s_j = -inf
//   n = maximum of m and the s_j (fold x > best ? x : best);  f = tesra_exp(m - n)
//   p_j = tesra_exp(s_j - n)
//   l[j % 16] = fma(l, f, ((p_j + p_(j+16)) + p_(j+32)) + p_(j+48))
//   o = fma(o, f, c), c = FMA chain of p_j v_j over the block's keys below length, ascending from +0,
//   masked ones included as p_j = +0;  m = n
// t = l folded as in TESRA_LANES;  out = o * (1 / t);  lse = m + tesra_log(t).
typedef struct tesra_attention {
  const float* qkv;
  float* out;
  float* lse;
  int32_t batch, length, heads, head_size;
  uint8_t causal;
} tesra_attention;

// e_i = sum by TESRA_LANES of fma(dout, out, .). For each block of queries and each block of keys that
// the forward pass joins, of queries and keys below length:
//   p = tesra_exp(s - lse_i), +0 where masked;  dp = FMA chain over head_size of dout_i v_j;
//   ds = p * (dp - e_i)
// dv_j = block sums, added by ascending block of queries, of FMA chains over the block's queries of
// p dout_i from +0;  dk_j likewise of ds q'_i;  dq_i = scale * (block sums, added by ascending block of
// keys, of FMA chains over the block's keys of ds k_j). The first block sum is taken as it is.
typedef struct tesra_attention_grad {
  const float* dout;
  const float* qkv;
  const float* out;
  const float* lse;
  float* dqkv;
  int32_t batch, length, heads, head_size;
  uint8_t causal;
} tesra_attention_grad;

TESRA_HD float tesra_attention_scale(int32_t head_size) {
  return (float)(1.0 / sqrt((double)head_size));
}

#ifdef __cplusplus
}
#endif
