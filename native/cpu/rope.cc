// Owns: rotary embedding over tasks: the table of rotations, a row a position, then the rows. The table is
// made in each run: 32 sines a position of 64-wide heads, below 1 % of the block's products.
#include <cstring>

#include "cpu.h"

namespace tesra {
namespace {

constexpr int64_t kFloatsATask = 16384;
constexpr int64_t kPairsATask = 512;  // some 15 us

}  // namespace

size_t rope_scratch(const tesra_rope& o) {
  return static_cast<size_t>(int64_t{o.length} * o.head_size);
}

void rope(const Context& cx, const tesra_rope& o, float* scratch) {
  if (o.rows == 0) return;
  const int32_t half = o.head_size / 2;
  const int64_t turning = int64_t{o.heads} * o.head_size, rest = o.columns - turning;
  const int64_t positions = larger<int64_t>(1, kPairsATask / half);
  cx.pool->run(ceil_div(o.length, positions), [&](int64_t task, int) {
    const int64_t end = smaller<int64_t>(o.length, (task + 1) * positions);
    for (int64_t t = task * positions; t < end; ++t)
      for (int32_t i = 0; i < half; ++i) {
        float* const to = scratch + t * o.head_size + i;
        float sine;
        tesra_rotation(o.ratio, static_cast<int32_t>(t), i, to, &sine);
        to[half] = o.inverse ? -sine : sine;
      }
  });
  const int64_t step = larger<int64_t>(1, kFloatsATask / o.columns);
  cx.pool->run(ceil_div(o.rows, step), [&](int64_t task, int) {
    for (int64_t row = task * step; row < smaller(o.rows, (task + 1) * step); ++row) {
      const float* x = o.x + row * o.columns;
      float* out = o.out + row * o.columns;
      const float* turn = scratch + row % o.length * o.head_size;
      for (int32_t h = 0; h < o.heads; ++h, x += o.head_size, out += o.head_size)
        cx.kernels->transformer.rotate(x, turn, out, half);
      if (rest && out != x) std::memcpy(out, x, sizeof(float) * static_cast<size_t>(rest));
    }
  });
}

}  // namespace tesra
