// Owns: gradient compression over all threads: exact selection of the top k by radix histograms, blocks
// for int8 and signs, and the check of messages from outside.
// Invariant: compression.h's bytes, whatever the threads: counts and offsets are summed in task order.
#include <cstring>
#include <vector>

#include "cpu.h"

namespace tesra {
namespace {

// Elements a task: large enough that a histogram's 8 KiB are nothing beside it.
constexpr int64_t kTaskElements = 1 << 18;
// Elements looked at together for one at or above the threshold: most groups have none.
constexpr int64_t kGroup = 64;

struct Task {
  int64_t begin, end;
};

Task task_at(int64_t i, int64_t n) { return {i * kTaskElements, smaller(n, (i + 1) * kTaskElements)}; }

inline uint32_t key_of(float t) {
  uint32_t bits;
  std::memcpy(&bits, &t, 4);
  return bits & 0x7fffffffu;
}

inline void put32(uint8_t* p, uint32_t x) { std::memcpy(p, &x, 4); }
inline uint32_t get32(const uint8_t* p) {
  uint32_t x;
  std::memcpy(&x, p, 4);
  return x;
}
inline float get_float(const uint8_t* p) {
  float x;
  std::memcpy(&x, p, 4);
  return x;
}

// One digit of the key: the keys that agree with `prefix` above it are counted by it.
struct Digit {
  int shift, bits;
};
constexpr Digit kDigits[3] = {{20, 11}, {10, 10}, {0, 10}};

struct Threshold {
  uint32_t key;    // of the smallest entry taken
  uint64_t equal;  // entries with this very key that are taken, lowest index first
};

// The k-th largest key, 1 <= k <= n, digit by digit from the top.
Threshold select(const Context& cx, const float* t, int64_t n, uint64_t k) {
  const int64_t tasks = ceil_div(n, kTaskElements);
  std::vector<uint32_t> counts(static_cast<size_t>(tasks) << kDigits[0].bits);
  uint32_t prefix = 0;
  uint64_t left = k;
  for (const Digit& digit : kDigits) {
    const size_t bins = size_t{1} << digit.bits;
    const uint32_t mask = static_cast<uint32_t>(bins - 1);
    const int above = digit.shift + digit.bits;
    cx.pool->run(tasks, [&](int64_t task, int) {
      uint32_t* const own = counts.data() + static_cast<size_t>(task) * bins;
      std::memset(own, 0, bins * sizeof(uint32_t));
      const Task range = task_at(task, n);
      for (int64_t i = range.begin; i < range.end; ++i) {
        const uint32_t key = key_of(t[i]);
        if (static_cast<uint64_t>(key) >> above == prefix) ++own[key >> digit.shift & mask];
      }
    });
    size_t bin = bins;
    for (uint64_t in_bin = 0;;) {
      --bin;
      in_bin = 0;
      for (int64_t task = 0; task < tasks; ++task)
        in_bin += counts[static_cast<size_t>(task) * bins + bin];
      if (in_bin >= left) break;
      left -= in_bin;
    }
    prefix = prefix << digit.bits | static_cast<uint32_t>(bin);
  }
  return {prefix, left};
}

void take_topk(const Context& cx, const tesra_compress& c, float* t) {
  const uint64_t k = c.parameter;
  if (k == 0) return;
  const Threshold at = select(cx, t, c.n, k);
  const int64_t tasks = ceil_div(c.n, kTaskElements);
  struct Count {
    uint64_t above, equal;
  };
  std::vector<Count> counts(static_cast<size_t>(tasks));
  // Only groups that hold a key of the threshold or above are looked at one by one.
  auto each = [&](int64_t task, const auto& found) {
    const Task range = task_at(task, c.n);
    for (int64_t g = range.begin; g < range.end; g += kGroup) {
      const int64_t end = smaller(range.end, g + kGroup);
      if (cx.kernels->compression->largest_bits(t + g, end - g) < at.key) continue;
      for (int64_t i = g; i < end; ++i) {
        const uint32_t key = key_of(t[i]);
        if (key >= at.key) found(i, key == at.key);
      }
    }
  };
  cx.pool->run(tasks, [&](int64_t task, int) {
    Count mine{0, 0};
    each(task, [&](int64_t, bool equal) { ++(equal ? mine.equal : mine.above); });
    counts[static_cast<size_t>(task)] = mine;
  });
  // Where each task writes, and how many of its equal keys are still wanted.
  struct Share {
    uint64_t offset, equal;
  };
  std::vector<Share> shares(static_cast<size_t>(tasks));
  uint64_t offset = 0, equal = at.equal;
  for (int64_t i = 0; i < tasks; ++i) {
    const Count& n = counts[static_cast<size_t>(i)];
    const uint64_t taken = smaller(equal, n.equal);
    shares[static_cast<size_t>(i)] = {offset, taken};
    offset += n.above + taken;
    equal -= taken;
  }
  uint8_t* const indices = c.out + TESRA_PACKED_HEADER;
  uint8_t* const values = indices + 4 * k;
  cx.pool->run(tasks, [&](int64_t task, int) {
    Share share = shares[static_cast<size_t>(task)];
    each(task, [&](int64_t i, bool equal_key) {
      if (equal_key && share.equal == 0) return;
      share.equal -= equal_key ? 1 : 0;
      put32(indices + 4 * share.offset, static_cast<uint32_t>(i));
      std::memcpy(values + 4 * share.offset, t + i, 4);
      ++share.offset;
      if (c.residual) t[i] = 0.0f;
    });
  });
}

// Runs body(block, begin, elements, thread) for all blocks, several a task.
template <class F>
void for_blocks(const Context& cx, int64_t n, uint32_t block, const F& body) {
  const int64_t blocks = ceil_div(n, block), group = larger<int64_t>(1, 65536 / block);
  cx.pool->run(ceil_div(blocks, group), [&](int64_t task, int thread) {
    for (int64_t b = task * group; b < smaller(blocks, (task + 1) * group); ++b)
      body(b, b * block, smaller<int64_t>(block, n - b * block), thread);
  });
}

void uniforms(const tesra_compress& c, int64_t begin, int64_t n, float* u) {
  for (int64_t i = 0; i < n; i += 4) {
    const uint32_t counter[4] = {static_cast<uint32_t>((begin + i) / 4), c.stream, 0, 0};
    uint32_t words[4];
    tesra_philox(counter, c.key_low, c.key_high, words);
    for (int64_t j = 0; j < 4 && i + j < n; ++j)
      u[i + j] = static_cast<float>(words[j] >> 8) * 5.9604644775390625e-8f;
  }
}

void take_int8(const Context& cx, const tesra_compress& c, float* t) {
  const CompressionKernels& k = *cx.kernels->compression;
  const int64_t blocks = ceil_div(c.n, c.parameter);
  uint8_t* const scales = c.out + TESRA_PACKED_HEADER;
  int8_t* const q = reinterpret_cast<int8_t*>(scales + 4 * blocks);
  std::vector<float> random(c.stochastic ? size_t{c.parameter} * cx.pool->threads() : 0);
  for_blocks(cx, c.n, c.parameter, [&](int64_t block, int64_t begin, int64_t n, int thread) {
    float* const own = t + begin;
    const uint32_t most = k.largest_bits(own, n);
    const float a = tesra_bits_float(most);
    float scale = 0.0f;
    if (most >= 0x7f800000u) {
      scale = tesra_bits_float(0x7fc00000u);
      std::memset(q + begin, 0, static_cast<size_t>(n));
      if (c.residual) std::memset(own, 0, static_cast<size_t>(n) * sizeof(float));
    } else if (a < TESRA_INT8_TINY) {
      std::memset(q + begin, 0, static_cast<size_t>(n));
    } else {
      scale = a / 127.0f;
      const float inverse = 127.0f / a;
      if (c.stochastic) {
        float* const u = random.data() + size_t{c.parameter} * thread;
        uniforms(c, begin, n, u);
        k.quantise_stochastic(own, u, q + begin, n, inverse);
      } else {
        k.quantise(own, q + begin, n, inverse);
      }
      if (c.residual) k.leave_quantised(own, q + begin, n, scale);
    }
    std::memcpy(scales + 4 * block, &scale, 4);
  });
}

void take_sign(const Context& cx, const tesra_compress& c, float* t) {
  const CompressionKernels& k = *cx.kernels->compression;
  const int64_t blocks = ceil_div(c.n, c.parameter);
  uint8_t* const magnitudes = c.out + TESRA_PACKED_HEADER;
  uint8_t* const bits = magnitudes + 4 * blocks;
  for_blocks(cx, c.n, c.parameter, [&](int64_t block, int64_t begin, int64_t n, int) {
    const float sum = k.magnitude_sum(t + begin, n);
    const bool finite = sum - sum == 0.0f;
    const float magnitude =
        finite ? sum / static_cast<float>(n) : tesra_bits_float(0x7fc00000u);
    std::memcpy(magnitudes + 4 * block, &magnitude, 4);
    k.take_signs(t + begin, bits + begin / 8, n, magnitude, c.residual && finite);
    if (c.residual && !finite) std::memset(t + begin, 0, static_cast<size_t>(n) * sizeof(float));
  });
}

constexpr int64_t kHalfGrain = 16384;

void take_fp16(const Context& cx, const tesra_compress& c, float* t) {
  const CompressionKernels& k = *cx.kernels->compression;
  uint16_t* const halves = reinterpret_cast<uint16_t*>(c.out + TESRA_PACKED_HEADER);
  parallel_ranges(cx, c.n, kHalfGrain, [&](int64_t i, int64_t e) {
    k.take_halves(t + i, halves + i, e - i);
    if (c.residual) k.leave_halves(t + i, halves + i, e - i);
  });
}

}  // namespace

void compress(const Context& cx, const tesra_compress& c) {
  const CompressionKernels& k = *cx.kernels->compression;
  put32(c.out, TESRA_PACKED_MAGIC + static_cast<uint32_t>(c.kind));
  put32(c.out + 4, c.parameter);
  const uint64_t n = static_cast<uint64_t>(c.n);
  std::memcpy(c.out + 8, &n, 8);
  // t is made where the residual lies; without one, x is only read.
  if (c.residual)
    parallel_ranges(cx, c.n, 16384, [&](int64_t i, int64_t e) {
      k.feed(c.x + i, c.residual + i, c.residual + i, e - i);
    });
  float* const t = c.residual ? c.residual : const_cast<float*>(c.x);
  if (c.kind == TESRA_TOPK) take_topk(cx, c, t);
  else if (c.kind == TESRA_INT8) take_int8(cx, c, t);
  else if (c.kind == TESRA_FP16) take_fp16(cx, c, t);
  else take_sign(cx, c, t);
}

void decompress(const Context& cx, const tesra_decompress& d) {
  const CompressionKernels& kernels = *cx.kernels->compression;
  const uint32_t kind = d.kind ? static_cast<uint32_t>(d.kind) : get32(d.packed) & 0xff;
  const uint32_t parameter = d.kind ? d.parameter : get32(d.packed + 4);
  const uint8_t* const first = d.packed + TESRA_PACKED_HEADER;
  if (kind == TESRA_TOPK) {
    const uint8_t* const values = first + 4 * size_t{parameter};
    if (!d.add && d.n) std::memset(d.out, 0, static_cast<size_t>(d.n) * sizeof(float));
    for (size_t i = 0; i < parameter; ++i) {
      const uint32_t index = get32(first + 4 * i);
      if (index >= d.n) continue;
      float& to = d.out[index];
      const float value = get_float(values + 4 * i);
      to = d.add ? tesra_fma(d.scale, value, to) : d.scale * value;
    }
    return;
  }
  if (kind == TESRA_FP16) {
    // The message may lie anywhere in a received frame.
    const bool aligned = reinterpret_cast<uintptr_t>(first) % alignof(uint16_t) == 0;
    parallel_ranges(cx, d.n, kHalfGrain, [&](int64_t begin, int64_t end) {
      alignas(64) uint16_t copy[1024];
      for (int64_t i = begin; i < end; i += 1024) {
        const int64_t n = smaller<int64_t>(1024, end - i);
        if (!aligned) std::memcpy(copy, first + 2 * i, 2 * static_cast<size_t>(n));
        const uint16_t* const halves = aligned ? reinterpret_cast<const uint16_t*>(first) + i : copy;
        kernels.put_halves(halves, d.out + i, n, d.scale, d.add);
      }
    });
    return;
  }
  const uint8_t* const second = first + 4 * ceil_div(d.n, parameter);
  for_blocks(cx, d.n, parameter, [&](int64_t block, int64_t begin, int64_t n, int) {
    const float unit = get_float(first + 4 * block);
    if (kind == TESRA_INT8)
      kernels.put_quantised(reinterpret_cast<const int8_t*>(second) + begin, d.out + begin, n, unit,
                            d.scale, d.add);
    else
      kernels.put_signs(second + begin / 8, d.out + begin, n, unit, d.scale, d.add);
  });
}

}  // namespace tesra

