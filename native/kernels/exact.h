// Owns: exact-int, the fp32 product by int8 slices whose bits depend on no order of summation.
// Invariant: integers until one rounding at the end; the same bits on every ISA and device.
//
// Each row of op(A) and each column of op(B) is scaled by a power of two and cut into slices of 7
// bits, most significant first (Ozaki et al. 2012; Ootomo, Ozaki and Yokota 2024, for int8):
//   E = biased exponent of the largest magnitude (a denormal's or a zero's counts as 1), e = E - 126,
//   so that |x| < 2^e;  t = x 2^(6-e);  s1 = rint(t), t = (t - s1) 2^7, s2 = rint(t), ... with
//   |s| <= 64. Multiplying by 2^(6-e) takes two steps, by 2^h and 2^(6-e-h), h = floor((6-e) / 2);
//   what underflows there is far below the last slice.
// Products of slices of one order share a sum: P1 = s1 t1, P2 = s1 t2 + s2 t1, P3 = s1 t3 + s2 t2 +
// s3 t1. |P| <= 3 * 64 * 64 * TESRA_EXACT_K_CHUNK < 2^31.
//   c = fp32(2^(eA + eB - 12) (P1 + P2 2^-7 + P3 2^-14)), exact but for this rounding.
// Two slices (3 products) are off by about 2^-14 of a row's and a column's largest magnitude, as
// bf16 operands with fp32 sums are; three (6 products) by 2^-21.
// A row or column that holds an infinity or a NaN makes all its outputs the NaN 0x7fc00000.
#pragma once
#include "gemm.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TESRA_EXACT_SLICES_MAX 3
// k is cut at multiples of this; each chunk has scales of its own and gives its own c. The chunks'
// c are joined, and accumulate, bias and what else is fused follow, as in gemm.h.
#define TESRA_EXACT_K_CHUNK 65536

// k = 0, m = 0, n = 0 and overlap: as tesra_gemm.
typedef struct tesra_exact_gemm {
  tesra_gemm gemm;
  int32_t slices;  // 2 or 3
} tesra_exact_gemm;

#ifdef __cplusplus
}
#endif
