// Owns: exact-int: cutting both operands into packed int8 slices, and the products of the slices
// joined to fp32. Rows of op(A) and columns of op(B) are cut alike: a run of k, copied together
// first where it does not lie so.
// A run of A holds its slices first to last, a run of B last to first: then the products of one
// order are one product over a longer k, of the first slices of A and the last of B.
#include <cstring>

#include "int8.h"

namespace tesra {
namespace {

// Slices start at multiples of this, which every kernel's depth divides.
constexpr int32_t kSliceAlignment = 64;

int32_t longest_chunk(const tesra_gemm& g) {
  return static_cast<int32_t>(
      round_up(smaller<int32_t>(g.k, TESRA_EXACT_K_CHUNK), kSliceAlignment));
}

// Where everything lies in the scratch; offsets in bytes, for the longest chunk of k.
struct Layout {
  Layout(const Context& cx, const tesra_exact_gemm& e)
      : k(cx.kernels->int8),
        slice(longest_chunk(e.gemm)),
        packing(k, e.slices * slice, slice),
        groups(ceil_div(e.gemm.m, k.rows)),
        panels(ceil_div(e.gemm.n, kInt8Columns)) {
    const auto place = [&](size_t bytes) {
      const size_t at = total;
      total += static_cast<size_t>(round_up(static_cast<int64_t>(bytes), 64));
      return at;
    };
    a = place(groups * packing.group);
    b = place(panels * packing.panel);
    row_scales = place(groups * k.rows * sizeof(double));
    column_scales = place(panels * kInt8Columns * sizeof(double));
    const size_t most = static_cast<size_t>(larger<int64_t>(k.rows, kInt8Columns));
    slices_bytes = most * static_cast<size_t>(e.slices * slice);
    own_bytes = slices_bytes + most * static_cast<size_t>(slice) * sizeof(float);
    own = place(static_cast<size_t>(cx.pool->threads()) * own_bytes);
  }
  const Int8Kernels& k;
  const int32_t slice;
  const Int8Packing packing;
  const int64_t groups, panels;
  size_t total = 0, a, b, row_scales, column_scales, own, own_bytes, slices_bytes;
};

// `count` runs of `depth` floats: run r at from + r * apart, its elements `step` floats apart, where
// one of both is 1.
struct Runs {
  const float* from;
  int64_t apart, step;
  int count;
  int32_t depth;
};

// Slice s of run r to out + r * slices * slice + s * plane, zero from depth to slice; scales[run].
void cut_runs(const Kernels& k, const Runs& runs, int slices, int32_t slice, int8_t* out,
              int64_t plane, float* gathered, double* scales) {
  const float* from = runs.from;
  int64_t apart = runs.apart;
  if (runs.step != 1) {
    k.pack_transposed(runs.from, runs.step, runs.count, runs.depth, runs.depth, gathered);
    from = gathered;
    apart = runs.depth;
  }
  const size_t left = static_cast<size_t>(slice - runs.depth);
  for (int r = 0; r < runs.count; ++r, out += int64_t{slices} * slice) {
    scales[r] = k.slices.cut(from + r * apart, runs.depth, slices, out, plane);
    for (int s = 0; left && s < slices; ++s) std::memset(out + s * plane + runs.depth, 0, left);
  }
}

}  // namespace

size_t exact_gemm_scratch(const Context& cx, const tesra_exact_gemm& e) {
  if (e.gemm.m == 0 || e.gemm.n == 0 || e.gemm.k == 0) return 0;
  return (Layout(cx, e).total + 3) / 4;
}

void exact_gemm(const Context& cx, const tesra_exact_gemm& e, float* scratch) {
  const tesra_gemm& g = e.gemm;
  if (g.m == 0 || g.n == 0 || g.k == 0) return gemm(cx, g, scratch);
  const Layout at(cx, e);
  const Int8Kernels& k = at.k;
  const Int8Packing& p = at.packing;
  const int64_t slice = at.slice, run = e.slices * slice;
  uint8_t* const base = reinterpret_cast<uint8_t*>(scratch);
  double* const row_scales = reinterpret_cast<double*>(base + at.row_scales);
  double* const column_scales = reinterpret_cast<double*>(base + at.column_scales);
  for (int32_t k0 = 0; k0 < g.k; k0 += TESRA_EXACT_K_CHUNK) {
    const int32_t depth = smaller<int32_t>(TESRA_EXACT_K_CHUNK, g.k - k0);
    const bool first = k0 == 0, last = k0 + depth == g.k;
    cx.pool->run(at.groups + at.panels, [&](int64_t task, int thread) {
      uint8_t* const own = base + at.own + static_cast<size_t>(thread) * at.own_bytes;
      int8_t* const runs = reinterpret_cast<int8_t*>(own);
      float* const gathered = reinterpret_cast<float*>(own + at.slices_bytes);
      if (task < at.groups) {
        const int64_t row = task * k.rows;
        const int rows = static_cast<int>(smaller<int64_t>(k.rows, g.m - row));
        uint8_t* const group = base + at.a + task * p.group;
        cut_runs(*cx.kernels,
                 g.trans_a ? Runs{g.a + int64_t{k0} * g.m + row, 1, g.m, rows, depth}
                           : Runs{g.a + row * g.k + k0, g.k, 1, rows, depth},
                 e.slices, at.slice, k.in_place ? reinterpret_cast<int8_t*>(group) : runs, slice,
                 gathered, row_scales + row);
        if (!k.in_place) k.pack_a(runs, run, rows, static_cast<int32_t>(run), group);
        return;
      }
      const int64_t j = task - at.groups, column = j * kInt8Columns;
      const int columns = static_cast<int>(smaller<int64_t>(kInt8Columns, g.n - column));
      uint8_t* const panel = base + at.b + j * p.panel;
      cut_runs(*cx.kernels,
               g.trans_b ? Runs{g.b + column * g.k + k0, g.k, 1, columns, depth}
                         : Runs{g.b + int64_t{k0} * g.n + column, 1, g.n, columns, depth},
               e.slices, at.slice, runs + (e.slices - 1) * slice, -slice, gathered,
               column_scales + column);
      // The factor 2^-7 for each order that the join multiplies up goes in here.
      for (int c = 0; c < kInt8Columns; ++c)
        column_scales[column + c] =
            c < columns ? column_scales[column + c] * (e.slices == 2 ? 0x1p-7 : 0x1p-14) : 0;
      k.pack_b(runs, run, columns, static_cast<int32_t>(run), at.slice, panel,
               p.corrections(panel));
    });
    int8_for_tiles(cx, at.groups, at.panels, p.panel, [&](int64_t i, int64_t j, int) {
      const uint8_t* const panel = base + at.b + j * p.panel;
      alignas(64) int32_t sums[kSlicesMax][32 * kInt8Columns];
      for (int order = 0; order < e.slices; ++order) {
        const int64_t skipped = e.slices - 1 - order;  // slices of B
        Int8Tile t = int8_tile(p, base + at.a + i * p.group, panel,
                               static_cast<int32_t>((order + 1) * slice));
        t.b = panel + skipped * slice * kInt8Columns * k.element_bytes;
        t.correction += skipped * kInt8Columns;
        if (k.in_place) {
          t.a_row = run;
          t.a_step = k.depth;
        }
        t.c = sums[order];
        t.ldc = kInt8Columns;
        k.tile(t);
      }
      const int64_t row = i * k.rows, column = j * kInt8Columns;
      const int64_t rows = smaller<int64_t>(k.rows, g.m - row);
      SliceJoin join;
      join.slices = e.slices;
      join.column_scales = column_scales + column;
      join.bias = last && g.bias ? g.bias + column : nullptr;
      join.columns = static_cast<int>(smaller<int64_t>(kInt8Columns, g.n - column));
      join.load = !first || g.accumulate;
      const bool more = last && has_epilogue(g);
      join.relu = last && !more && g.activation == TESRA_ACTIVATION_RELU;
      for (int64_t r = 0; r < rows; ++r) {
        for (int s = 0; s < e.slices; ++s) join.sums[s] = sums[s] + r * kInt8Columns;
        join.c = g.c + (row + r) * g.n + column;
        cx.kernels->slices.join(join, row_scales[row + r]);
      }
      if (more)
        gemm_epilogue(*cx.kernels, g, row, column, static_cast<int>(rows), join.columns);
    });
  }
}

}  // namespace tesra
