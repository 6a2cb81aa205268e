// Owns: dropout and first weights. The words are integers, so one portable loop gives the bits of every instruction set.
#include "cpu.h"

namespace tesra {
namespace {

constexpr int64_t kFloatsATask = 8192;

}  // namespace

void dropout(const Context& cx, const tesra_dropout& o) {
  const uint32_t step = tesra_dropout_step(o.step[0]);
  parallel_ranges(cx, o.n, kFloatsATask, [&](int64_t begin, int64_t end) {  // begin is a multiple of 64
    for (int64_t i = begin; i < end; i += 4) {
      const uint64_t block = static_cast<uint64_t>(i) / 4;
      const uint32_t counter[4] = {static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32),
                                   o.stream, step};
      uint32_t words[4];
      tesra_philox(counter, o.key_low, o.key_high, words);
      for (int64_t j = i; j < smaller(end, i + 4); ++j)
        o.out[j] = words[j - i] >> 8 >= o.threshold ? o.x[j] * o.scale : 0.0f;
    }
  });
}

void fill(const Context& cx, const tesra_fill& o) {
  parallel_ranges(cx, o.n, kFloatsATask, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; o.normal && i < end; ++i) o.out[i] = tesra_normal(&o, i);
    for (int64_t i = begin; !o.normal && i < end; i += 4) {
      double u[4];
      tesra_uniforms(&o, static_cast<uint64_t>(i) / 4, u);
      for (int64_t j = i; j < smaller(end, i + 4); ++j)
        o.out[j] = static_cast<float>((2.0 * u[j - i] - 1.0) * o.scale);
    }
  });
}

}  // namespace tesra
