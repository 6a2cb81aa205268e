// Owns the physical limits of this machine, measured in the same run as the kernels that are held against
// them: multiply-adds by FMA, VNNI and AMX out of registers, and bytes by the streams of a copy and of Adam.
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>
#include <thread>

#include "../peers/kernels/side.h"

namespace {

// The compiler must believe that the sums are used.
#define KEEP(sums) \
  for (auto& sum : sums) asm volatile("" : : "m"(sum))

constexpr int kRounds = 20000;  // about 100 us a call

__attribute__((target("avx512f"), noinline)) void fma_512() {
  __m512 a[16];
  const __m512 x = _mm512_set1_ps(0.999f), y = _mm512_set1_ps(1e-3f);
  for (auto& v : a) v = y;
  for (int i = 0; i < kRounds; ++i) {
#pragma GCC unroll 16
    for (int j = 0; j < 16; ++j) a[j] = _mm512_fmadd_ps(a[j], x, y);
  }
  KEEP(a);
}

__attribute__((target("avx2,fma"), noinline)) void fma_256() {
  __m256 a[12];
  const __m256 x = _mm256_set1_ps(0.999f), y = _mm256_set1_ps(1e-3f);
  for (auto& v : a) v = y;
  for (int i = 0; i < kRounds; ++i) {
#pragma GCC unroll 12
    for (int j = 0; j < 12; ++j) a[j] = _mm256_fmadd_ps(a[j], x, y);
  }
  KEEP(a);
}

__attribute__((target("avx512f,avx512vnni"), noinline)) void vnni_512() {
  __m512i a[16];
  const __m512i x = _mm512_set1_epi8(3), y = _mm512_set1_epi8(-2);
  for (auto& v : a) v = x;
  for (int i = 0; i < kRounds; ++i) {
#pragma GCC unroll 16
    for (int j = 0; j < 16; ++j) a[j] = _mm512_dpbusd_epi32(a[j], x, y);
  }
  KEEP(a);
}

__attribute__((target("amx-tile,amx-int8"), noinline)) void amx_int8() {
  // Palette 1, start row 0; bytes a row of each tile (little-endian words from 16), rows of each (from 48).
  alignas(64) static uint8_t config[64] = {1};
  for (int tile = 0; tile < 8; ++tile) config[16 + 2 * tile] = 64, config[48 + tile] = 16;
  asm volatile("" : : "m"(config));  // gcc's intrinsic names only the first bytes as read
  _tile_loadconfig(config);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  _tile_zero(6);
  _tile_zero(7);
  for (int i = 0; i < kRounds / 16; ++i) {
    _tile_dpbssd(0, 4, 6);
    _tile_dpbssd(1, 4, 7);
    _tile_dpbssd(2, 5, 6);
    _tile_dpbssd(3, 5, 7);
  }
  _tile_release();
}

bool amx_permitted() {
  return __builtin_cpu_supports("avx512vnni") && syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18) == 0;
}

__attribute__((target("avx512f"))) void copy_512(const float* from, float* to, size_t n) {
  for (size_t i = 0; i < n; i += 16) _mm512_stream_ps(to + i, _mm512_load_ps(from + i));
  _mm_sfence();
}
__attribute__((target("avx"))) void copy_256(const float* from, float* to, size_t n) {
  for (size_t i = 0; i < n; i += 8) _mm256_stream_ps(to + i, _mm256_load_ps(from + i));
  _mm_sfence();
}
// Four streams read, three of them written back in place, next to no arithmetic.
__attribute__((target("avx2"))) void adam_stream(float* p, float* m, float* v, const float* g, size_t n) {
  for (size_t i = 0; i < n; i += 8) {
    const __m256 x = _mm256_load_ps(g + i);
    _mm256_store_ps(p + i, _mm256_add_ps(_mm256_load_ps(p + i), x));
    _mm256_store_ps(m + i, _mm256_add_ps(_mm256_load_ps(m + i), x));
    _mm256_store_ps(v + i, _mm256_add_ps(_mm256_load_ps(v + i), x));
  }
}

// part(thread) on every thread; the last on the caller's own.
template <class F>
void on_threads(int threads, const F& part) {
  std::vector<std::thread> others;
  for (int t = 1; t < threads; ++t) others.emplace_back([&part, t] { part(t); });
  part(0);
  for (auto& o : others) o.join();
}

// multiply_adds: of one call on one thread.
side::Body compute(int threads, void (*kernel)(), double multiply_adds) {
  constexpr int kCalls = 100;  // 10 ms: a thread's start stays below 1 % of it
  return {[=] {
            on_threads(threads, [&](int) {
              for (int i = 0; i < kCalls; ++i) kernel();
            });
          },
          2.0 * threads * kCalls * multiply_adds};
}

side::Body prepare(const side::Case& c) {
  const int threads = c.integer("threads", 1);
  const std::string op = c.word("op");
  const bool wide = __builtin_cpu_supports("avx512f");
  if (op == "fma") return compute(threads, wide ? fma_512 : fma_256, kRounds * (wide ? 16.0 * 16 : 12.0 * 8));
  if (op == "vnni" && __builtin_cpu_supports("avx512vnni")) return compute(threads, vnni_512, kRounds * 16.0 * 64);
  if (op == "amx" && amx_permitted()) return compute(threads, amx_int8, kRounds / 16 * 4.0 * 16 * 16 * 64);
  const size_t n = static_cast<size_t>(c.number("n")) / 1024 * 1024;
  if (op == "copy") {
    auto from = side::random_floats(n), to = side::random_floats(n);
    return [=] {
      on_threads(threads, [&](int t) {
        const size_t begin = n / 1024 * t / threads * 1024, end = n / 1024 * (t + 1) / threads * 1024;
        (wide ? copy_512 : copy_256)(from.get() + begin, to.get() + begin, end - begin);
      });
    };
  }
  if (op == "adam") {
    auto p = side::random_floats(n), m = side::random_floats(n), v = side::random_floats(n), g = side::random_floats(n);
    return [=] {
      on_threads(threads, [&](int t) {
        const size_t begin = n / 1024 * t / threads * 1024, end = n / 1024 * (t + 1) / threads * 1024;
        adam_stream(p.get() + begin, m.get() + begin, v.get() + begin, g.get() + begin, end - begin);
      });
    };
  }
  return nullptr;
}

}  // namespace

int main() {
  __builtin_cpu_init();
  return side::serve("measured here", prepare);
}
