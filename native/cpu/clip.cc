// Owns: the norm of one flat vector and clipping by it.
#include <cmath>

#include "cpu.h"

namespace tesra {
namespace {

constexpr int64_t kChunksATask = 8;
constexpr int64_t kFloatsATask = 65536;

}  // namespace

size_t global_norm_scratch(const tesra_global_norm& o) {
  return static_cast<size_t>(ceil_div(o.n, TESRA_FLAT_CHUNK));
}

void global_norm(const Context& cx, const tesra_global_norm& o, float* sums) {
  const int64_t chunks = ceil_div(o.n, TESRA_FLAT_CHUNK);
  cx.pool->run(ceil_div(chunks, kChunksATask), [&](int64_t task, int) {
    for (int64_t c = task * kChunksATask; c < smaller(chunks, (task + 1) * kChunksATask); ++c) {
      const int64_t i = c * TESRA_FLAT_CHUNK;
      sums[c] = cx.kernels->transformer.square_sum(
          o.x + i, static_cast<int32_t>(smaller<int64_t>(TESRA_FLAT_CHUNK, o.n - i)));
    }
  });
  double sum = 0.0;
  for (int64_t c = 0; c < chunks; ++c) sum = sum + static_cast<double>(sums[c]);
  o.norm[0] = static_cast<float>(std::sqrt(sum));
}

void clip(const Context& cx, const tesra_clip& o) {
  const float factor = o.limit / (o.norm[0] + 1e-6f);
  if (!(factor < 1.0f || o.normalize)) return;
  parallel_ranges(cx, o.n, kFloatsATask, [&](int64_t i, int64_t e) {
    cx.kernels->transformer.multiply(o.x + i, e - i, factor);
  });
}

}  // namespace tesra
