// Owns: softmax cross-entropy over ranges of rows, and the count of right answers.
#include "cpu.h"

namespace tesra {
namespace {

constexpr int64_t kRowsATask = 32;

}  // namespace

size_t softmax_xent_scratch(const tesra_softmax_xent& s) { return static_cast<size_t>(s.rows); }

void softmax_xent(const Context& cx, const tesra_softmax_xent& s, float* losses) {
  if (s.rows == 0) {
    s.loss[0] = 0.0f;
    return;
  }
  const float inverse = 1.0f / static_cast<float>(s.rows);
  cx.pool->run(ceil_div(s.rows, kRowsATask), [&](int64_t task, int) {
    const int64_t row = task * kRowsATask;
    const int32_t rows = static_cast<int32_t>(smaller<int64_t>(kRowsATask, s.rows - row));
    cx.kernels->softmax_rows(s.logits + row * s.classes, s.labels + row,
                             s.dlogits ? s.dlogits + row * s.classes : nullptr, losses + row, rows,
                             s.classes, inverse);
  });
  float sum = 0.0f;
  for (int64_t i = 0; i < s.rows; i += TESRA_FLAT_CHUNK) {
    const float part =
        cx.kernels->flat_sum(losses + i, smaller<int64_t>(TESRA_FLAT_CHUNK, s.rows - i));
    sum = i == 0 ? part : sum + part;
  }
  s.loss[0] = sum / static_cast<float>(s.rows);
}

void count_correct(const Context&, const tesra_count_correct& c) {
  int64_t right = 0;
  for (int64_t r = 0; r < c.rows; ++r) {
    const float* x = c.logits + r * c.classes;
    int32_t best = 0;
    for (int32_t j = 1; j < c.classes; ++j)
      if (x[j] > x[best]) best = j;
    right += best == c.labels[r];
  }
  c.count[0] = static_cast<float>(right);
}

}  // namespace tesra
