// Owns: norms and softmax over tasks of rows, and the join of the norms' column sums.
#include <cstring>

#include "cpu.h"

namespace tesra {
namespace {

constexpr int64_t kFloatsATask = 16384;

template <class F>
void over_rows(const Context& cx, int64_t rows, int32_t columns, const F& f) {
  const int64_t step = larger<int64_t>(4, kFloatsATask / columns / 4 * 4);
  cx.pool->run(ceil_div(rows, step), [&](int64_t task, int) {
    f(task * step, smaller(step, rows - task * step));
  });
}

int64_t sums_of(const tesra_norm_grad& o) { return int64_t{o.columns} * (o.mean ? 2 : 1); }

}  // namespace

void norm(const Context& cx, const tesra_norm& o) {
  over_rows(cx, o.rows, o.columns,
            [&](int64_t row, int64_t rows) { cx.kernels->transformer.norm(o, row, rows); });
}

size_t norm_grad_scratch(const tesra_norm_grad& o) {
  return static_cast<size_t>(ceil_div(o.rows, TESRA_NORM_ROWS) * sums_of(o));
}

void norm_grad(const Context& cx, const tesra_norm_grad& o, float* scratch) {
  const int64_t chunks = ceil_div(o.rows, TESRA_NORM_ROWS), sums = sums_of(o);
  cx.pool->run(chunks, [&](int64_t chunk, int) {
    const int64_t row = chunk * TESRA_NORM_ROWS;
    cx.kernels->transformer.norm_grad(o, row, smaller<int64_t>(TESRA_NORM_ROWS, o.rows - row),
                                      scratch + chunk * sums);
  });
  const auto join = [&](float* to, const float* from, int64_t begin, int64_t end) {
    const size_t bytes = sizeof(float) * static_cast<size_t>(end - begin);
    if (chunks == 0) std::memset(to + begin, 0, bytes);
    else std::memcpy(to + begin, from + begin, bytes);
    for (int64_t c = 1; c < chunks; ++c)
      cx.kernels->add(to + begin, from + c * sums + begin, to + begin, end - begin);
  };
  const int64_t grain = larger<int64_t>(64, kFloatsATask / larger<int64_t>(chunks, 1));
  parallel_ranges(cx, o.columns, grain, [&](int64_t begin, int64_t end) {
    join(o.dgamma, scratch, begin, end);
    if (o.dbeta) join(o.dbeta, scratch + o.columns, begin, end);
  });
}

void softmax(const Context& cx, const tesra_softmax& o) {
  over_rows(cx, o.rows, o.columns,
            [&](int64_t row, int64_t rows) { cx.kernels->transformer.softmax(o, row, rows); });
}

void softmax_grad(const Context& cx, const tesra_softmax& o) {
  over_rows(cx, o.rows, o.columns,
            [&](int64_t row, int64_t rows) { cx.kernels->transformer.softmax_grad(o, row, rows); });
}

}  // namespace tesra
