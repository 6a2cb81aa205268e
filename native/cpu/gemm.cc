// Owns: the fp32 product: packing, blocking over caches and threads.
// A task is a block of rows against a group of panels of B (a few vectors wide). Chunk by chunk of k, it
// packs one panel after the other into its thread's own buffer and multiplies it by all its rows: the
// block's part of A, 1 MiB, and the packed panel, 96 KiB, stay in L2, and packed B never goes to memory.
// (All of B packed ahead, for blocks of 192 rows, was written once and read back three times at 512 rows.)
// A is read in place, except that a transposed A is first copied into row tiles. Which thread
// computes which block changes no bit.
#include <cstring>

#include "cpu.h"

namespace tesra {
namespace {

// Rows of a block at most: 512 rows x a chunk of 512 floats are half of a 2 MiB L2.
constexpr int64_t kBlockRows = 512;
// Tasks a thread, so that one that is held up costs the others little; each reads its block of A again.
constexpr int64_t kTasksAThread = 6;
// A transposed A is copied when it fits 16 Mi floats, else read in place, column by column.
constexpr int64_t kPackedA = int64_t{16} << 20;

struct Blocking {
  int vectors, rows;      // register tile
  int64_t panel, panels;  // columns a panel, panels in all
  int64_t block, blocks;  // rows a task, and how many such
  int64_t group, groups;  // panels a task, and how many such
  bool copy_a;
};

Blocking blocking_of(const Context& cx, const tesra_gemm& g) {
  const Kernels& k = *cx.kernels;
  Blocking b;
  b.vectors = static_cast<int>(smaller<int64_t>(ceil_div(g.n, k.width), k.gemm_vectors));
  const bool main_tile = b.vectors == k.gemm_vectors;
  b.rows = main_tile ? k.gemm_rows : (g.trans_a ? k.column_form : k.row_form)[b.vectors];
  b.panel = static_cast<int64_t>(b.vectors) * k.width;
  b.panels = ceil_div(g.n, b.panel);
  const int64_t threads = cx.pool->threads();
  b.blocks = ceil_div(g.m, kBlockRows);
  b.block = round_up(ceil_div(g.m, b.blocks), b.rows);
  while (threads > 1 && b.panels * b.blocks < 2 * threads && b.block > 4 * b.rows) {
    b.block = round_up(ceil_div(b.block, 2), b.rows);
    b.blocks = ceil_div(g.m, b.block);
  }
  b.blocks = ceil_div(g.m, b.block);
  // A block that stays in L2 for all of k needs no group: a panel's sums then stay there, too.
  const bool resident = b.block * g.k <= kBlockRows * TESRA_K_CHUNK;
  const int64_t groups = resident       ? b.panels
                         : threads == 1 ? 1
                                        : ceil_div(kTasksAThread * threads, b.blocks);
  b.group = ceil_div(b.panels, smaller(b.panels, groups));
  b.groups = ceil_div(b.panels, b.group);
  b.copy_a = g.trans_a && int64_t{g.m} * g.k <= kPackedA;
  return b;
}

int64_t packed_floats(const Blocking& b, const tesra_gemm& g) {  // a thread
  return b.panel * smaller<int64_t>(g.k, TESRA_K_CHUNK);
}

}  // namespace

void gemm_epilogue(const Kernels& k, const tesra_gemm& g, int64_t row, int64_t column, int rows,
                   int columns) {
  const int64_t at = row * g.n + column;
  k.transformer.epilogue({g.c + at, g.saved ? g.saved + at : nullptr,
                          g.before ? g.before + at : nullptr,
                          g.residual ? g.residual + at : nullptr, g.n, rows, columns,
                          g.activation});
}

size_t gemm_scratch(const Context& cx, const tesra_gemm& g) {
  if (g.m == 0 || g.n == 0 || g.k == 0) return 0;
  const Blocking b = blocking_of(cx, g);
  const int64_t copied = b.copy_a ? round_up(int64_t{g.m} * g.k, 16) : 0;
  return static_cast<size_t>(cx.pool->threads() * packed_floats(b, g) + copied);
}

namespace {

void without_k(const Kernels& k, const tesra_gemm& g) {
  for (int64_t i = 0; i < g.m; ++i) {
    for (int64_t j = 0; j < g.n; ++j) {
      float* c = g.c + i * g.n + j;
      float s = g.accumulate ? *c : 0.0f;
      if (g.bias) s = s + g.bias[j];
      *c = s;
    }
    gemm_epilogue(k, g, i, 0, 1, g.n);
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

int panel_columns(const Job& job, int64_t p) {
  return static_cast<int>(smaller<int64_t>(job.b.panel, job.g.n - p * job.b.panel));
}

void pack_chunk(const Job& job, int64_t p, int64_t k0, int depth, float* out) {
  const tesra_gemm& g = job.g;
  const int64_t column = p * job.b.panel;
  const int columns = panel_columns(job, p);
  const int width = static_cast<int>(round_up(columns, job.k.width));
  if (g.trans_b)
    job.k.pack_transposed(g.b + column * g.k + k0, g.k, depth, columns, width, out);
  else
    job.k.pack_rows(g.b + k0 * g.n + column, g.n, depth, columns, width, out);
}

// One panel's chunk against rows [row0, row1): whole tiles but for the last.
void compute_rows(const Job& job, int64_t p, int64_t k0, int depth, const float* packed,
                  int64_t row0, int64_t row1) {
  const tesra_gemm& g = job.g;
  const Kernels& k = job.k;
  const int64_t column = p * job.b.panel;
  const bool last = k0 + depth == g.k;
  const Segment segment{0, 0, depth};
  Tile t;
  t.columns = panel_columns(job, p);
  const int vectors = static_cast<int>(ceil_div(t.columns, k.width));
  t.b = packed;
  t.b_step = static_cast<int64_t>(vectors) * k.width;
  t.ldc = g.n;
  t.segments = &segment;
  t.segment_count = 1;
  t.load = k0 > 0 || g.accumulate;
  t.bias = last && g.bias ? g.bias + column : nullptr;
  const bool more = last && has_epilogue(g);
  t.relu = last && !more && g.activation == TESRA_ACTIVATION_RELU;
  for (int64_t r = row0; r < row1; r += job.b.rows) {
    const int rows = static_cast<int>(smaller<int64_t>(job.b.rows, row1 - r));
    t.c = g.c + r * g.n + column;
    if (g.trans_a) {
      t.a[0] = job.copied_a ? job.copied_a + r * g.k + k0 * rows : g.a + k0 * g.m + r;
      t.k_step = job.copied_a ? rows : g.m;
      k.by_columns[vectors][rows](t);
      if (more) gemm_epilogue(k, g, r, column, rows, t.columns);
      continue;
    }
    for (int i = 0; i < rows; ++i) t.a[i] = g.a + (r + i) * g.k + k0;
    t.k_step = 1;
    // The next tile's rows: a few lines each set the L2 streamer going.
    const int64_t next = smaller<int64_t>(job.b.rows, row1 - r - rows);
    for (int i = 0; i < next; ++i) {
      const float* a = g.a + (r + rows + i) * g.k + k0;
      __builtin_prefetch(a, 0, 2);
      __builtin_prefetch(a + 16, 0, 2);
    }
    k.by_rows[vectors][rows](t);
    if (more) gemm_epilogue(k, g, r, column, rows, t.columns);
  }
}

template <class F>
void for_chunks(const tesra_gemm& g, const F& f) {
  for (int64_t k0 = 0; k0 < g.k; k0 += TESRA_K_CHUNK)
    f(k0, static_cast<int>(smaller<int64_t>(TESRA_K_CHUNK, g.k - k0)));
}

void multiply(const Context& cx, const Job& job, float* scratch) {
  const tesra_gemm& g = job.g;
  const Blocking& b = job.b;
  cx.pool->run(b.blocks * b.groups, [&](int64_t task, int thread) {
    const int64_t row = task / b.groups * b.block, first = task % b.groups * b.group;
    float* const packed = scratch + thread * packed_floats(b, g);
    for_chunks(g, [&](int64_t k0, int depth) {
      for (int64_t p = first; p < smaller(b.panels, first + b.group); ++p) {
        pack_chunk(job, p, k0, depth, packed);
        compute_rows(job, p, k0, depth, packed, row, smaller<int64_t>(g.m, row + b.block));
      }
    });
  });
}

}  // namespace

void gemm(const Context& cx, const tesra_gemm& g, float* scratch) {
  if (g.m == 0 || g.n == 0) return;
  if (g.k == 0) return without_k(*cx.kernels, g);
  const Blocking b = blocking_of(cx, g);
  float* copied = nullptr;
  if (b.copy_a) {
    copied = scratch + cx.pool->threads() * packed_floats(b, g);
    copy_a(cx, g, b, copied);
  }
  const Job job{g, *cx.kernels, b, copied};
  multiply(cx, job, scratch);
}

// Operands rounded to bf16 as floats, then the fp32 product: their products are exact in fp32.
size_t bf16_gemm_scratch(const Context& cx, const tesra_gemm& g) {
  const int64_t a = round_up(int64_t{g.m} * g.k, 16), b = round_up(int64_t{g.k} * g.n, 16);
  return gemm_scratch(cx, g) + static_cast<size_t>(a + b);
}

void bf16_gemm(const Context& cx, const tesra_gemm& g, float* scratch) {
  const int64_t a = int64_t{g.m} * g.k, b = int64_t{g.k} * g.n;
  float* const rounded_a = scratch + gemm_scratch(cx, g);
  float* const rounded_b = rounded_a + round_up(a, 16);
  const auto round = [&](const float* from, float* to, int64_t n) {
    parallel_ranges(cx, n, 16384, [&](int64_t i, int64_t e) {
      cx.kernels->round_bf16(from + i, to + i, e - i);
    });
  };
  round(g.a, rounded_a, a);
  round(g.b, rounded_b, b);
  tesra_gemm plain = g;
  plain.a = rounded_a;
  plain.b = rounded_b;
  gemm(cx, plain, scratch);
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
