// Owns: copies between layouts. Dimensions that lie one after another on both sides are joined first; the
// innermost two are walked in tiles, so that a transposition uses each cache line that it reads or writes.
#include <cstring>

#include "cpu.h"

namespace tesra {
namespace {

constexpr int64_t kTile = 16;  // floats: a cache line
constexpr int64_t kFloatsATask = 16384;

struct Walk {
  int rank = 0;
  int64_t size[TESRA_COPY_RANK_MAX], from[TESRA_COPY_RANK_MAX], to[TESRA_COPY_RANK_MAX];
};

// Outermost first, at least two dimensions.
Walk joined(const tesra_copy& o) {
  Walk w;
  for (int d = 0; d < TESRA_COPY_RANK_MAX; ++d) {
    if (o.size[d] == 1) continue;
    const int last = w.rank - 1;
    if (last >= 0 && w.from[last] == o.from[d] * o.size[d] && w.to[last] == o.to[d] * o.size[d]) {
      w.size[last] *= o.size[d];
      w.from[last] = o.from[d];
      w.to[last] = o.to[d];
    } else {
      w.size[w.rank] = o.size[d];
      w.from[w.rank] = o.from[d];
      w.to[w.rank++] = o.to[d];
    }
  }
  if (w.rank == 0) w.size[0] = w.from[0] = w.to[0] = w.rank = 1;
  if (w.rank == 1) {
    w.size[1] = w.size[0];
    w.from[1] = w.from[0];
    w.to[1] = w.to[0];
    w.size[0] = 1;
    w.from[0] = w.to[0] = 0;
    w.rank = 2;
  }
  return w;
}

void plane(const Context& cx, const float* x, float* out, const int64_t* size, const int64_t* from,
           const int64_t* to, bool add) {
  if (from[1] == 1 && to[1] == 1) {
    for (int64_t a = 0; a < size[0]; ++a, x += from[0], out += to[0]) {
      if (add) cx.kernels->add(out, x, out, size[1]);
      else std::memcpy(out, x, sizeof(float) * static_cast<size_t>(size[1]));
    }
    return;
  }
  for (int64_t a0 = 0; a0 < size[0]; a0 += kTile)
    for (int64_t b0 = 0; b0 < size[1]; b0 += kTile)
      for (int64_t a = a0; a < smaller(size[0], a0 + kTile); ++a)
        for (int64_t b = b0; b < smaller(size[1], b0 + kTile); ++b) {
          const float v = x[a * from[0] + b * from[1]];
          float* const p = out + a * to[0] + b * to[1];
          *p = add ? *p + v : v;
        }
}

}  // namespace

void copy(const Context& cx, const tesra_copy& o) {
  if (o.clear)
    parallel_ranges(cx, o.out_elements, 4 * kFloatsATask, [&](int64_t i, int64_t e) {
      std::memset(o.all + i, 0, sizeof(float) * static_cast<size_t>(e - i));
    });
  for (const int64_t size : o.size)
    if (size == 0) return;
  const Walk w = joined(o);
  const int inner = w.rank - 2;
  // Tasks are pieces of the outer dimensions, or of the plane's rows where there are none.
  int64_t planes = 1;
  for (int d = 0; d < inner; ++d) planes *= w.size[d];
  const int64_t rows = w.size[inner], columns = w.size[inner + 1];
  const int64_t rows_a_task = smaller(rows, round_up(larger<int64_t>(1, kFloatsATask / columns), kTile));
  const int64_t pieces = ceil_div(rows, rows_a_task);
  const int64_t planes_a_task = pieces > 1 ? 1 : larger<int64_t>(1, kFloatsATask / (rows * columns));
  cx.pool->run(ceil_div(planes, planes_a_task) * pieces, [&](int64_t task, int) {
    const int64_t first = task / pieces * planes_a_task, row = task % pieces * rows_a_task;
    const int64_t size[2] = {smaller(rows_a_task, rows - row), columns};
    for (int64_t p = first; p < smaller(planes, first + planes_a_task); ++p) {
      int64_t from = row * w.from[inner], to = row * w.to[inner], index = p;
      for (int d = inner - 1; d >= 0; --d) {
        from += index % w.size[d] * w.from[d];
        to += index % w.size[d] * w.to[d];
        index /= w.size[d];
      }
      plane(cx, o.x + from, o.out + to, size, w.from + inner, w.to + inner, o.accumulate != 0);
    }
  });
}

}  // namespace tesra
