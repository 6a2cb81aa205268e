// Owns: the fp32 product: packing, blocking over caches and threads.
// A task is one panel of B (a few vectors wide) against a range of rows. It packs the panel chunk by
// chunk into its thread's own buffer, which then stays in L2 for all its rows; packing all of B
// first cost a quarter of the time of a 128-row batch. A is read in place, except that a transposed
// A is first copied into row tiles. Which thread computes which block changes no bit.
#include <cstring>

#include "cpu.h"

namespace tesra {
namespace {

// Rows a task takes at least, where there are as many: packing is then under 5 % of its work.
constexpr int64_t kRowsATask = 256;
// A transposed A is copied when it fits 16 Mi floats, else read in place, column by column.
constexpr int64_t kPackedA = int64_t{16} << 20;

struct Blocking {
  int vectors, rows;      // register tile
  int64_t panel, panels;  // columns a panel, panels in all
  bool copy_a;
};

Blocking blocking_of(const Kernels& k, const tesra_gemm& g) {
  Blocking b;
  b.vectors = static_cast<int>(smaller<int64_t>(ceil_div(g.n, k.width), k.gemm_vectors));
  const bool main_tile = b.vectors == k.gemm_vectors;
  b.rows = main_tile ? k.gemm_rows : (g.trans_a ? k.column_form : k.row_form)[b.vectors];
  b.panel = static_cast<int64_t>(b.vectors) * k.width;
  b.panels = ceil_div(g.n, b.panel);
  b.copy_a = g.trans_a && int64_t{g.m} * g.k <= kPackedA;
  return b;
}

int64_t panel_floats(const Blocking& b, const tesra_gemm& g) {
  return b.panel * smaller<int64_t>(g.k, TESRA_K_CHUNK);
}

}  // namespace

size_t gemm_scratch(const Context& cx, const tesra_gemm& g) {
  if (g.m == 0 || g.n == 0 || g.k == 0) return 0;
  const Blocking b = blocking_of(*cx.kernels, g);
  const int64_t copied = b.copy_a ? round_up(int64_t{g.m} * g.k, 16) : 0;
  return static_cast<size_t>(cx.pool->threads() * panel_floats(b, g) + copied);
}

namespace {

void without_k(const tesra_gemm& g) {
  for (int64_t i = 0; i < g.m; ++i)
    for (int64_t j = 0; j < g.n; ++j) {
      float* c = g.c + i * g.n + j;
      float s = g.accumulate ? *c : 0.0f;
      if (g.bias) s = s + g.bias[j];
      *c = g.relu ? tesra_relu(s) : s;
    }
}

// Tile t (rows of A^T) becomes [k][rows of the tile] at t * rows * K.
void copy_a(const Context& cx, const tesra_gemm& g, const Blocking& b, float* out) {
  const int64_t tiles = ceil_div(g.m, b.rows), depth = 64, steps = ceil_div(g.k, depth);
  cx.pool->run(steps, [&](int64_t step, int) {
    const int64_t k0 = step * depth, k1 = smaller<int64_t>(g.k, k0 + depth);
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t row = t * b.rows;
      const int64_t rows = smaller<int64_t>(b.rows, g.m - row);
      cx.kernels->pack_rows_tight(g.a + k0 * g.m + row, g.m, static_cast<int>(k1 - k0),
                                  static_cast<int>(rows), out + row * g.k + k0 * rows);
    }
  });
}

struct Job {
  const tesra_gemm& g;
  const Kernels& k;
  const Blocking& b;
  const float* copied_a;
};

// Columns of one panel, rows [row0, row1) (whole tiles but for the last).
void compute_panel(const Job& job, int64_t p, int64_t row0, int64_t row1, float* packed) {
  const tesra_gemm& g = job.g;
  const Kernels& k = job.k;
  const Blocking& b = job.b;
  const int64_t column = p * b.panel;
  Tile t;
  t.columns = static_cast<int>(smaller<int64_t>(b.panel, g.n - column));
  const int vectors = static_cast<int>(ceil_div(t.columns, k.width));
  const int width = vectors * k.width;
  t.b = packed;
  t.b_step = width;
  t.ldc = g.n;
  Segment segment{0, 0, 0};
  t.segments = &segment;
  t.segment_count = 1;
  for (int64_t k0 = 0; k0 < g.k; k0 += TESRA_K_CHUNK) {
    const int depth = static_cast<int>(smaller<int64_t>(TESRA_K_CHUNK, g.k - k0));
    const bool last = k0 + depth == g.k;
    if (g.trans_b)
      k.pack_transposed(g.b + column * g.k + k0, g.k, depth, t.columns, width, packed);
    else
      k.pack_rows(g.b + k0 * g.n + column, g.n, depth, t.columns, width, packed);
    segment.length = depth;
    t.load = k0 > 0 || g.accumulate;
    t.bias = last && g.bias ? g.bias + column : nullptr;
    t.relu = last && g.relu;
    for (int64_t r = row0; r < row1; r += b.rows) {
      const int rows = static_cast<int>(smaller<int64_t>(b.rows, row1 - r));
      t.c = g.c + r * g.n + column;
      if (g.trans_a) {
        t.a[0] = job.copied_a ? job.copied_a + r * g.k + k0 * rows : g.a + k0 * g.m + r;
        t.k_step = job.copied_a ? rows : g.m;
        k.by_columns[vectors][rows](t);
      } else {
        for (int i = 0; i < rows; ++i) t.a[i] = g.a + (r + i) * g.k + k0;
        t.k_step = 1;
        k.by_rows[vectors][rows](t);
      }
    }
  }
}

}  // namespace