extern "C" int tesra_check_packed(const uint8_t* packed, size_t size, int64_t n,
                                  tesra_error* error) {
  using namespace tesra;
  if (size < TESRA_PACKED_HEADER)
    return fail(error, TESRA_E_SHAPE, "a message has at least 16 bytes, but this has %zu", size);
  const uint32_t kind = get32(packed) - TESRA_PACKED_MAGIC, parameter = get32(packed + 4);
  uint64_t stated;
  std::memcpy(&stated, packed + 8, 8);
  if (kind < TESRA_TOPK || kind > TESRA_FP16)
    return fail(error, TESRA_E_ARGUMENT, "the bytes are no compressed gradient");
  if (n > TESRA_COMPRESS_MAX || stated != static_cast<uint64_t>(n))
    return fail(error, TESRA_E_SHAPE, "the message is of %llu elements, but %lld are expected",
                static_cast<unsigned long long>(stated), static_cast<long long>(n));
  const bool blocks = kind == TESRA_INT8 || kind == TESRA_SIGN;
  if (kind == TESRA_FP16 && parameter != 0)
    return fail(error, TESRA_E_ARGUMENT, "a message of halves has the parameter 0, not %u", parameter);
  if (blocks && (parameter == 0 || parameter % 64 != 0 || parameter > TESRA_COMPRESS_BLOCK_MAX))
    return fail(error, TESRA_E_ARGUMENT, "the message has blocks of %u elements", parameter);
  if (kind == TESRA_TOPK && parameter > static_cast<uint64_t>(n))
    return fail(error, TESRA_E_ARGUMENT, "the message has %u entries of %lld elements", parameter,
                static_cast<long long>(n));
  const uint64_t want = tesra_packed_size(static_cast<int32_t>(kind), parameter, n);
  if (size != want)
    return fail(error, TESRA_E_SHAPE, "the message must have %llu bytes, but has %zu",
                static_cast<unsigned long long>(want), size);
  if (kind != TESRA_TOPK) return TESRA_OK;
  uint64_t low = 0;  // the least index that may come next
  for (size_t i = 0; i < parameter; ++i) {
    const uint32_t index = get32(packed + TESRA_PACKED_HEADER + 4 * i);
    if (index < low || index >= static_cast<uint64_t>(n))
      return fail(error, TESRA_E_ARGUMENT, "entry %zu has index %u of %lld, not above the one before",
                  i, index, static_cast<long long>(n));
    low = uint64_t{index} + 1;
  }
  return TESRA_OK;
}
