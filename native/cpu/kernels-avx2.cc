// Owns: the AVX2 + FMA kernels. Everything from the standard library is included before the target
// pragma, so that no shared inline function is compiled for a CPU that may lack AVX2.
#include <cmath>
#include <cstring>

#include "kernels.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

#pragma GCC push_options
#pragma GCC target("avx,avx2,fma,bmi2")
namespace tesra {
namespace {

constexpr int W = 8;
constexpr int U = 8;
using vec = __m256;
using ivec = __m256i;
using uvec = __m256i;
constexpr int kTileVectors = 2;  // of attention's products: 6 x 2 sums, 2 operands

inline __m256i mask_of(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
inline vec vzero() { return _mm256_setzero_ps(); }
inline vec vset(float x) { return _mm256_set1_ps(x); }
inline vec vload(const float* p) { return _mm256_loadu_ps(p); }
inline vec vload_n(const float* p, int n) {
  return n == W ? _mm256_loadu_ps(p) : _mm256_maskload_ps(p, mask_of(n));
}
inline void vstore(float* p, vec x) { _mm256_storeu_ps(p, x); }
inline void vstream(float* p, vec x) { _mm256_stream_ps(p, x); }
inline void vstream_fence() { _mm_sfence(); }
inline void vstore_n(float* p, vec x, int n) {
  if (n == W) _mm256_storeu_ps(p, x);
  else _mm256_maskstore_ps(p, mask_of(n), x);
}
inline vec vload_u8(const uint8_t* p) {
  return _mm256_cvtepi32_ps(
      _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}
inline vec vadd(vec a, vec b) { return _mm256_add_ps(a, b); }
inline vec vsub(vec a, vec b) { return _mm256_sub_ps(a, b); }
inline vec vmul(vec a, vec b) { return _mm256_mul_ps(a, b); }
inline vec vdiv(vec a, vec b) { return _mm256_div_ps(a, b); }
inline vec vsqrt(vec a) { return _mm256_sqrt_ps(a); }
inline vec vfma(vec a, vec b, vec c) { return _mm256_fmadd_ps(a, b, c); }
// maxps gives its second operand for NaN and for two zeros: exactly tesra_relu.
inline vec vrelu(vec x) { return _mm256_max_ps(vzero(), x); }
inline vec vkeep_positive(vec y, vec x) {
  return _mm256_and_ps(_mm256_cmp_ps(y, vzero(), _CMP_GT_OQ), x);
}
inline vec vflush(vec x) {
  const vec magnitude = _mm256_andnot_ps(vset(-0.0f), x);
  return _mm256_andnot_ps(_mm256_cmp_ps(magnitude, vset(TESRA_FLOAT_TINY), _CMP_LT_OQ), x);
}
inline vec vexp(vec x) {
  const vec z = vfma(x, vset(TESRA_LOG2E), vset(TESRA_ROUND_MAGIC));
  const vec n = vsub(z, vset(TESRA_ROUND_MAGIC));
  vec r = vfma(n, vset(-TESRA_LN2_HI), x);
  r = vfma(n, vset(-TESRA_LN2_LO), r);
  vec p = vset(TESRA_EXP_C6);
  p = vfma(p, r, vset(TESRA_EXP_C5));
  p = vfma(p, r, vset(TESRA_EXP_C4));
  p = vfma(p, r, vset(TESRA_EXP_C3));
  p = vfma(p, r, vset(TESRA_EXP_C2));
  p = vfma(p, r, vset(1.0f));
  p = vfma(p, r, vset(1.0f));
  const __m256i i = _mm256_cvttps_epi32(n);
  const __m256i half = _mm256_srai_epi32(i, 1);
  const __m256i bias = _mm256_set1_epi32(127);
  const __m256i s1 = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
  const __m256i s2 = _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(i, half), bias), 23);
  p = vmul(vmul(p, _mm256_castsi256_ps(s1)), _mm256_castsi256_ps(s2));
  p = _mm256_andnot_ps(_mm256_cmp_ps(x, vset(TESRA_EXP_LO), _CMP_LT_OQ), p);
  p = _mm256_blendv_ps(p, _mm256_castsi256_ps(_mm256_set1_epi32(0x7f800000)),
                       _mm256_cmp_ps(x, vset(TESRA_EXP_HI), _CMP_GT_OQ));
  return _mm256_blendv_ps(p, x, _mm256_cmp_ps(x, x, _CMP_UNORD_Q));
}
inline vec vreciprocal(vec x) { return _mm256_div_ps(vset(1.0f), x); }
// Folds 8, 4, 2, 1 as TESRA_LANES has it.
inline float vfold(const vec (&lanes)[2]) {
  const __m256 a = _mm256_add_ps(lanes[0], lanes[1]);
  __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  b = _mm_add_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}
inline vec vfirst(vec x, int n) {
  return n == W ? x : _mm256_and_ps(_mm256_castsi256_ps(mask_of(n)), x);
}
// The first n lanes of x, the others of y.
inline vec vkeep_first(vec x, vec y, int n) {
  return _mm256_blendv_ps(y, x, _mm256_castsi256_ps(mask_of(n)));
}
inline vec vmax(vec x, vec best) { return _mm256_max_ps(x, best); }  // best where x is NaN
inline vec vmin(vec a, vec x) { return _mm256_min_ps(a, x); }        // x where it is NaN
inline float vmaximum(vec x) {
  __m128 m = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  m = _mm_max_ps(m, _mm_movehl_ps(m, m));
  return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}
inline vec vabs(vec x) { return _mm256_andnot_ps(vset(-0.0f), x); }
inline vec vnegate(vec x) { return _mm256_xor_ps(vset(-0.0f), x); }
inline vec vwhere_negative(vec x, vec a, vec b) {
  return _mm256_blendv_ps(b, a, _mm256_cmp_ps(x, vzero(), _CMP_LT_OQ));
}
inline vec vclamp(vec x, float bound) {  // minps and maxps give their second operand for NaN
  return _mm256_max_ps(vset(-bound), _mm256_min_ps(vset(bound), x));
}
inline ivec iset(int32_t x) { return _mm256_set1_epi32(x); }
inline ivec iadd_iota(ivec x) {
  return _mm256_add_epi32(x, _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
inline void istore_n(int32_t* p, ivec x, int n) {
  if (n == W) _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x);
  else _mm256_maskstore_epi32(p, mask_of(n), x);
}
inline void keep_larger(vec& best, ivec& at, vec x, ivec i) {
  const vec take =
      _mm256_or_ps(_mm256_cmp_ps(x, best, _CMP_GT_OQ), _mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  best = _mm256_blendv_ps(best, x, take);
  at = _mm256_castps_si256(_mm256_blendv_ps(_mm256_castsi256_ps(at), _mm256_castsi256_ps(i), take));
}
inline uvec uset(uint32_t x) { return _mm256_set1_epi32(static_cast<int>(x)); }
inline uvec uload(const uint32_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
inline void ustore(uint32_t* p, uvec x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x);
}
inline uvec uadd(uvec a, uvec b) { return _mm256_add_epi32(a, b); }
inline uvec uxor(uvec a, uvec b) { return _mm256_xor_si256(a, b); }
inline uvec umax(uvec a, uvec b) { return _mm256_max_epu32(a, b); }
inline uvec umagnitude(vec x) {
  return _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x7fffffff));
}
inline void vstore_i8(int8_t* p, vec x) {
  const __m256i i = _mm256_cvtps_epi32(x);
  const __m128i w = _mm_packs_epi32(_mm256_castsi256_si128(i), _mm256_extracti128_si256(i, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(w, w));
}
template <int N>
inline uvec urotr(uvec x) {
  if (N == 16)
    return _mm256_shuffle_epi8(
        x, _mm256_setr_epi8(2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13, 2, 3, 0, 1, 6, 7,
                            4, 5, 10, 11, 8, 9, 14, 15, 12, 13));
  if (N == 8)
    return _mm256_shuffle_epi8(
        x, _mm256_setr_epi8(1, 2, 3, 0, 5, 6, 7, 4, 9, 10, 11, 8, 13, 14, 15, 12, 1, 2, 3, 0, 5, 6,
                            7, 4, 9, 10, 11, 8, 13, 14, 15, 12));
  return _mm256_or_si256(_mm256_srli_epi32(x, N), _mm256_slli_epi32(x, 32 - N));
}

#include "x86.inc"

inline void uload_blocks(const uint8_t* data, int64_t stride, int count, uvec (&m)[16]) {
  const uint8_t* from[8];
  for (int l = 0; l < 8; ++l) from[l] = data + stride * (l < count ? l : count - 1);
  __m256i t[8];
  for (int half = 0; half < 2; ++half) {
    transpose_words_8x8(from, half * 32, t);
    for (int i = 0; i < 8; ++i) m[half * 8 + i] = t[i];
  }
}

inline void ustore_blocks(const uvec (&v)[16], uint8_t* out) {
  alignas(32) uint8_t words[16 * 32];
  for (int i = 0; i < 16; ++i) ustore(reinterpret_cast<uint32_t*>(words + 32 * i), v[i]);
  for (int half = 0; half < 2; ++half) {
    const uint8_t* from[8];
    for (int i = 0; i < 8; ++i) from[i] = words + 32 * (8 * half + i);
    __m256i t[8];
    transpose_words_8x8(from, 0, t);
    for (int l = 0; l < 8; ++l) ustore(reinterpret_cast<uint32_t*>(out + 64 * l + 32 * half), t[l]);
  }
}
inline uint16_t sign_mask_16(const float* p) {
  return static_cast<uint16_t>(_mm256_movemask_ps(_mm256_loadu_ps(p)) |
                               _mm256_movemask_ps(_mm256_loadu_ps(p + 8)) << 8);
}
inline uint64_t bytes_0x80(const uint8_t* p) {
  const __m256i skipped = _mm256_set1_epi8(-128);
  auto half = [&](const uint8_t* at) {
    return static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_cmpeq_epi8(
        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)), skipped)));
  };
  return half(p) | static_cast<uint64_t>(half(p + 32)) << 32;
}

#include "kernels.inc"
#include "transformer.inc"

Kernels build() {
  Kernels k{};
  k.name = "avx2";
  fill_common(k);
  fill_transformer(k.transformer);
  k.gemm_vectors = 2;
  k.gemm_rows = 6;
  const int most[kMaxVectors + 1] = {0, 12, 6, 4};
  for (int v = 1; v <= kMaxVectors; ++v) k.row_form[v] = k.column_form[v] = most[v];
  FillRows<1, 12>::fill(k);
  FillRows<2, 6>::fill(k);
  FillRows<3, 4>::fill(k);
  FillColumns<1, 12>::fill(k);
  FillColumns<2, 6>::fill(k);
  FillColumns<3, 4>::fill(k);
  k.int8 = {8, 2, 2, 8, false, int8_pack_a_pairs, int8_pack_b_pairs, int8_tile_pairs, nullptr,
            nullptr};
  return k;
}

}  // namespace

const Kernels* avx2_kernels() {
  static const Kernels k = build();
  return &k;
}

}  // namespace tesra
#pragma GCC pop_options
#else
namespace tesra {
const Kernels* avx2_kernels() { return nullptr; }
}  // namespace tesra
#endif
