// Owns: CN2's scratchpad walk with AES-NI, one hash or two interleaved in a thread, and the wide
// fill and fold with VAES. Standard headers come before the target pragma, as in ../kernels-avx2.cc.
//
// A step is a chain of two loads from a scratchpad as large as a core's L2. Two hashes in turn hide
// each other's wait, and need twice the cache: which is faster is up to the machine's L3 at the
// moment (device.cc measures it as it goes).
#include <cstring>

#include "aes.h"
#include "cn2.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

#pragma GCC push_options
#pragma GCC target("avx,avx2,bmi2,aes")
namespace tesra {
namespace {

inline __m128i load(const uint8_t* p) { return _mm_load_si128(reinterpret_cast<const __m128i*>(p)); }
inline void store(uint8_t* p, __m128i x) { _mm_store_si128(reinterpret_cast<__m128i*>(p), x); }
inline uint64_t low(__m128i x) { return static_cast<uint64_t>(_mm_cvtsi128_si64(x)); }
inline __m128i pair(uint64_t lo, uint64_t hi) {
  return _mm_set_epi64x(static_cast<long long>(hi), static_cast<long long>(lo));
}

// ---------------------------------------------------------------- the walk

// Loop-carried values of one hash; `al` is a's low word, kept apart because it is the next address.
struct Walk {
  uint8_t* pad;
  __m128i a, b0, b1, c;
  uint64_t al, cl, quotient, root;
};

inline void begin(Walk& w, const uint64_t* s, uint8_t* pad) {
  w.pad = pad;
  w.a = pair(s[0] ^ s[4], s[1] ^ s[5]);
  w.b0 = pair(s[2] ^ s[6], s[3] ^ s[7]);
  w.b1 = pair(s[8] ^ s[10], s[9] ^ s[11]);
  w.al = low(w.a);
  w.quotient = s[12];
  w.root = s[13];
}

inline uint64_t integer_root(uint64_t n) {
  const __m128i bits = _mm_cvtsi64_si128(static_cast<long long>(tesra_cn2_radicand(n)));
  const __m128d x = _mm_castsi128_pd(bits);
  return tesra_cn2_root(n, low(_mm_castpd_si128(_mm_sqrt_sd(x, x))));
}

// First half of a step: the encrypted load, up to where the address of the second one is known.
inline void encrypt_half(Walk& w) {
  uint8_t* p = w.pad + (w.al & TESRA_CN2_MASK);
  const uintptr_t at = reinterpret_cast<uintptr_t>(p);
  uint8_t* p1 = reinterpret_cast<uint8_t*>(at ^ 16);
  uint8_t* p2 = reinterpret_cast<uint8_t*>(at ^ 32);
  uint8_t* p3 = reinterpret_cast<uint8_t*>(at ^ 48);
  w.c = _mm_aesenc_si128(load(p), w.a);
  const __m128i x1 = load(p1), x2 = load(p2), x3 = load(p3);
  store(p1, _mm_add_epi64(x3, w.b1));
  store(p2, _mm_add_epi64(x1, w.b0));
  store(p3, _mm_add_epi64(x2, w.a));
  store(p, _mm_xor_si128(w.c, w.b0));
  w.cl = low(w.c);
  _mm_prefetch(reinterpret_cast<const char*>(w.pad + (w.cl & TESRA_CN2_MASK)), _MM_HINT_T0);
}

// Second half: the multiplied load; its product gives the next step's first address.
inline void multiply_half(Walk& w) {
  uint8_t* p = w.pad + (w.cl & TESRA_CN2_MASK);
  const uintptr_t at = reinterpret_cast<uintptr_t>(p);
  uint8_t* p1 = reinterpret_cast<uint8_t*>(at ^ 16);
  uint8_t* p2 = reinterpret_cast<uint8_t*>(at ^ 32);
  uint8_t* p3 = reinterpret_cast<uint8_t*>(at ^ 48);
  const uint64_t twist = w.quotient ^ w.root << 32;
  const __m128i d = _mm_xor_si128(load(p), _mm_cvtsi64_si128(static_cast<long long>(twist)));
  const uint64_t dl = low(d);
  const uint64_t ch = static_cast<uint64_t>(_mm_extract_epi64(w.c, 1));
  const uint32_t divisor =
      static_cast<uint32_t>(w.cl + static_cast<uint32_t>(w.root << 1)) | 0x80000001u;
  w.quotient = static_cast<uint32_t>(ch / divisor) + (ch % divisor << 32);
  w.root = integer_root(w.cl + w.quotient);
  unsigned long long hi;
  const uint64_t lo = _mulx_u64(w.cl, dl, &hi);
  __m128i product = pair(hi, lo);
  const __m128i x1 = _mm_xor_si128(load(p1), product), x2 = load(p2), x3 = load(p3);
  product = _mm_xor_si128(product, x2);
  store(p1, _mm_add_epi64(x3, w.b1));
  store(p2, _mm_add_epi64(x1, w.b0));
  store(p3, _mm_add_epi64(x2, w.a));
  const __m128i sum = _mm_add_epi64(w.a, product);
  store(p, sum);
  w.a = _mm_xor_si128(sum, d);
  w.al = (w.al + (hi ^ low(x2))) ^ dl;
  _mm_prefetch(reinterpret_cast<const char*>(w.pad + (w.al & TESRA_CN2_MASK)), _MM_HINT_T0);
  w.b1 = w.b0;
  w.b0 = w.c;
}

template <int WAYS>
inline void walk(uint64_t* const* states, uint8_t* const* pads) {
  Walk w[WAYS];
#pragma GCC unroll 8
  for (int k = 0; k < WAYS; ++k) begin(w[k], states[k], pads[k]);
  for (int i = 0; i < TESRA_CN2_ITERATIONS; ++i) {
#pragma GCC unroll 8
    for (int k = 0; k < WAYS; ++k) encrypt_half(w[k]);
#pragma GCC unroll 8
    for (int k = 0; k < WAYS; ++k) multiply_half(w[k]);
  }
}

// ---------------------------------------------------------------- fill and fold, 128 bits wide

inline void round_keys(const uint64_t* words, __m128i keys[kCryptoNightKeys]) {
  uint32_t k[kCryptoNightKeys * 4];
  aes256_round_keys(reinterpret_cast<const uint8_t*>(words), k);
  for (int i = 0; i < kCryptoNightKeys; ++i)
    keys[i] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(k + 4 * i));
}

template <bool FOLD>
inline void pass(uint64_t* state, uint8_t* pad) {
  __m128i keys[kCryptoNightKeys], x[8];
  round_keys(state + (FOLD ? 4 : 0), keys);
  __m128i* const text = reinterpret_cast<__m128i*>(state + 8);
  for (int b = 0; b < 8; ++b) x[b] = _mm_loadu_si128(text + b);
  for (size_t at = 0; at < TESRA_CN2_SCRATCHPAD; at += 128) {
#pragma GCC unroll 8
    for (int b = 0; b < 8; ++b)
      if (FOLD) x[b] = _mm_xor_si128(x[b], load(pad + at + 16 * b));
#pragma GCC unroll 10
    for (int r = 0; r < kCryptoNightKeys; ++r)
#pragma GCC unroll 8
      for (int b = 0; b < 8; ++b) x[b] = _mm_aesenc_si128(x[b], keys[r]);
#pragma GCC unroll 8
    for (int b = 0; b < 8; ++b)
      if (!FOLD) store(pad + at + 16 * b, x[b]);
  }
  if (FOLD)
    for (int b = 0; b < 8; ++b) _mm_storeu_si128(text + b, x[b]);
}

template <int WAYS>
void run(uint64_t* const* states, uint8_t* const* pads) {
  for (int k = 0; k < WAYS; ++k) pass<false>(states[k], pads[k]);
  walk<WAYS>(states, pads);
  for (int k = 0; k < WAYS; ++k) pass<true>(states[k], pads[k]);
}
void run_one(uint64_t* state, uint8_t* pad) { run<1>(&state, &pad); }

}  // namespace
}  // namespace tesra
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx,avx2,bmi2,aes,avx512f,avx512bw,avx512vl,vaes")
namespace tesra {
namespace {

// 512 bits wide: WAYS scratchpads at once, since two registers a scratchpad leave most of the AES
// units' latency open.
template <bool FOLD, int WAYS>
void wide_pass(uint64_t* const* states, uint8_t* const* pads) {
  __m512i keys[WAYS][kCryptoNightKeys], x[WAYS][2];
#pragma GCC unroll 4
  for (int k = 0; k < WAYS; ++k) {
    __m128i narrow[kCryptoNightKeys];
    round_keys(states[k] + (FOLD ? 4 : 0), narrow);
#pragma GCC unroll 10
    for (int r = 0; r < kCryptoNightKeys; ++r) keys[k][r] = _mm512_broadcast_i32x4(narrow[r]);
    x[k][0] = _mm512_loadu_si512(states[k] + 8);
    x[k][1] = _mm512_loadu_si512(states[k] + 16);
  }
  for (size_t at = 0; at < TESRA_CN2_SCRATCHPAD; at += 128) {
#pragma GCC unroll 4
    for (int k = 0; k < WAYS; ++k)
      if (FOLD) {
        x[k][0] = _mm512_xor_si512(x[k][0], _mm512_load_si512(pads[k] + at));
        x[k][1] = _mm512_xor_si512(x[k][1], _mm512_load_si512(pads[k] + at + 64));
      }
#pragma GCC unroll 10
    for (int r = 0; r < kCryptoNightKeys; ++r)
#pragma GCC unroll 4
      for (int k = 0; k < WAYS; ++k) {
        x[k][0] = _mm512_aesenc_epi128(x[k][0], keys[k][r]);
        x[k][1] = _mm512_aesenc_epi128(x[k][1], keys[k][r]);
      }
#pragma GCC unroll 4
    for (int k = 0; k < WAYS; ++k)
      if (!FOLD) {
        _mm512_store_si512(pads[k] + at, x[k][0]);
        _mm512_store_si512(pads[k] + at + 64, x[k][1]);
      }
  }
#pragma GCC unroll 4
  for (int k = 0; k < WAYS; ++k)
    if (FOLD) {
      _mm512_storeu_si512(states[k] + 8, x[k][0]);
      _mm512_storeu_si512(states[k] + 16, x[k][1]);
    }
}

template <int WAYS>
void wide_run(uint64_t* const* states, uint8_t* const* pads) {
  constexpr int kPair = WAYS % 2 == 0 ? 2 : 1;
  for (int k = 0; k < WAYS; k += kPair) wide_pass<false, kPair>(states + k, pads + k);
  walk<WAYS>(states, pads);
  for (int k = 0; k < WAYS; k += kPair) wide_pass<true, kPair>(states + k, pads + k);
}
void wide_run_one(uint64_t* state, uint8_t* pad) { wide_run<1>(&state, &pad); }

}  // namespace
}  // namespace tesra
#pragma GCC pop_options

namespace tesra {

const Cn2Path* cn2_aes() {
  static const Cn2Path path{"aes-ni", run_one, run<2>};
  __builtin_cpu_init();
  return __builtin_cpu_supports("aes") ? &path : nullptr;
}

const Cn2Path* cn2_vaes() {
  static const Cn2Path path{"vaes", wide_run_one, wide_run<2>};
  return cn2_aes() && __builtin_cpu_supports("vaes") && __builtin_cpu_supports("avx512bw") ? &path
                                                                                          : nullptr;
}

}  // namespace tesra
#else
namespace tesra {
const Cn2Path* cn2_aes() { return nullptr; }
const Cn2Path* cn2_vaes() { return nullptr; }
}  // namespace tesra
#endif
