// Owns the emulated forms of ../intrinsics.h, written from the PTX ISA's fragment tables (9.7.14.5:
// mma.m16n8k32 of int8, mma.m16n8k16 of bf16, ldmatrix), independently of mma-geometry.h.
#pragma once
#include <cstdio>
#include <cstdlib>

#define TESRA_LAUNCH(kernel, grid, block, shared, stream, ...) \
  emulator::launch(grid, block, shared, stream, [=] { kernel(__VA_ARGS__); })
#define TESRA_DYNAMIC_SHARED(name) unsigned char* const name = emulator::dynamicShared()
#define TESRA_UNROLL
#define TESRA_FOR(i, count) for (int i = 0; i < (count); i++)
#define TESRA_UNROLL_2
#define TESRA_NO_UNROLL
#define TESRA_OPAQUE(pointer)

namespace emulator {
void copyLater(void* to, const void* from, int size, bool valid);
void commitCopies();
void waitCopies(int pending);
[[noreturn]] inline void die(const char* what) {
  std::fprintf(stderr, "emulator: %s\n", what);
  std::exit(3);
}
}  // namespace emulator

namespace tesra::cuda {

template <int kBytes>
inline void copyAsync(void* to, const void* from, bool valid) {
  if (reinterpret_cast<uintptr_t>(to) % kBytes ||
      (valid && reinterpret_cast<uintptr_t>(from) % kBytes))
    emulator::die("misaligned asynchronous copy");
  emulator::copyLater(to, from, kBytes, valid);
}
inline void copyCommit() {
  emulator::commitCopies();
}
template <int kPending>
inline void copyWait() {
  emulator::waitCopies(kPending);
}

inline void loadMatrices(uint32_t (&r)[4], const void* from) {
  const emulator::Exchange* all = emulator::exchange({{}, from});
  const int lane = emulator::lane();
  for (int matrix = 0; matrix < 4; matrix++) {
    unsigned banks = 0;
    for (int row = 0; row < 8; row++) {
      const uintptr_t address = reinterpret_cast<uintptr_t>(all[8 * matrix + row].pointer);
      if (address % 16) emulator::die("misaligned ldmatrix row");
      banks |= 1u << (address / 16 % 8);
    }
    if (banks != 0xff) emulator::die("ldmatrix rows share banks");
    memcpy(&r[matrix],
           static_cast<const char*>(all[8 * matrix + lane / 4].pointer) + 4 * (lane % 4), 4);
  }
}

// d + the sum of `count` products of bf16 pairs, rounded once: no hardware promises an order.
inline float dotBf16(float d, const void* a, const void* b, int count) {
  double sum = d;
  for (int i = 0; i < count; i++) {
    uint16_t x, y;
    memcpy(&x, static_cast<const char*>(a) + 2 * i, 2);
    memcpy(&y, static_cast<const char*>(b) + 2 * i, 2);
    const uint32_t wide[2] = {static_cast<uint32_t>(x) << 16, static_cast<uint32_t>(y) << 16};
    float factors[2];
    memcpy(factors, wide, 8);
    sum += static_cast<double>(factors[0]) * factors[1];
  }
  return static_cast<float>(sum);
}
inline int32_t addWords(int32_t d, uint32_t a, uint32_t b) {
  return __dp4a(static_cast<int>(a), static_cast<int>(b), d);
}
inline float addWords(float d, uint32_t a, uint32_t b) {
  return dotBf16(d, &a, &b, 2);
}
template <class Sum>
inline void multiplyAdd(Sum (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  const emulator::Exchange* all = emulator::exchange({{a[0], a[1], a[2], a[3], b0, b1}, nullptr});
  const int group = emulator::lane() / 4, member = emulator::lane() % 4;
  for (int e = 0; e < 4; e++) {
    const int row = e < 2 ? group : group + 8, column = 2 * member + (e & 1);
    Sum sum = d[e];
    for (int half = 0; half < 2; half++)
      for (int owner = 0; owner < 4; owner++)
        sum = addWords(sum, all[row % 8 * 4 + owner].word[(row >= 8 ? 1 : 0) + 2 * half],
                       all[column * 4 + owner].word[4 + half]);
    d[e] = sum;
  }
}

}  // namespace tesra::cuda
