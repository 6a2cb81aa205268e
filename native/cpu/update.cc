// Owns: update.h over all threads.
// Invariant: the bits are those of the in-place operations, whatever the threads and the alignment.
#include <atomic>
#include <cstring>

#include "cpu.h"

namespace tesra {
namespace {

// Floats a task at least: some 30 us of memory traffic, against 2 us to wake a thread.
constexpr int64_t kGrain = 16384;
// Floats whose magnitudes are looked at before they are used: 16 KiB, then read again from L1.
constexpr int64_t kLook = 4096;
// Floats from which outputs go around the caches: what is written then comes back from memory anyway, and a
// line that is overwritten whole need not be read first, which is 3 of Adam's 10 transfers.
constexpr int64_t kStreamFrom = 1 << 20;
// Doubles of a mean that are summed together: 16 KiB, so that the sums stay in L1.
constexpr int64_t kSums = 2048;

uintptr_t misalignment(const float* p) { return reinterpret_cast<uintptr_t>(p) % 64; }

}  // namespace

void update(const Context& cx, tesra_update& u) {
  const Kernels& k = *cx.kernels;
  const bool has_m = u.kind != TESRA_OP_SGD, has_v = u.kind == TESRA_OP_ADAM;
  const tesra_adam_coefficients_t coefficients =
      has_v ? tesra_adam_coefficients(&u.adam, u.adam.step) : tesra_adam_coefficients_t{};
  std::atomic<uint32_t> largest{0};
  auto range = [&](int64_t begin, int64_t end, bool stream) {
    uint32_t most = 0;
    for (int64_t i = begin; i < end; i += kLook) {
      const int64_t n = smaller(kLook, end - i);
      most = larger(most, k.compression->largest_bits(u.g + i, n));
      const OptimizerRange o{u.p + i,
                             u.g + i,
                             has_m ? u.m + i : nullptr,
                             has_v ? u.v + i : nullptr,
                             u.p_out + i,
                             has_m ? u.m_out + i : nullptr,
                             has_v ? u.v_out + i : nullptr,
                             n,
                             stream};
      if (has_v) k.adam(o, coefficients, u.adam.weight_decay != 0.0);
      else if (has_m)
        k.momentum(o, static_cast<float>(u.sgd.learning_rate),
                   static_cast<float>(u.sgd.weight_decay), static_cast<float>(u.sgd.momentum),
                   u.sgd.nesterov != 0);
      else
        k.sgd(o, static_cast<float>(u.sgd.learning_rate), static_cast<float>(u.sgd.weight_decay));
    }
    if (stream) k.stream_fence();
    for (uint32_t seen = largest.load(); most > seen && !largest.compare_exchange_weak(seen, most);) {
    }
  };
  // Streaming stores want whole aligned vectors: a head of at most 15 floats goes by the caches.
  const uintptr_t off = misalignment(u.p_out);
  const bool together = (!has_m || misalignment(u.m_out) == off) &&
                        (!has_v || misalignment(u.v_out) == off) && off % sizeof(float) == 0;
  const bool stream = together && u.n >= kStreamFrom;
  const int64_t head =
      stream ? static_cast<int64_t>((64 - off) % 64 / sizeof(float)) : 0;
  if (head) range(0, head, false);
  parallel_ranges(cx, u.n - head, kGrain,
                  [&](int64_t i, int64_t e) { range(head + i, head + e, stream); });
  u.largest = largest.load();
}

uint32_t largest_magnitude(const Context& cx, const float* x, int64_t n) {
  std::atomic<uint32_t> largest{0};
  parallel_ranges(cx, n, kGrain, [&](int64_t i, int64_t e) {
    const uint32_t most = cx.kernels->compression->largest_bits(x + i, e - i);
    for (uint32_t seen = largest.load(); most > seen && !largest.compare_exchange_weak(seen, most);) {
    }
  });
  return largest.load();
}

void mean(const Context& cx, const tesra_mean& m) {
  parallel_ranges(cx, m.n, kGrain, [&](int64_t begin, int64_t end) {
    alignas(64) double sum[kSums];
    for (int64_t i = begin; i < end; i += kSums) {
      const int64_t n = smaller(kSums, end - i);
      std::memset(sum, 0, static_cast<size_t>(n) * sizeof(double));
      for (int32_t j = 0; j < m.count; ++j) cx.kernels->add_double(sum, m.x[j] + i, n);
      cx.kernels->divide_double(sum, m.count, m.out + i, n);
    }
  });
}

}  // namespace tesra
