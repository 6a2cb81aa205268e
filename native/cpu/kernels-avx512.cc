// Owns: the AVX-512 kernels (F, BW, DQ, VL), and the VNNI form of the int8 product. Everything
// from the standard library is included before the target pragma, as in kernels-avx2.cc.
#include <cmath>
#include <cstring>

#include "kernels.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

#pragma GCC push_options
#pragma GCC target("avx,avx2,fma,bmi2,avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")
namespace tesra {
namespace {

constexpr int W = 16;
constexpr int U = 16;
using vec = __m512;
using ivec = __m512i;
using uvec = __m512i;
constexpr int kTileVectors = 4;  // of attention's products: 6 x 4 sums, 4 operands

inline __mmask16 mask_of(int n) { return static_cast<__mmask16>((1u << n) - 1u); }
inline vec vzero() { return _mm512_setzero_ps(); }
inline vec vset(float x) { return _mm512_set1_ps(x); }
inline vec vload(const float* p) { return _mm512_loadu_ps(p); }
inline vec vload_n(const float* p, int n) { return _mm512_maskz_loadu_ps(mask_of(n), p); }
inline void vstore(float* p, vec x) { _mm512_storeu_ps(p, x); }
inline void vstore_n(float* p, vec x, int n) { _mm512_mask_storeu_ps(p, mask_of(n), x); }
inline vec vload_u8(const uint8_t* p) {
  return _mm512_cvtepi32_ps(
      _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}
inline vec vadd(vec a, vec b) { return _mm512_add_ps(a, b); }
inline vec vsub(vec a, vec b) { return _mm512_sub_ps(a, b); }
inline vec vmul(vec a, vec b) { return _mm512_mul_ps(a, b); }
inline vec vdiv(vec a, vec b) { return _mm512_div_ps(a, b); }
inline vec vsqrt(vec a) { return _mm512_sqrt_ps(a); }
inline vec vfma(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
// maxps gives its second operand for NaN and for two zeros: exactly tesra_relu.
inline vec vrelu(vec x) { return _mm512_max_ps(vzero(), x); }
inline vec vkeep_positive(vec y, vec x) {
  return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(y, vzero(), _CMP_GT_OQ), x);
}
inline vec vflush(vec x) {
  const __mmask16 keep =
      _mm512_cmp_ps_mask(_mm512_abs_ps(x), vset(TESRA_FLOAT_TINY), _CMP_NLT_UQ);
  return _mm512_maskz_mov_ps(keep, x);
}
inline vec vexp(vec x) {
  x = _mm512_min_ps(vset(89.0f), x);  // keeps NaN; infinite already at 88.7228394, the first above HI
  const vec n = vsub(vfma(x, vset(TESRA_LOG2E), vset(TESRA_ROUND_MAGIC)), vset(TESRA_ROUND_MAGIC));
  vec r = vfma(n, vset(-TESRA_LN2_HI), x);
  r = vfma(n, vset(-TESRA_LN2_LO), r);
  vec p = vset(TESRA_EXP_C6);
  p = vfma(p, r, vset(TESRA_EXP_C5));
  p = vfma(p, r, vset(TESRA_EXP_C4));
  p = vfma(p, r, vset(TESRA_EXP_C3));
  p = vfma(p, r, vset(TESRA_EXP_C2));
  p = vfma(p, r, vset(1.0f));
  p = vfma(p, r, vset(1.0f));
  // p * 2^n with one rounding, as (p * s1) * s2 has.
  return _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(x, vset(TESRA_EXP_LO), _CMP_NLT_UQ), p, n);
}
// 1 / x for 2^-120 < x < 2^120, correctly rounded: two Newton steps from 14 bits, which miss for an
// all-ones mantissa alone (checked for every mantissa). A third of vdivps' time.
inline vec vreciprocal(vec x) {
  const vec one = vset(1.0f);
  vec y = _mm512_rcp14_ps(x);
  y = vfma(y, _mm512_fnmadd_ps(x, y, one), y);
  y = vfma(y, _mm512_fnmadd_ps(x, y, one), y);
  const __m512i mantissa = _mm512_slli_epi32(_mm512_castps_si512(x), 9), bits = _mm512_castps_si512(y);
  const __mmask16 ones = _mm512_cmpeq_epi32_mask(mantissa, _mm512_set1_epi32(-512));
  return _mm512_castsi512_ps(_mm512_mask_add_epi32(bits, ones, bits, _mm512_set1_epi32(1)));
}
// Folds 8, 4, 2, 1 as TESRA_LANES has it.
inline float vfold(const vec (&lanes)[1]) {
  const __m256 a = _mm256_add_ps(_mm512_castps512_ps256(lanes[0]), _mm512_extractf32x8_ps(lanes[0], 1));
  __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  b = _mm_add_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}
inline vec vfirst(vec x, int n) { return _mm512_maskz_mov_ps(mask_of(n), x); }
// The first n lanes of x, the others of y.
inline vec vkeep_first(vec x, vec y, int n) { return _mm512_mask_mov_ps(y, mask_of(n), x); }
inline vec vmax(vec x, vec best) { return _mm512_max_ps(x, best); }  // best where x is NaN
inline vec vmin(vec a, vec x) { return _mm512_min_ps(a, x); }        // x where it is NaN
inline float vmaximum(vec x) { return _mm512_reduce_max_ps(x); }
inline vec vabs(vec x) { return _mm512_abs_ps(x); }
inline vec vnegate(vec x) { return _mm512_xor_ps(vset(-0.0f), x); }
inline vec vwhere_negative(vec x, vec a, vec b) {
  return _mm512_mask_mov_ps(b, _mm512_cmp_ps_mask(x, vzero(), _CMP_LT_OQ), a);
}
inline vec vclamp(vec x, float bound) {  // minps and maxps give their second operand for NaN
  return _mm512_max_ps(vset(-bound), _mm512_min_ps(vset(bound), x));
}
inline ivec iset(int32_t x) { return _mm512_set1_epi32(x); }
inline ivec iadd_iota(ivec x) {
  return _mm512_add_epi32(
      x, _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
}
inline void istore_n(int32_t* p, ivec x, int n) { _mm512_mask_storeu_epi32(p, mask_of(n), x); }
inline void keep_larger(vec& best, ivec& at, vec x, ivec i) {
  const __mmask16 take = static_cast<__mmask16>(_mm512_cmp_ps_mask(x, best, _CMP_GT_OQ) |
                                                _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q));
  best = _mm512_mask_mov_ps(best, take, x);
  at = _mm512_mask_mov_epi32(at, take, i);
}
inline uvec uset(uint32_t x) { return _mm512_set1_epi32(static_cast<int>(x)); }
inline uvec uload(const uint32_t* p) { return _mm512_loadu_si512(p); }
inline void ustore(uint32_t* p, uvec x) { _mm512_storeu_si512(p, x); }
inline uvec uadd(uvec a, uvec b) { return _mm512_add_epi32(a, b); }
inline uvec uxor(uvec a, uvec b) { return _mm512_xor_si512(a, b); }
template <int N>
inline uvec urotr(uvec x) {
  return _mm512_ror_epi32(x, N);
}

inline void uload_blocks(const uint8_t* data, int64_t stride, int count, uvec (&m)[16]) {
  __m512i r[16], t[16];
#pragma GCC unroll 16
  for (int l = 0; l < 16; ++l) r[l] = _mm512_loadu_si512(data + stride * (l < count ? l : count - 1));
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
  }
  // r[4q + w]: word w of each 128-bit part, lanes 4q .. 4q+3
#pragma GCC unroll 4
  for (int q = 0; q < 4; ++q) {
    r[4 * q + 0] = _mm512_unpacklo_epi64(t[4 * q], t[4 * q + 2]);
    r[4 * q + 1] = _mm512_unpackhi_epi64(t[4 * q], t[4 * q + 2]);
    r[4 * q + 2] = _mm512_unpacklo_epi64(t[4 * q + 1], t[4 * q + 3]);
    r[4 * q + 3] = _mm512_unpackhi_epi64(t[4 * q + 1], t[4 * q + 3]);
  }
#pragma GCC unroll 4
  for (int w = 0; w < 4; ++w) {
    const __m512i a = _mm512_shuffle_i32x4(r[w], r[4 + w], 0x88);       // parts 0, 2
    const __m512i b = _mm512_shuffle_i32x4(r[w], r[4 + w], 0xDD);       // parts 1, 3
    const __m512i c = _mm512_shuffle_i32x4(r[8 + w], r[12 + w], 0x88);
    const __m512i d = _mm512_shuffle_i32x4(r[8 + w], r[12 + w], 0xDD);
    m[w] = _mm512_shuffle_i32x4(a, c, 0x88);
    m[8 + w] = _mm512_shuffle_i32x4(a, c, 0xDD);
    m[4 + w] = _mm512_shuffle_i32x4(b, d, 0x88);
    m[12 + w] = _mm512_shuffle_i32x4(b, d, 0xDD);
  }
}

#include "x86.inc"
#include "kernels.inc"
#include "transformer.inc"

Kernels build() {
  Kernels k{};
  k.name = "avx512";
  fill_common(k);
  fill_transformer(k.transformer);
  k.gemm_vectors = 3;
  k.gemm_rows = 8;
  const int rows[kMaxVectors + 1] = {0, 12, 12, 8};
  const int columns[kMaxVectors + 1] = {0, 24, 14, 8};
  for (int v = 1; v <= kMaxVectors; ++v) {
    k.row_form[v] = rows[v];
    k.column_form[v] = columns[v];
  }
  FillRows<1, 12>::fill(k);
  FillRows<2, 12>::fill(k);
  FillRows<3, 8>::fill(k);
  FillColumns<1, 24>::fill(k);
  FillColumns<2, 14>::fill(k);
  FillColumns<3, 8>::fill(k);
  k.grid_5x5 = tile<5, 5, 1>;
  k.pow_depth = 2;
  k.pow_pack_a = pow_pack_a_pairs;
  k.pow_pack_b = pow_pack_b_pairs;
  k.pow_tile = pow_tile_pairs;
  return k;
}

}  // namespace
}  // namespace tesra
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx,avx2,fma,bmi2,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")
namespace tesra {
namespace {

// vpdpbusd multiplies unsigned by signed bytes, so A travels as a + 128 and each chunk starts by
// adding -128 * (sum of B over the chunk): the running sums stay exact, as the transcript needs.
void pow_pack_a_vnni(const int8_t* a, int64_t lda, int32_t k, void* out) {
  uint32_t* to = static_cast<uint32_t*>(out);
  for (int32_t i = 0; i < k; i += 4)
    for (int r = 0; r < 8; ++r) {
      uint32_t w = 0;
      if (i + 4 <= k) std::memcpy(&w, a + r * lda + i, 4);
      else std::memcpy(&w, a + r * lda + i, static_cast<size_t>(k - i));
      *to++ = w ^ 0x80808080u;
    }
}

void pow_pack_b_vnni(const int8_t* bt, int64_t ldb, int32_t k, void* out, int32_t* correction) {
  uint32_t* to = static_cast<uint32_t*>(out);
  for (int32_t begin = 0; begin < k; begin += TESRA_CRM_CHUNK, correction += 32) {
    const int32_t end = begin + TESRA_CRM_CHUNK < k ? begin + TESRA_CRM_CHUNK : k;
    const __m512i ones = _mm512_set1_epi8(1);
    __m512i s0 = _mm512_setzero_si512(), s1 = s0;
    for (int32_t i = begin; i < end; i += 4, to += 32) {
      for (int j = 0; j < 32; ++j) {
        uint32_t w = 0;
        if (i + 4 <= k) std::memcpy(&w, bt + j * ldb + i, 4);
        else std::memcpy(&w, bt + j * ldb + i, static_cast<size_t>(k - i));
        to[j] = w;
      }
      s0 = _mm512_dpbusd_epi32(s0, ones, _mm512_loadu_si512(to));
      s1 = _mm512_dpbusd_epi32(s1, ones, _mm512_loadu_si512(to + 16));
    }
    const __m512i zero = _mm512_setzero_si512();
    _mm512_storeu_si512(correction, _mm512_sub_epi32(zero, _mm512_slli_epi32(s0, 7)));
    _mm512_storeu_si512(correction + 16, _mm512_sub_epi32(zero, _mm512_slli_epi32(s1, 7)));
  }
}

void pow_tile_vnni(const void* pa, const void* pb, const int32_t* correction, int32_t k,
                   uint32_t* x, int64_t x_stride, int32_t* c, int64_t ldc) {
  const int32_t* a = static_cast<const int32_t*>(pa);
  const int8_t* b = static_cast<const int8_t*>(pb);
  __m512i acc[8][2];
#pragma GCC unroll 8
  for (int r = 0; r < 8; ++r) acc[r][0] = acc[r][1] = _mm512_setzero_si512();
  for (int32_t begin = 0; begin < k; begin += TESRA_CRM_CHUNK, correction += 32) {
    const __m512i k0 = _mm512_loadu_si512(correction), k1 = _mm512_loadu_si512(correction + 16);
#pragma GCC unroll 8
    for (int r = 0; r < 8; ++r) {
      acc[r][0] = _mm512_add_epi32(acc[r][0], k0);
      acc[r][1] = _mm512_add_epi32(acc[r][1], k1);
    }
    const int32_t end = begin + TESRA_CRM_CHUNK < k ? begin + TESRA_CRM_CHUNK : k;
    for (int32_t i = begin; i < end; i += 4) {
      const __m512i b0 = _mm512_loadu_si512(b), b1 = _mm512_loadu_si512(b + 64);
#pragma GCC unroll 8
      for (int r = 0; r < 8; ++r) {
        const __m512i v = _mm512_set1_epi32(a[r]);
        acc[r][0] = _mm512_dpbusd_epi32(acc[r][0], v, b0);
        acc[r][1] = _mm512_dpbusd_epi32(acc[r][1], v, b1);
      }
      a += 8;
      b += 128;
    }
    if (x && end - begin == TESRA_CRM_CHUNK) {
      __m512i s = _mm512_loadu_si512(x);
#pragma GCC unroll 8
      for (int r = 0; r < 8; ++r) s = _mm512_ternarylogic_epi32(s, acc[r][0], acc[r][1], 0x96);
      _mm512_storeu_si512(x, s);
      x += x_stride;
    }
  }
  if (c)
    for (int r = 0; r < 8; ++r) {
      _mm512_storeu_si512(c + r * ldc, acc[r][0]);
      _mm512_storeu_si512(c + r * ldc + 16, acc[r][1]);
    }
}

}  // namespace

const Kernels* avx512_kernels(bool vnni) {
  static const Kernels plain = build();
  static const Kernels with_vnni = [] {
    Kernels k = build();
    k.pow_depth = 4;
    k.pow_pack_a = pow_pack_a_vnni;
    k.pow_pack_b = pow_pack_b_vnni;
    k.pow_tile = pow_tile_vnni;
    return k;
  }();
  return vnni ? &with_vnni : &plain;
}

}  // namespace tesra
#pragma GCC pop_options
#else
namespace tesra {
const Kernels* avx512_kernels(bool) { return nullptr; }
}  // namespace tesra
#endif
