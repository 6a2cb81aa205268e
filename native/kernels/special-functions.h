// Owns: the float functions of activations: the integral of the normal density, GELU in its two
// forms, SiLU, and their derivatives; erf, and the logarithm of any float. Same invariant as exact-math.h, on which they are built.
// NaN gives NaN. Below -TESRA_GELU_FLAT (-TESRA_SILU_FLAT) the values, which are 0 to every digit, are
// those at that bound, below 1e-32 in size; so nothing is ever 0 * inf, and derivatives are finite at
// every number and at both infinities.
#pragma once
#include "exact-math.h"

// The integral of the normal density from -inf to -a, a >= 0, is e^(-a^2/2) t P(t) with
// t = 1 / (1 + c a), the form of Abramowitz and Stegun 7.1.26 with eight terms for their five: P is
// fitted by weighted least squares to 1.1e-7 relative, 4.2e-7 in float.
#define TESRA_PHI_C 0.305f
#define TESRA_PHI_P7 0.0364274755f
#define TESRA_PHI_P6 (-0.151897103f)
#define TESRA_PHI_P5 0.183906585f
#define TESRA_PHI_P4 (-0.0363744274f)
#define TESRA_PHI_P3 0.120207414f
#define TESRA_PHI_P2 0.103657551f
#define TESRA_PHI_P1 0.122430496f
#define TESRA_PHI_P0 0.121642001f
#define TESRA_NORMAL_PEAK 0.398942280f /* 1 / sqrt(2 pi) */
// tanh form (Hendrycks and Gimpel 2016): 0.5 x (1 + tanh(u)) = x sigmoid(2u),
// 2u = x (K0 + K1 x^2), K0 = 2 sqrt(2/pi), K1 = 0.044715 K0.
#define TESRA_GELU_K0 1.59576912f
#define TESRA_GELU_K1 0.0713548163f
#define TESRA_GELU_3K1 0.214064449f
#define TESRA_GELU_FLAT 16.0f
#define TESRA_SILU_FLAT 128.0f
#define TESRA_SIGMOID_FLAT 80.0f /* 1 / (1 + e^80) is still a normal number, as Newton steps need */

// Bounds keep NaN.
TESRA_HD float tesra_at_least(float x, float bound) { return bound > x ? bound : x; }
TESRA_HD float tesra_at_most(float x, float bound) { return bound < x ? bound : x; }
TESRA_HD float tesra_clamp(float x, float bound) {
  return tesra_at_least(tesra_at_most(x, bound), -bound);
}

// e = e^(-x^2/2) and the integral of the normal density up to x.
TESRA_HD float tesra_phi(float x, float* e) {
  const float a = fabsf(x);
  *e = tesra_exp((-0.5f * a) * a);
  const float t = 1.0f / tesra_fma(TESRA_PHI_C, tesra_at_most(a, TESRA_GELU_FLAT), 1.0f);
  float p = TESRA_PHI_P7;
  p = tesra_fma(p, t, TESRA_PHI_P6);
  p = tesra_fma(p, t, TESRA_PHI_P5);
  p = tesra_fma(p, t, TESRA_PHI_P4);
  p = tesra_fma(p, t, TESRA_PHI_P3);
  p = tesra_fma(p, t, TESRA_PHI_P2);
  p = tesra_fma(p, t, TESRA_PHI_P1);
  p = tesra_fma(p, t, TESRA_PHI_P0);
  const float tail = (p * t) * *e;
  return x < 0.0f ? tail : 1.0f - tail;
}

TESRA_HD float tesra_gelu(float x) {
  float e;
  return tesra_at_least(x, -TESRA_GELU_FLAT) * tesra_phi(x, &e);
}
TESRA_HD float tesra_gelu_derivative(float x) {
  float e;
  const float phi = tesra_phi(x, &e);
  return tesra_fma(tesra_clamp(x, TESRA_GELU_FLAT) * TESRA_NORMAL_PEAK, e, phi);
}

TESRA_HD float tesra_sigmoid(float z) {
  return 1.0f / (1.0f + tesra_exp(tesra_at_most(-z, TESRA_SIGMOID_FLAT)));
}

TESRA_HD float tesra_gelu_tanh(float x) {
  const float c = tesra_at_least(x, -TESRA_GELU_FLAT);
  const float w = tesra_fma(c * c, TESRA_GELU_K1, TESRA_GELU_K0);
  return c * tesra_sigmoid(c * w);
}
TESRA_HD float tesra_gelu_tanh_derivative(float x) {
  const float c = tesra_clamp(x, TESRA_GELU_FLAT), c2 = c * c;
  const float s = tesra_sigmoid(c * tesra_fma(c2, TESRA_GELU_K1, TESRA_GELU_K0));
  const float slope = c * tesra_fma(c2, TESRA_GELU_3K1, TESRA_GELU_K0);
  return tesra_fma(s * (1.0f - s), slope, s);
}

// From the normal integral: 4e-7 absolute, which near 0 is not relative.
#define TESRA_SQRT_2 1.41421356f
TESRA_HD float tesra_erf(float x) {
  float e;
  return tesra_fma(2.0f, tesra_phi(x * TESRA_SQRT_2, &e), -1.0f);
}

// -inf at either 0, NaN below, denormals scaled by 2^24.
#define TESRA_LOG_2_24 16.6355324f
TESRA_HD float tesra_natural_log(float x) {
  if (x < 0.0f) return tesra_bits_float(0x7fc00000u);
  if (x == 0.0f) return tesra_bits_float(0xff800000u);
  if (x < TESRA_FLOAT_TINY) return tesra_log(x * 16777216.0f) - TESRA_LOG_2_24;
  return tesra_log(x);
}

TESRA_HD float tesra_silu(float x) {
  const float c = tesra_at_least(x, -TESRA_SILU_FLAT);
  return c * tesra_sigmoid(c);
}
TESRA_HD float tesra_silu_derivative(float x) {
  const float c = tesra_clamp(x, TESRA_SILU_FLAT), s = tesra_sigmoid(c);
  return tesra_fma(s * (1.0f - s), c, s);
}