void gemm(const Context& cx, const tesra_gemm& g, float* scratch) {
  if (g.m == 0 || g.n == 0) return;
  if (g.k == 0) return without_k(g);
  const Blocking b = blocking_of(*cx.kernels, g);
  const int64_t buffer = panel_floats(b, g);
  float* copied = nullptr;
  if (b.copy_a) {
    copied = scratch + cx.pool->threads() * buffer;
    copy_a(cx, g, b, copied);
  }
  const Job job{g, *cx.kernels, b, copied};
  const int threads = cx.pool->threads();
  int64_t rows = round_up(g.m, b.rows), blocks = 1;
  if (threads > 1) {
    // Enough tasks that the last ones leave no thread idle for long, without too narrow ranges.
    while (b.panels * blocks < 4 * threads && rows > 4 * b.rows &&
           (rows > kRowsATask || b.panels * blocks < 2 * threads)) {
      rows = round_up(ceil_div(rows, 2), b.rows);
      blocks = ceil_div(g.m, rows);
    }
  }
  cx.pool->run(b.panels * blocks, [&](int64_t task, int thread) {
    const int64_t p = task / blocks, row = task % blocks * rows;
    compute_panel(job, p, row, smaller<int64_t>(g.m, row + rows), scratch + thread * buffer);
  });
}

size_t bias_grad_scratch(const tesra_bias_grad& b) {
  return static_cast<size_t>(ceil_div(b.m, TESRA_ROW_CHUNK) * b.n);
}

void bias_grad(const Context& cx, const tesra_bias_grad& b, float* scratch) {
  const int64_t chunks = ceil_div(b.m, TESRA_ROW_CHUNK);
  if (chunks == 0) {
    std::memset(b.db, 0, sizeof(float) * static_cast<size_t>(b.n));
    return;
  }
  const int64_t group = larger<int64_t>(1, 65536 / (int64_t{TESRA_ROW_CHUNK} * larger(b.n, 1)));
  cx.pool->run(ceil_div(chunks, group), [&](int64_t task, int) {
    for (int64_t c = task * group; c < smaller(chunks, (task + 1) * group); ++c) {
      const int64_t row = c * TESRA_ROW_CHUNK;
      cx.kernels->column_sum(b.dy + row * b.n, smaller<int64_t>(TESRA_ROW_CHUNK, b.m - row), b.n,
                             scratch + c * b.n);
    }
  });
  std::memcpy(b.db, scratch, sizeof(float) * static_cast<size_t>(b.n));
  for (int64_t c = 1; c < chunks; ++c) cx.kernels->add(b.db, scratch + c * b.n, b.db, b.n);
}

}  // namespace tesra
