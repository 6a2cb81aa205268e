// Owns: the float functions whose bits all back ends share. Plain C++ that also compiles as CUDA.
// Invariant: only IEEE +, -, *, /, sqrt and explicit FMA, in the written order. Compile with
// -ffp-contract=off (nvcc: -fmad=false, no fast-math), denormals on. NaN payloads are not compared.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define TESRA_HD __host__ __device__ __forceinline__
#else
#define TESRA_HD inline
#endif

// ---- Fixed orders: change one and every stored result changes. ----

// GEMM and convolution: K is cut at multiples of this; each chunk is one FMA chain from +0,
// ascending k; the chunk sums are added in ascending order. 512 keeps a 32-column B panel in L2,
// lets a GPU split long K, and leaves most layers with one or two chunks.
#define TESRA_K_CHUNK 512
// Column sums over rows (bias gradients): rows cut at multiples of this, each chunk one chain of
// additions from +0 ascending, chunk sums added in ascending order.
#define TESRA_ROW_CHUNK 256
// Row reductions (softmax, flat sums): lane l adds elements l, l+16, l+32, ... ascending from +0,
// then lanes fold: i += i+8 (i<8), i += i+4 (i<4), i += i+2, i += i+1.
#define TESRA_LANES 16
// Column sums over rows in a norm's gradients (gamma, beta): rows cut at multiples of this, each chunk
// one chain from +0 ascending, chunk sums added in ascending order. Shorter than TESRA_ROW_CHUNK
// because a chunk is also the task that computes the rows.
#define TESRA_NORM_ROWS 32
// Flat sums (the mean loss): chunks of this many elements, each folded as above, chunk sums added
// in ascending order.
#define TESRA_FLAT_CHUNK 4096

// Smallest normal float. Optimizer states below it in magnitude are stored as +0: decaying moments
// would otherwise stick at denormals, which cost a CPU some 150 cycles each.
#define TESRA_FLOAT_TINY 1.17549435e-38f

TESRA_HD float tesra_fma(float a, float b, float c) {
#ifdef __CUDA_ARCH__
  return __fmaf_rn(a, b, c);
#else
  return fmaf(a, b, c);
#endif
}

TESRA_HD float tesra_bits_float(uint32_t u) {
  float f;
  memcpy(&f, &u, 4);
  return f;
}
TESRA_HD uint32_t tesra_float_bits(float f) {
  uint32_t u;
  memcpy(&u, &f, 4);
  return u;
}

// ReLU keeps NaN and -0: (x < 0) ? +0 : x.
TESRA_HD float tesra_relu(float x) { return x < 0.0f ? 0.0f : x; }

// exp, below 1 ulp-and-a-half on [-87.3, 88.7]; x < -87.3365 gives +0 (no denormal results),
// x > 88.7228 gives +inf, NaN gives NaN. Cody-Waite reduction, degree-6 polynomial.
#define TESRA_EXP_LO (-87.33654f)
#define TESRA_EXP_HI 88.72283f
#define TESRA_LOG2E 1.44269504f
#define TESRA_LN2_HI 0.693145752f
#define TESRA_LN2_LO 1.42860677e-06f
#define TESRA_ROUND_MAGIC 12582912.0f /* 1.5 * 2^23: adding and subtracting rounds to nearest even */
#define TESRA_EXP_C6 0.00138888889f
#define TESRA_EXP_C5 0.00833333377f
#define TESRA_EXP_C4 0.0416666679f
#define TESRA_EXP_C3 0.166666672f
#define TESRA_EXP_C2 0.5f

TESRA_HD float tesra_exp(float x) {
  if (x != x) return x;
  if (x < TESRA_EXP_LO) return 0.0f;
  if (x > TESRA_EXP_HI) return tesra_bits_float(0x7f800000u);
  float z = tesra_fma(x, TESRA_LOG2E, TESRA_ROUND_MAGIC);
  float n = z - TESRA_ROUND_MAGIC;  // in [-126, 128]
  float r = tesra_fma(n, -TESRA_LN2_HI, x);
  r = tesra_fma(n, -TESRA_LN2_LO, r);
  float p = TESRA_EXP_C6;
  p = tesra_fma(p, r, TESRA_EXP_C5);
  p = tesra_fma(p, r, TESRA_EXP_C4);
  p = tesra_fma(p, r, TESRA_EXP_C3);
  p = tesra_fma(p, r, TESRA_EXP_C2);
  p = tesra_fma(p, r, 1.0f);
  p = tesra_fma(p, r, 1.0f);
  // 2^n in two factors, so that n = 128 does not overflow the exponent field.
  int32_t i = (int32_t)n;
  int32_t half = i >> 1;
  float s1 = tesra_bits_float((uint32_t)(half + 127) << 23);
  float s2 = tesra_bits_float((uint32_t)(i - half + 127) << 23);
  return (p * s1) * s2;
}

// log of a finite normal x > 0 (what softmax needs: sums in [1, 2^24]); x = +inf or NaN gives x,
// x <= 0 or denormal is outside the contract and gives a finite, unspecified-by-mathematics but
// bit-fixed value. log(m * 2^e) with m in [sqrt(1/2), sqrt(2)), atanh series in s = f/(2+f).
TESRA_HD float tesra_log(float x) {
  if (!(x <= 3.40282347e38f)) return x;
  uint32_t u = tesra_float_bits(x);
  int32_t e = (int32_t)(u - 0x3f3504f3u) >> 23;
  float m = tesra_bits_float(u - ((uint32_t)e << 23));
  float f = m - 1.0f;
  float s = f / (2.0f + f);
  float z = s * s;
  float p = 0.111111112f;
  p = tesra_fma(p, z, 0.142857149f);
  p = tesra_fma(p, z, 0.200000003f);
  p = tesra_fma(p, z, 0.333333343f);
  float t = (2.0f * s);
  float q = tesra_fma(t * z, p, t);
  float n = (float)e;
  q = tesra_fma(n, TESRA_LN2_LO, q);
  return tesra_fma(n, TESRA_LN2_HI, q);
}

// beta^t by square and multiply from the lowest bit, in double: the same bits everywhere.
TESRA_HD double tesra_powi(double beta, uint32_t t) {
  double r = 1.0, b = beta;
  while (t) {
    if (t & 1u) r = r * b;
    b = b * b;
    t >>= 1;
  }
  return r;
}
