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
inline void vstream(float* p, vec x) { _mm512_stream_ps(p, x); }
inline void vstream_fence() { _mm_sfence(); }
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
inline uvec umax(uvec a, uvec b) { return _mm512_max_epu32(a, b); }
inline uvec umagnitude(vec x) {
  return _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fffffff));
}
inline void vstore_i8(int8_t* p, vec x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x)));
}
template <int N>
inline uvec urotr(uvec x) {
  return _mm512_ror_epi32(x, N);
}

// m[w]: word w of each of the 16 rows r.
inline void transpose_words(__m512i (&r)[16], uvec (&m)[16]) {
  __m512i t[16];
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

inline void uload_blocks(const uint8_t* data, int64_t stride, int count, uvec (&m)[16]) {
  __m512i r[16];
#pragma GCC unroll 16
  for (int l = 0; l < 16; ++l) r[l] = _mm512_loadu_si512(data + stride * (l < count ? l : count - 1));
  transpose_words(r, m);
}

inline void ustore_blocks(const uvec (&v)[16], uint8_t* out) {
  alignas(64) uint8_t words[16 * 64];
  for (int i = 0; i < 16; ++i) _mm512_store_si512(words + 64 * i, v[i]);
  __m512i t[16];
  uload_blocks(words, 64, 16, t);  // a 16 x 16 transposition is its own inverse
  for (int l = 0; l < 16; ++l) _mm512_storeu_si512(out + 64 * l, t[l]);
}
inline uint16_t sign_mask_16(const float* p) {
  return _mm512_movepi32_mask(_mm512_castps_si512(_mm512_loadu_ps(p)));
}
inline uint64_t bytes_0x80(const uint8_t* p) {
  return _mm512_cmpeq_epi8_mask(_mm512_loadu_si512(p), _mm512_set1_epi8(-128));
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
  k.int8 = {8, 2, 2, 8, false, int8_pack_a_pairs, int8_pack_b_pairs, int8_tile_pairs, nullptr,
            nullptr};
  return k;
}

}  // namespace
}  // namespace tesra
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx,avx2,fma,bmi2,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")
namespace tesra {
namespace {

// 64 bytes of k from each of 16 rows, zero beyond `have` rows and beyond `left` bytes, transposed in
// words of 4 bytes: m[w] holds k 4w .. 4w+3 of every row.
inline void load_words(const int8_t* from, int64_t ld, int have, int64_t left, uvec (&m)[16]) {
  const __mmask64 mask = left >= 64 ? ~__mmask64{0} : (__mmask64{1} << left) - 1;
  __m512i r[16];
#pragma GCC unroll 16
  for (int l = 0; l < 16; ++l)
    r[l] = l < have ? _mm512_maskz_loadu_epi8(mask, from + l * ld) : _mm512_setzero_si512();
  transpose_words(r, m);
}

// vpdpbusd multiplies unsigned by signed bytes, so A travels as a + 128 and each chunk starts by
// adding -128 * (sum of B over the chunk): the running sums stay exact, as the transcript needs.
void int8_pack_a_vnni(const int8_t* a, int64_t lda, int rows, int32_t k, void* out) {
  int32_t* to = static_cast<int32_t*>(out);
  const __m512i offset = _mm512_set1_epi8(-128);
  for (int32_t i = 0; i < k; i += 64) {
    uvec m[16];
    load_words(a + i, lda, rows < 8 ? rows : 8, k - i, m);
    const int32_t words = (k - i + 3) / 4 < 16 ? (k - i + 3) / 4 : 16;
    for (int32_t w = 0; w < words; ++w, to += 8)
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                          _mm512_castsi512_si256(_mm512_xor_si512(m[w], offset)));
  }
}

void int8_pack_b_vnni(const int8_t* bt, int64_t ldb, int columns, int32_t k, int32_t chunk,
                      void* out, int32_t* correction) {
  int32_t* to = static_cast<int32_t*>(out);
  const __m512i ones = _mm512_set1_epi8(1), zero = _mm512_setzero_si512();
  for (int32_t begin = 0; begin < k; begin += chunk, correction += 32) {
    const int32_t end = begin + chunk < k ? begin + chunk : k;
    __m512i s0 = zero, s1 = zero;
    for (int32_t i = begin; i < end; i += 64) {
      uvec m0[16], m1[16];
      load_words(bt + i, ldb, columns, end - i, m0);
      load_words(bt + 16 * ldb + i, ldb, columns - 16, end - i, m1);
      const int32_t words = (end - i + 3) / 4 < 16 ? (end - i + 3) / 4 : 16;
      for (int32_t w = 0; w < words; ++w, to += 32) {
        s0 = _mm512_dpbusd_epi32(s0, ones, m0[w]);
        s1 = _mm512_dpbusd_epi32(s1, ones, m1[w]);
        _mm512_storeu_si512(to, m0[w]);
        _mm512_storeu_si512(to + 16, m1[w]);
      }
    }
    _mm512_storeu_si512(correction, _mm512_sub_epi32(zero, _mm512_slli_epi32(s0, 7)));
    _mm512_storeu_si512(correction + 16, _mm512_sub_epi32(zero, _mm512_slli_epi32(s1, 7)));
  }
}

void int8_tile_vnni(const Int8Tile& t) {
  const int32_t* a = static_cast<const int32_t*>(t.a);
  const int8_t* b = static_cast<const int8_t*>(t.b);
  const int32_t* correction = t.correction;
  uint32_t* x = t.x;
  __m512i acc[8][2];
#pragma GCC unroll 8
  for (int r = 0; r < 8; ++r) acc[r][0] = acc[r][1] = _mm512_setzero_si512();
  for (int32_t begin = 0; begin < t.k; begin += t.chunk, correction += 32) {
    const __m512i k0 = _mm512_loadu_si512(correction), k1 = _mm512_loadu_si512(correction + 16);
#pragma GCC unroll 8
    for (int r = 0; r < 8; ++r) {
      acc[r][0] = _mm512_add_epi32(acc[r][0], k0);
      acc[r][1] = _mm512_add_epi32(acc[r][1], k1);
    }
    const int32_t end = begin + t.chunk < t.k ? begin + t.chunk : t.k;
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
    if (x) {
      __m512i s = _mm512_loadu_si512(x);
#pragma GCC unroll 8
      for (int r = 0; r < 8; ++r) s = _mm512_ternarylogic_epi32(s, acc[r][0], acc[r][1], 0x96);
      _mm512_storeu_si512(x, s);
      x += t.x_stride;
    }
  }
  if (t.c)
#pragma GCC unroll 8
    for (int r = 0; r < 8; ++r) {
      _mm512_storeu_si512(t.c + r * t.ldc, acc[r][0]);
      _mm512_storeu_si512(t.c + r * t.ldc + 16, acc[r][1]);
    }
}

// ---------------------------------------------------------------- AMX

// A group is 32 rows, two tiles high: [k / 64][2][16 rows][64 bytes] when packed.
void int8_pack_a_amx(const int8_t* a, int64_t lda, int rows, int32_t k, void* out) {
  int8_t* to = static_cast<int8_t*>(out);
  for (int32_t i = 0; i < k; i += 64) {
    const __mmask64 mask = k - i >= 64 ? ~__mmask64{0} : (__mmask64{1} << (k - i)) - 1;
    for (int r = 0; r < 32; ++r, to += 64)
      _mm512_storeu_si512(to, r < rows ? _mm512_maskz_loadu_epi8(mask, a + r * lda + i)
                                       : _mm512_setzero_si512());
  }
}

// A panel is 32 columns, two tiles wide: [k / 64][2][16 words of 4 k][16 columns].
void int8_pack_b_amx(const int8_t* bt, int64_t ldb, int columns, int32_t k, int32_t, void* out,
                     int32_t*) {
  int8_t* to = static_cast<int8_t*>(out);
  for (int32_t i = 0; i < k; i += 64)
    for (int half = 0; half < 32; half += 16) {
      uvec m[16];
      load_words(bt + half * ldb + i, ldb, columns - half, k - i, m);
#pragma GCC unroll 16
      for (int w = 0; w < 16; ++w, to += 64) _mm512_storeu_si512(to, m[w]);
    }
}

}  // namespace
}  // namespace tesra
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx512f,avx512vl,amx-tile,amx-int8")
namespace tesra {
namespace {

// gcc's tile intrinsics do not say which memory they touch.
inline void memory_barrier() { asm volatile("" : : : "memory"); }

void amx_begin() {
  // Palette 1; 64 bytes a row (16-bit words from byte 16) and 16 rows (bytes from 48) of 8 tiles.
  alignas(64) uint8_t config[64] = {1};
  for (int tile = 0; tile < 8; ++tile) {
    config[16 + 2 * tile] = 64;
    config[48 + tile] = 16;
  }
  asm volatile("" : : "r"(config) : "memory");
  _tile_loadconfig(config);
}
void amx_end() {
  _tile_release();
  _mm_sfence();  // streamed rows of C are visible to whoever is told of the end
}

// Tiles 0..3 are sums [row half][column half], 4 and 5 rows of A, 6 and 7 columns of B.
inline void amx_store(int32_t* c, int64_t row) {
  memory_barrier();
  _tile_stored(0, c, row);
  _tile_stored(1, c + 16, row);
  _tile_stored(2, c + 4 * row, row);
  _tile_stored(3, c + 4 * row + 16, row);
  memory_barrier();
}

// B streams by from L2, whose latency four tile loads a step would wait for: its lines are fetched
// this many bytes ahead, four steps of 64 k, across to the next panel.
constexpr int64_t kAmxAhead = 4 * 2048;

void int8_tile_amx(const Int8Tile& t) {
  const int8_t* a = static_cast<const int8_t*>(t.a);
  const int8_t* b = static_cast<const int8_t*>(t.b);
  const int64_t row = t.a_row, a_step = t.a_step;
  memory_barrier();
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  alignas(64) int32_t sums[32][32];
  uint32_t* x = t.x;
  const int32_t steps = (t.k + 63) / 64, steps_a_chunk = t.chunk / 64;
  for (int32_t step = 0; step < steps; ++step, a += a_step, b += 2048) {
    _tile_loadd(6, b, 64);
    _tile_loadd(4, a, row);
#pragma GCC unroll 16
    for (int r = 0; r < 16; ++r) _mm_prefetch(b + kAmxAhead + r * 64, _MM_HINT_T0);
    _tile_loadd(7, b + 1024, 64);
    _tile_dpbssd(0, 4, 6);
    _tile_loadd(5, a + 16 * row, row);
    _tile_dpbssd(1, 4, 7);
#pragma GCC unroll 16
    for (int r = 16; r < 32; ++r) _mm_prefetch(b + kAmxAhead + r * 64, _MM_HINT_T0);
    _tile_dpbssd(2, 5, 6);
    _tile_dpbssd(3, 5, 7);
    if (x && (step + 1) % steps_a_chunk == 0) {
      amx_store(sums[0], sizeof sums[0]);
      for (int g = 0; g < 8; ++g) {
        __m512i s = _mm512_loadu_si512(x + g * 16);
#pragma GCC unroll 4
        for (int r = g; r < 32; r += 8)
          s = _mm512_ternarylogic_epi32(s, _mm512_load_si512(sums[r]),
                                        _mm512_load_si512(sums[r] + 16), 0x96);
        _mm512_storeu_si512(x + g * 16, s);
      }
      x += t.x_stride;
    }
  }
  if (!t.c) return;
  if (t.ldc == kInt8Columns) return amx_store(t.c, t.ldc * 4);
  // Rows of C that lie a power of two apart share one set of L1, and a tile's store would evict its
  // own lines (450 ns instead of 30): whole lines go past the caches.
  amx_store(sums[0], sizeof sums[0]);
  const bool lines = reinterpret_cast<uintptr_t>(t.c) % 64 == 0 && t.ldc % 16 == 0;
  for (int r = 0; r < 32; ++r) {
    const __m512i left = _mm512_load_si512(sums[r]), right = _mm512_load_si512(sums[r] + 16);
    int32_t* to = t.c + r * t.ldc;
    if (lines) {
      _mm512_stream_si512(reinterpret_cast<__m512i*>(to), left);
      _mm512_stream_si512(reinterpret_cast<__m512i*>(to + 16), right);
    } else {
      _mm512_storeu_si512(to, left);
      _mm512_storeu_si512(to + 16, right);
    }
  }
}

}  // namespace

const Kernels* avx512_kernels(bool vnni) {
  static const Kernels plain = build();
  static const Kernels with_vnni = [] {
    Kernels k = build();
    k.int8 = {8, 4, 1, 8, false, int8_pack_a_vnni, int8_pack_b_vnni, int8_tile_vnni, nullptr,
              nullptr};
    return k;
  }();
  return vnni ? &with_vnni : &plain;
}

const Kernels* amx_kernels() {
  static const Kernels amx = [] {
    Kernels k = build();
    k.name = "amx";
    k.int8 = {32, 64, 1, 1, true, int8_pack_a_amx, int8_pack_b_amx, int8_tile_amx, amx_begin,
              amx_end};
    return k;
  }();
  return &amx;
}

}  // namespace tesra
#pragma GCC pop_options
#else
namespace tesra {
const Kernels* avx512_kernels(bool) { return nullptr; }
const Kernels* amx_kernels() { return nullptr; }
}  // namespace tesra
#endif
