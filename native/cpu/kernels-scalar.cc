// Owns: the portable reference kernels: one float at a time, std::fma semantics.
#include <cmath>
#include <cstring>

#include "kernels.h"

namespace tesra {
namespace {

constexpr int W = 1;
constexpr int U = 1;
using vec = float;
using ivec = int32_t;
using uvec = uint32_t;
constexpr int kTileVectors = 2;  // of attention's products: 6 x 2 sums

inline vec vzero() { return 0.0f; }
inline vec vset(float x) { return x; }
inline vec vload(const float* p) { return *p; }
inline vec vload_n(const float* p, int n) { return n > 0 ? *p : 0.0f; }
inline void vstore(float* p, vec x) { *p = x; }
inline void vstream(float* p, vec x) { *p = x; }
inline void vstream_fence() {}
inline void vstore_n(float* p, vec x, int) { *p = x; }
inline vec vload_u8(const uint8_t* p) { return static_cast<float>(*p); }
inline vec vadd(vec a, vec b) { return a + b; }
inline vec vsub(vec a, vec b) { return a - b; }
inline vec vmul(vec a, vec b) { return a * b; }
inline vec vdiv(vec a, vec b) { return a / b; }
inline vec vsqrt(vec a) { return std::sqrt(a); }
inline vec vfma(vec a, vec b, vec c) { return std::fma(a, b, c); }
inline vec vrelu(vec x) { return tesra_relu(x); }
inline vec vkeep_positive(vec y, vec x) { return y > 0.0f ? x : 0.0f; }
inline vec vflush(vec x) { return std::fabs(x) < TESRA_FLOAT_TINY ? 0.0f : x; }
inline vec vexp(vec x) { return tesra_exp(x); }
inline vec vreciprocal(vec x) { return 1.0f / x; }
// Folds 8, 4, 2, 1 as TESRA_LANES has it.
inline float vfold(const vec (&lanes)[TESRA_LANES]) {
  float s[TESRA_LANES];
  std::memcpy(s, lanes, sizeof s);
  for (int step = TESRA_LANES / 2; step > 0; step /= 2)
    for (int l = 0; l < step; ++l) s[l] = s[l] + s[l + step];
  return s[0];
}
inline vec vfirst(vec x, int) { return x; }
inline vec vkeep_first(vec x, vec, int) { return x; }
inline vec vmax(vec x, vec best) { return x > best ? x : best; }
inline vec vmin(vec a, vec x) { return a < x ? a : x; }
inline float vmaximum(vec x) { return x; }
inline vec vabs(vec x) { return std::fabs(x); }
inline vec vnegate(vec x) { return -x; }
inline vec vwhere_negative(vec x, vec a, vec b) { return x < 0.0f ? a : b; }
inline vec vclamp(vec x, float bound) { return tesra_clamp(x, bound); }
inline ivec iset(int32_t x) { return x; }
inline ivec iadd_iota(ivec x) { return x; }
inline void istore_n(int32_t* p, ivec x, int) { *p = x; }
inline void keep_larger(vec& best, ivec& at, vec x, ivec i) {
  if (x > best || x != x) {
    best = x;
    at = i;
  }
}
inline uvec uset(uint32_t x) { return x; }
inline uvec uload(const uint32_t* p) { return *p; }
inline void ustore(uint32_t* p, uvec x) { *p = x; }
inline uvec uadd(uvec a, uvec b) { return a + b; }
inline uvec uxor(uvec a, uvec b) { return a ^ b; }
inline uvec umax(uvec a, uvec b) { return a > b ? a : b; }
inline uvec umagnitude(vec x) { return tesra_float_bits(x) & 0x7fffffffu; }
inline void vstore_i8(int8_t* p, vec x) { *p = static_cast<int8_t>(x); }
template <int N>
inline uvec urotr(uvec x) {
  return (x >> N) | (x << (32 - N));
}
inline void uload_blocks(const uint8_t* data, int64_t, int, uvec (&m)[16]) {
  std::memcpy(m, data, 64);
}

inline void ustore_blocks(const uvec (&v)[16], uint8_t* out) { std::memcpy(out, v, 64); }
inline uint16_t sign_mask_16(const float* p) {
  uint32_t mask = 0;
  for (int i = 0; i < 16; ++i) mask |= (tesra_float_bits(p[i]) >> 31) << i;
  return static_cast<uint16_t>(mask);
}
inline uint64_t bytes_0x80(const uint8_t* p) {
  uint64_t mask = 0;
  for (int i = 0; i < 64; ++i) mask |= static_cast<uint64_t>(p[i] == 0x80) << i;
  return mask;
}

void pack_transposed(const float* b, int64_t ldb, int depth, int columns, int width, float* out) {
  for (int k = 0; k < depth; ++k)
    for (int j = 0; j < width; ++j) out[k * width + j] = j < columns ? b[j * ldb + k] : 0.0f;
}

void int8_pack_a(const int8_t* a, int64_t lda, int rows, int32_t k, void* out) {
  int8_t* to = static_cast<int8_t*>(out);
  for (int32_t i = 0; i < k; ++i)
    for (int r = 0; r < 8; ++r) to[i * 8 + r] = r < rows ? a[r * lda + i] : int8_t{0};
}

void int8_pack_b(const int8_t* bt, int64_t ldb, int columns, int32_t k, int32_t, void* out,
                 int32_t*) {
  int8_t* to = static_cast<int8_t*>(out);
  for (int32_t i = 0; i < k; ++i)
    for (int j = 0; j < 32; ++j) to[i * 32 + j] = j < columns ? bt[j * ldb + i] : int8_t{0};
}

void int8_tile(const Int8Tile& t) {
  const int8_t* a = static_cast<const int8_t*>(t.a);
  const int8_t* b = static_cast<const int8_t*>(t.b);
  int32_t acc[8][32] = {};
  for (int32_t i = 0; i < t.k; ++i) {
    for (int r = 0; r < 8; ++r)
      for (int j = 0; j < 32; ++j) acc[r][j] += static_cast<int32_t>(a[i * 8 + r]) * b[i * 32 + j];
    if (t.x && (i + 1) % t.chunk == 0) {
      uint32_t* to = t.x + (i / t.chunk) * t.x_stride;
      for (int r = 0; r < 8; ++r)
        for (int j = 0; j < 32; ++j) to[j % 16] ^= static_cast<uint32_t>(acc[r][j]);
    }
  }
  if (t.c)
    for (int r = 0; r < 8; ++r) std::memcpy(t.c + r * t.ldc, acc[r], sizeof acc[r]);
}

#include "kernels.inc"
#include "transformer.inc"

Kernels build() {
  Kernels k{};
  k.name = "scalar";
  fill_common(k);
  fill_transformer(k.transformer);
  k.gemm_vectors = 2;
  k.gemm_rows = 4;
  for (int v = 1; v <= kMaxVectors; ++v) k.row_form[v] = k.column_form[v] = 4;
  FillRows<1, 4>::fill(k);
  FillRows<2, 4>::fill(k);
  FillRows<3, 4>::fill(k);
  FillColumns<1, 4>::fill(k);
  FillColumns<2, 4>::fill(k);
  FillColumns<3, 4>::fill(k);
  k.int8 = {8, 1, 1, 8, false, int8_pack_a, int8_pack_b, int8_tile, nullptr, nullptr};
    return k;
}

}  // namespace

const Kernels* scalar_kernels() {
  static const Kernels k = build();
  return &k;
}

}  // namespace tesra
