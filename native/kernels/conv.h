// Owns: 2-D convolution, its input gradient and its weight gradient.
// Invariant: each is the matrix product of gemm.h in the K order given here, same chunk rule.
#pragma once
#include "exact-math.h"

#ifdef __cplusplus
extern "C" {
#endif

// Images NHWC, weights KH,KW,C,OC, outputs N,OH,OW,OC; no dilation, no groups.
//   oh = (h + 2 pad_h - kh) / stride_h + 1 (floor), ow likewise; 0 <= pad < kernel size.
// A tap that falls outside the image, or between strides in the input gradient, enters the chain
// as the operand +0 (it is not skipped: that matters for -0 and for infinite weights).
// forward: K order (kh, kw, c):   y = sum x[n, i*s + kh - p, j*s + kw - p, c] * w[kh,kw,c,oc],
//          then + bias[oc] when bias, then relu.
// dx:      K order (kh, kw, oc):  dx[n,h,w,c] = sum dy[n,(h+p-kh)/s,(w+p-kw)/s,oc] * w[kh,kw,c,oc]
// dw:      K order (n, oh, ow):   dw[kh,kw,c,oc] = sum x[n, i*s+kh-p, j*s+kw-p, c] * dy[n,i,j,oc]
// The product fma(x, w, acc) has x (or dy) first; that changes no bit and is stated for clarity.
typedef struct tesra_conv {
  const float* x;     // forward, dw
  const float* w;     // forward, dx
  const float* dy;    // dx, dw
  const float* bias;  // forward: oc floats or NULL
  float* out;         // forward: y; dx: dx; dw: dw
  int32_t n, h, w_, c;
  int32_t kh, kw, oc, oh, ow;
  int32_t stride_h, stride_w, pad_h, pad_w;
  uint8_t relu;  // forward only
} tesra_conv;

#ifdef __cplusplus
}
#endif
