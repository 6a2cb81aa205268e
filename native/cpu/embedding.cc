// Owns: rows by index, their gradient, and the addition of one vector to every row.
// The gradient's tasks are ranges of columns: each walks all rows in order, so that rows of one id add
// in ascending order whatever the number of threads, and no id's frequency unbalances them.
#include <cstring>

#include "cpu.h"

namespace tesra {
namespace {

constexpr int64_t kFloatsATask = 16384;
constexpr int64_t kColumnsATask = 64;  // four cache lines of a row

}  // namespace

void bias_add(const Context& cx, const tesra_bias_add& o) {
  if (o.m == 0 || o.n == 0) return;
  const int64_t rows = larger<int64_t>(1, kFloatsATask / o.n);
  const int64_t columns = smaller<int64_t>(o.n, 4 * kFloatsATask), pieces = ceil_div(o.n, columns);
  cx.pool->run(ceil_div(o.m, rows) * pieces, [&](int64_t task, int) {
    const int64_t c = task % pieces * columns, count = smaller(columns, o.n - c);
    const int64_t row = task / pieces * rows;
    for (int64_t r = row; r < smaller(o.m, row + rows); ++r)
      cx.kernels->add(o.x + r * o.n + c, o.bias + c, o.out + r * o.n + c, count);
  });
}

void embedding(const Context& cx, const tesra_embedding& o) {
  if (o.rows == 0 || o.columns == 0) return;
  const int64_t step = larger<int64_t>(1, kFloatsATask / o.columns);
  const size_t bytes = sizeof(float) * static_cast<size_t>(o.columns);
  cx.pool->run(ceil_div(o.rows, step), [&](int64_t task, int) {
    for (int64_t r = task * step; r < smaller(o.rows, (task + 1) * step); ++r) {
      const int32_t id = o.ids[r];
      float* out = o.out + r * o.columns;
      if (id >= 0 && id < o.vocabulary) {
        std::memcpy(out, o.table + int64_t{id} * o.columns, bytes);
      } else {
        for (int32_t c = 0; c < o.columns; ++c) out[c] = tesra_bits_float(0x7fc00000u);
      }
    }
  });
}

void embedding_grad(const Context& cx, const tesra_embedding_grad& o) {
  if (o.columns == 0) return;
  if (!o.accumulate)
    parallel_ranges(cx, int64_t{o.vocabulary} * o.columns, 4 * kFloatsATask,
                    [&](int64_t i, int64_t e) {
                      std::memset(o.dtable + i, 0, sizeof(float) * static_cast<size_t>(e - i));
                    });
  parallel_ranges(cx, o.columns, kColumnsATask, [&](int64_t begin, int64_t end) {
    for (int64_t r = 0; r < o.rows; ++r) {
      const int32_t id = o.ids[r];
      if (id < 0 || id >= o.vocabulary) continue;
      float* to = o.dtable + int64_t{id} * o.columns + begin;
      cx.kernels->add(to, o.dy + r * o.columns + begin, to, end - begin);
    }
  });
}

}  // namespace tesra
