// Owns: the fp32 product: packing, blocking over caches and threads.
// B is packed once into panels of a few vectors; A is read in place, or copied panel by panel when
// it is stored transposed. Which thread computes which block changes no bit.
#include <cstring>

#include "cpu.h"

namespace tesra {
namespace {

// Rows of C a task works through while one B panel chunk stays in L2.
constexpr int kBlockRows = 96;
// Packed B at a time: 4 Mi floats, so that scratch stays bounded for any shape.
constexpr int64_t kPackedFloats = int64_t{4} << 20;

struct Blocking {
  int vectors, rows;      // register tile
  int64_t panel, panels;  // columns a panel, panels in all
  int64_t slab;           // panels packed at a time
};

Blocking blocking_of(const Kernels& k, const tesra_gemm& g) {
  Blocking b;
  const int need = static_cast<int>(smaller<int64_t>(ceil_div(g.n, k.width), k.gemm_vectors));
  b.vectors = need;
  b.rows = need == k.gemm_vectors ? k.gemm_rows : (g.trans_a ? k.column_form : k.row_form)[need];
  b.panel = static_cast<int64_t>(b.vectors) * k.width;
  b.panels = ceil_div(g.n, b.panel);
  const int64_t floats = larger<int64_t>(1, b.panel * g.k);
  b.slab = larger<int64_t>(1, smaller(b.panels, kPackedFloats / floats));
  return b;
}

}  // namespace

size_t gemm_scratch(const Context& cx, const tesra_gemm& g) {
  if (g.m == 0 || g.n == 0 || g.k == 0) return 0;
  const Blocking b = blocking_of(*cx.kernels, g);
  size_t floats = static_cast<size_t>(b.slab * b.panel * g.k);
  if (g.trans_a)
    floats += static_cast<size_t>(cx.pool->threads()) * TESRA_K_CHUNK * (kBlockRows + 16);
  return floats;
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

// Copies rows [row, row + rows) of a transposed A (k x m) as [block][k][block rows].
void pack_block(const tesra_gemm& g, int64_t row, int rows, int tile_rows, int64_t k0, int depth,
                float* out) {
  for (int r = 0; r < rows; r += tile_rows) {
    const int count = smaller(tile_rows, rows - r);
    const float* from = g.a + k0 * g.m + row + r;
    for (int k = 0; k < depth; ++k, from += g.m, out += count)
      std::memcpy(out, from, sizeof(float) * static_cast<size_t>(count));
  }
}

struct Job {
  const tesra_gemm& g;
  const Kernels& k;
  const Blocking& b;
  const float* packed;
  int64_t first_panel;
};

void compute_block(const Job& job, int64_t row0, int64_t row1, int64_t panel0, int64_t panel1,
                   float* a_scratch) {
  const tesra_gemm& g = job.g;
  const Kernels& k = job.k;
  const Blocking& b = job.b;
  for (int64_t k0 = 0; k0 < g.k; k0 += TESRA_K_CHUNK) {
    const int depth = static_cast<int>(smaller<int64_t>(TESRA_K_CHUNK, g.k - k0));
    const bool last = k0 + depth == g.k;
    if (g.trans_a)
      pack_block(g, row0, static_cast<int>(row1 - row0), b.rows, k0, depth, a_scratch);
    for (int64_t p = panel0; p < panel1; ++p) {
      const int64_t column = (job.first_panel + p) * b.panel;
      const int columns = static_cast<int>(smaller<int64_t>(b.panel, g.n - column));
      const int vectors = static_cast<int>(ceil_div(columns, k.width));
      const int64_t b_step = static_cast<int64_t>(vectors) * k.width;
      Segment segment{0, 0, depth};
      Tile t;
      t.b = job.packed + p * b.panel * g.k + k0 * b_step;
      t.segments = &segment;
      t.segment_count = 1;
      t.b_step = b_step;
      t.ldc = g.n;
      t.columns = columns;
      t.load = k0 > 0 || g.accumulate;
      t.bias = last && g.bias ? g.bias + column : nullptr;
      t.relu = last && g.relu;
      for (int64_t r = row0; r < row1; r += b.rows) {
        const int rows = static_cast<int>(smaller<int64_t>(b.rows, row1 - r));
        t.c = g.c + r * g.n + column;
        if (g.trans_a) {
          t.a[0] = a_scratch + (r - row0) * depth;
          t.k_step = rows;
          k.by_columns[vectors][rows](t);
        } else {
          for (int i = 0; i < rows; ++i) t.a[i] = g.a + (r + i) * g.k + k0;
          t.k_step = 1;
          k.by_rows[vectors][rows](t);
        }
      }
    }
  }
}

}  // namespace

void gemm(const Context& cx, const tesra_gemm& g, float* scratch) {
  if (g.m == 0 || g.n == 0) return;
  if (g.k == 0) return without_k(g);
  const Kernels& k = *cx.kernels;
  const Blocking b = blocking_of(k, g);
  float* a_scratch = scratch + b.slab * b.panel * g.k;
  for (int64_t first = 0; first < b.panels; first += b.slab) {
    const int64_t panels = smaller(b.slab, b.panels - first);
    const int64_t chunks = ceil_div(g.k, TESRA_K_CHUNK);
    cx.pool->run(panels * chunks, [&](int64_t task, int) {
      const int64_t p = task / chunks, k0 = task % chunks * TESRA_K_CHUNK;
      const int64_t column = (first + p) * b.panel;
      const int columns = static_cast<int>(smaller<int64_t>(b.panel, g.n - column));
      const int width = static_cast<int>(round_up(columns, k.width));
      const int depth = static_cast<int>(smaller<int64_t>(TESRA_K_CHUNK, g.k - k0));
      float* out = scratch + p * b.panel * g.k + k0 * width;
      if (g.trans_b) k.pack_transposed(g.b + column * g.k + k0, g.k, depth, columns, width, out);
      else k.pack_rows(g.b + k0 * g.n + column, g.n, depth, columns, width, out);
    });
    // Blocks of whole register tiles; more and narrower ones until every thread has some.
    const int threads = cx.pool->threads();
    int64_t block = smaller<int64_t>(kBlockRows / b.rows * b.rows, round_up(g.m, b.rows));
    int64_t row_blocks = ceil_div(g.m, block), groups = 1;
    const int64_t wanted = threads == 1 ? 1 : 3 * threads;
    while (row_blocks * groups < wanted && groups * 2 <= panels) groups *= 2;
    while (row_blocks * groups < wanted && block > 2 * b.rows) {
      block = round_up(block / 2, b.rows);
      row_blocks = ceil_div(g.m, block);
    }
    const int64_t group = ceil_div(panels, groups);
    groups = ceil_div(panels, group);
    const Job job{g, k, b, scratch, first};
    cx.pool->run(row_blocks * groups, [&](int64_t task, int thread) {
      const int64_t r = task / groups * block, p = task % groups * group;
      compute_block(job, r, smaller<int64_t>(g.m, r + block), p, smaller(panels, p + group),
                    a_scratch + static_cast<int64_t>(thread) * TESRA_K_CHUNK * (kBlockRows + 16));
    });
  }
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
