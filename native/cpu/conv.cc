// Owns: convolution on the register tiles of gemm.cc without an im2col matrix: the tiles read the
// (zero-padded) images in place through lists of segments.
#include <cstring>

#include "cpu.h"

namespace tesra {
namespace {

constexpr int kBlockRows = 96;
// Chunk sums of a weight gradient held at a time: 2 Mi floats.
constexpr int64_t kPartialFloats = int64_t{2} << 20;

struct Panels {
  int vectors;
  int64_t width, count, padded;  // floats a panel, panels, all columns rounded up to vectors
};

Panels panels_of(const Kernels& k, int64_t columns) {
  Panels p;
  p.vectors = static_cast<int>(smaller<int64_t>(ceil_div(columns, k.width), k.gemm_vectors));
  p.width = static_cast<int64_t>(p.vectors) * k.width;
  p.count = ceil_div(columns, p.width);
  p.padded = round_up(columns, k.width);
  return p;
}

int64_t padded_h(const tesra_conv& c) { return c.h + 2 * static_cast<int64_t>(c.pad_h); }
int64_t padded_w(const tesra_conv& c) { return c.w_ + 2 * static_cast<int64_t>(c.pad_w); }
bool is_padded(const tesra_conv& c) { return c.pad_h != 0 || c.pad_w != 0; }
int64_t padded_floats(const tesra_conv& c) {
  return is_padded(c) ? round_up(c.n * padded_h(c) * padded_w(c) * c.c, 16) : 0;
}

// The images themselves, or a copy with zeros around each.
const float* pad_images(const Context& cx, const tesra_conv& c, float* out) {
  if (!is_padded(c)) return c.x;
  const int64_t hp = padded_h(c), wp = padded_w(c), row = wp * c.c;
  cx.pool->run(c.n, [&](int64_t n, int) {
    float* to = out + n * hp * row;
    std::memset(to, 0, sizeof(float) * static_cast<size_t>(c.pad_h * row));
    to += c.pad_h * row;
    const size_t side = sizeof(float) * static_cast<size_t>(c.pad_w) * c.c;
    const size_t line = sizeof(float) * static_cast<size_t>(c.w_) * c.c;
    for (int64_t y = 0; y < c.h; ++y, to += row) {
      std::memset(to, 0, side);
      std::memcpy(to + c.pad_w * c.c, c.x + (n * c.h + y) * c.w_ * c.c, line);
      std::memset(to + (c.pad_w + c.w_) * c.c, 0, side);
    }
    std::memset(to, 0, sizeof(float) * static_cast<size_t>(c.pad_h * row));
  });
  return out;
}

// Packs `depth` rows of a row-major matrix into panels: panel p at p * width * depth.
void pack_matrix(const Kernels& k, const Panels& p, const float* b, int64_t ldb, int64_t depth,
                 int64_t columns, bool transposed, float* out, int64_t out_row = 0,
                 int64_t out_depth = -1) {
  if (out_depth < 0) out_depth = depth;
  for (int64_t i = 0; i < p.count; ++i) {
    const int64_t column = i * p.width;
    const int n = static_cast<int>(smaller(p.width, columns - column));
    const int width = static_cast<int>(round_up(n, k.width));
    float* to = out + i * p.width * out_depth + out_row * width;
    if (transposed) k.pack_transposed(b + column * ldb, ldb, static_cast<int>(depth), n, width, to);
    else k.pack_rows(b + column, ldb, static_cast<int>(depth), n, width, to);
  }
}

// The segments of one K chunk: none is empty, so a chunk holds at most as many as k.
struct SegmentList {
  Segment items[TESRA_K_CHUNK + 1];
  int count = 0;
};

}  // namespace

// ---------------------------------------------------------------- forward

size_t conv_scratch(const Context& cx, const tesra_conv& c) {
  const Panels p = panels_of(*cx.kernels, c.oc);
  const int64_t k = int64_t{c.kh} * c.kw * c.c;
  return static_cast<size_t>(padded_floats(c) + p.padded * k);
}

void conv_forward(const Context& cx, const tesra_conv& c, float* scratch) {
  const Kernels& k = *cx.kernels;
  const int64_t rows = int64_t{c.n} * c.oh * c.ow;
  if (rows == 0 || c.oc == 0) return;
  const float* x = pad_images(cx, c, scratch);
  float* packed = scratch + padded_floats(c);
  const Panels p = panels_of(k, c.oc);
  const int64_t depth = int64_t{c.kh} * c.kw * c.c, line = int64_t{c.kw} * c.c;
  pack_matrix(k, p, c.w, c.oc, depth, c.oc, false, packed);
  const int64_t hp = padded_h(c), wp = padded_w(c);
  // One channel, stride 1: neighbouring output pixels read neighbouring floats, so a tile needs one
  // pointer instead of one a row (three times as fast on the first layer of a LeNet).
  const bool side_by_side = c.c == 1 && c.stride_w == 1;
  const int most = side_by_side ? k.column_form[p.vectors] : k.row_form[p.vectors];
  const int64_t block = side_by_side ? c.ow : kBlockRows / most * most;
  const int64_t pieces = ceil_div(side_by_side ? c.ow : block, most);
  const int64_t step = side_by_side ? ceil_div(c.ow, pieces) : most;
  const int64_t blocks_a_task = side_by_side ? larger<int64_t>(1, kBlockRows / c.ow) : 1;
  auto run_block = [&](int64_t row0, int64_t row1) {
    const float* from[kBlockRows];
    for (int64_t r = row0; r < row1; r += side_by_side ? c.ow : 1) {
      const int64_t n = r / (int64_t{c.oh} * c.ow), o = r % (int64_t{c.oh} * c.ow);
      const int64_t i = o / c.ow, j = o % c.ow;
      from[r - row0] = x + ((n * hp + i * c.stride_h) * wp + j * c.stride_w) * c.c;
    }
    SegmentList list;
    for (int64_t k0 = 0; k0 < depth; k0 += TESRA_K_CHUNK) {
      const int64_t k1 = smaller<int64_t>(depth, k0 + TESRA_K_CHUNK);
      list.count = 0;
      for (int64_t at = k0; at < k1;) {
        const int64_t tap = at / line, offset = at % line;
        const int64_t length = smaller(line - offset, k1 - at);
        list.items[list.count++] = {tap * wp * c.c + offset, 0, static_cast<int32_t>(length)};
        at += length;
      }
      for (int64_t q = 0; q < p.count; ++q) {
        const int64_t column = q * p.width;
        Tile t;
        t.columns = static_cast<int32_t>(smaller(p.width, c.oc - column));
        const int vectors = static_cast<int>(ceil_div(t.columns, k.width));
        t.b_step = static_cast<int64_t>(vectors) * k.width;
        t.b = packed + q * p.width * depth;
        int64_t at = k0;
        for (int s = 0; s < list.count; ++s) {
          list.items[s].b_offset = at * t.b_step;
          at += list.items[s].length;
        }
        t.segments = list.items;
        t.segment_count = list.count;
        t.k_step = 1;
        t.ldc = c.oc;
        t.load = k0 > 0;
        t.bias = k1 == depth && c.bias ? c.bias + column : nullptr;
        t.relu = k1 == depth && c.relu;
        for (int64_t r = row0; r < row1; r += step) {
          const int count = static_cast<int>(smaller<int64_t>(step, row1 - r));
          t.c = c.out + r * c.oc + column;
          if (side_by_side) {
            t.a[0] = from[0] + (r - row0);
            k.by_columns[vectors][count](t);
          } else {
            for (int i = 0; i < count; ++i) t.a[i] = from[r - row0 + i];
            k.by_rows[vectors][count](t);
          }
        }
      }
    }
  };
  cx.pool->run(ceil_div(rows, block * blocks_a_task), [&](int64_t task, int) {
    for (int64_t b = task * blocks_a_task; b < (task + 1) * blocks_a_task; ++b)
      if (b * block < rows) run_block(b * block, smaller(rows, (b + 1) * block));
  });
}

// ---------------------------------------------------------------- input gradient

size_t conv_dx_scratch(const Context& cx, const tesra_conv& c) {
  const Panels p = panels_of(*cx.kernels, c.c);
  return static_cast<size_t>(p.padded * c.kh * c.kw * c.oc);
}

// The rows of a tile are the same pixel of different images, so that all of them share one list of
// taps that fall inside, and none is multiplied by padding.
void conv_dx(const Context& cx, const tesra_conv& c, float* packed) {
  const Kernels& k = *cx.kernels;
  if (int64_t{c.n} * c.h * c.w_ * c.c == 0) return;
  const Panels p = panels_of(k, c.c);
  const int64_t taps = int64_t{c.kh} * c.kw, depth = taps * c.oc;
  for (int64_t tap = 0; tap < taps; ++tap)  // w[tap] is c x oc; the product needs oc x c
    pack_matrix(k, p, c.w + tap * c.c * c.oc, c.oc, c.oc, c.c, true, packed, tap * c.oc, depth);
  const int most = k.row_form[p.vectors];
  const int64_t blocks = ceil_div(c.n, most);
  const int64_t image_in = int64_t{c.oh} * c.ow * c.oc, image_out = int64_t{c.h} * c.w_ * c.c;
  cx.pool->run(blocks * c.h, [&](int64_t task, int) {
    const int64_t n0 = task / c.h * most, h = task % c.h;
    const int count = static_cast<int>(smaller<int64_t>(most, c.n - n0));
    Tile t;
    for (int i = 0; i < count; ++i) t.a[i] = c.dy + (n0 + i) * image_in;
    t.k_step = 1;
    t.ldc = image_out;
    t.bias = nullptr;
    t.relu = false;
    SegmentList list;
    t.segments = list.items;
    for (int64_t w = 0; w < c.w_; ++w)
      for (int64_t q = 0; q < p.count; ++q) {
        const int64_t column = q * p.width;
        t.columns = static_cast<int32_t>(smaller(p.width, c.c - column));
        const int vectors = static_cast<int>(ceil_div(t.columns, k.width));
        t.b_step = static_cast<int64_t>(vectors) * k.width;
        t.b = packed + q * p.width * depth;
        t.c = c.out + (n0 * c.h + h) * c.w_ * c.c + w * c.c + column;
        t.load = false;
        list.count = 0;
        int64_t chunk = 0;
        auto flush = [&](bool force) {
          if (list.count == 0 && !(force && !t.load)) return;
          t.segment_count = list.count;
          k.by_rows[vectors][count](t);
          t.load = true;
          list.count = 0;
        };
        for (int64_t i = 0; i < c.kh; ++i) {
          const int64_t y = h + c.pad_h - i;
          if (y < 0 || y % c.stride_h != 0 || y / c.stride_h >= c.oh) continue;
          for (int64_t j = 0; j < c.kw; ++j) {
            const int64_t z = w + c.pad_w - j;
            if (z < 0 || z % c.stride_w != 0 || z / c.stride_w >= c.ow) continue;
            const int64_t pixel = (y / c.stride_h * c.ow + z / c.stride_w) * c.oc;
            int64_t at = (i * c.kw + j) * c.oc;
            const int64_t end = at + c.oc;
            const int64_t base = pixel - at;
            while (at < end) {
              if (at / TESRA_K_CHUNK != chunk) {
                flush(false);
                chunk = at / TESRA_K_CHUNK;
              }
              const int64_t stop = smaller<int64_t>(end, (chunk + 1) * TESRA_K_CHUNK);
              list.items[list.count++] = {base + at, at * t.b_step,
                                          static_cast<int32_t>(stop - at)};
              at = stop;
            }
          }
        }
        flush(true);
      }
  });
}

// ---------------------------------------------------------------- weight gradient

namespace {

struct WeightGrad {
  Panels p;
  int64_t k, m, chunks, wave;  // k = n*oh*ow, m = kh*kw*c
  bool direct;                 // dY rows are whole vectors: no packing
};

WeightGrad weight_grad_of(const Context& cx, const tesra_conv& c) {
  WeightGrad g;
  g.p = panels_of(*cx.kernels, c.oc);
  g.k = int64_t{c.n} * c.oh * c.ow;
  g.m = int64_t{c.kh} * c.kw * c.c;
  g.chunks = ceil_div(g.k, TESRA_K_CHUNK);
  const int64_t fit = larger<int64_t>(1, kPartialFloats / larger<int64_t>(1, g.m * c.oc));
  g.wave = larger<int64_t>(1, smaller(g.chunks, larger<int64_t>(fit, cx.pool->threads())));
  g.direct = c.oc % cx.kernels->width == 0;
  return g;
}

}  // namespace

size_t conv_dw_scratch(const Context& cx, const tesra_conv& c) {
  const WeightGrad g = weight_grad_of(cx, c);
  return static_cast<size_t>(padded_floats(c) + round_up(g.wave * g.m * c.oc, 16) +
                             (g.direct ? 0 : cx.pool->threads() * TESRA_K_CHUNK * g.p.padded));
}

// Chunks of K run in parallel into sums of their own, which are then added in order.
void conv_dw(const Context& cx, const tesra_conv& c, float* scratch) {
  const Kernels& k = *cx.kernels;
  const WeightGrad g = weight_grad_of(cx, c);
  const int64_t cells = g.m * c.oc;
  if (cells == 0) return;
  if (g.k == 0) {
    std::memset(c.out, 0, sizeof(float) * static_cast<size_t>(cells));
    return;
  }
  const float* x = pad_images(cx, c, scratch);
  float* partial = scratch + padded_floats(c);
  float* packed = partial + round_up(g.wave * cells, 16);
  const int64_t hp = padded_h(c), wp = padded_w(c), line = int64_t{c.kw} * c.c;
  const bool grid = k.grid_5x5 && c.kh == 5 && line == 5 && c.oc <= k.width;
  for (int64_t first = 0; first < g.chunks; first += g.wave) {
    const int64_t wave = smaller(g.wave, g.chunks - first);
    cx.pool->run(wave, [&](int64_t task, int thread) {
      const int64_t k0 = (first + task) * TESRA_K_CHUNK;
      const int64_t k1 = smaller<int64_t>(g.k, k0 + TESRA_K_CHUNK);
      const float* dy = c.dy + k0 * c.oc;
      float* own = packed + thread * TESRA_K_CHUNK * g.p.padded;
      if (!g.direct) pack_matrix(k, g.p, dy, c.oc, k1 - k0, c.oc, false, own);
      SegmentList list;
      for (int64_t at = k0; at < k1;) {
        const int64_t row = at / c.ow, j = at % c.ow;
        const int64_t n = row / c.oh, i = row % c.oh;
        const int64_t length = smaller<int64_t>(c.ow - j, k1 - at);
        list.items[list.count++] = {((n * hp + i * c.stride_h) * wp + j * c.stride_w) * c.c,
                                    at - k0, static_cast<int32_t>(length)};
        at += length;
      }
      float* out = partial + task * cells;
      for (int64_t q = 0; q < g.p.count; ++q) {
        const int64_t column = q * g.p.width;
        Tile t;
        t.columns = static_cast<int32_t>(smaller<int64_t>(g.p.width, c.oc - column));
        const int vectors = static_cast<int>(ceil_div(t.columns, k.width));
        const int64_t b_step = g.direct ? c.oc : static_cast<int64_t>(vectors) * k.width;
        t.b = g.direct ? dy + column : own + q * g.p.width * (k1 - k0);
        t.b_step = b_step;
        Segment items[TESRA_K_CHUNK + 1];
        for (int s = 0; s < list.count; ++s) {
          items[s] = list.items[s];
          items[s].b_offset *= b_step;
        }
        t.segments = items;
        t.segment_count = list.count;
        t.k_step = int64_t{c.stride_w} * c.c;
        t.ldc = c.oc;
        t.load = false;
        t.bias = nullptr;
        t.relu = false;
        if (grid) {
          for (int i = 0; i < 5; ++i) t.a[i] = x + i * wp * c.c;
          t.c = out + column;
          k.grid_5x5(t);
          continue;
        }
        const int64_t tiles = ceil_div(line, k.column_form[vectors]);
        for (int64_t i = 0; i < c.kh; ++i)
          for (int64_t s = 0; s < tiles; ++s) {
            const int64_t r0 = line * s / tiles, r1 = line * (s + 1) / tiles;
            t.a[0] = x + i * wp * c.c + r0;
            t.c = out + (i * line + r0) * c.oc + column;
            k.by_columns[vectors][r1 - r0](t);
          }
      }
    });
    parallel_ranges(cx, cells, 4096, [&](int64_t begin, int64_t end) {
      int64_t s = 0;
      if (first == 0) {
        std::memcpy(c.out + begin, partial + begin,
                    sizeof(float) * static_cast<size_t>(end - begin));
        s = 1;
      }
      for (; s < wave; ++s)
        k.add(c.out + begin, partial + s * cells + begin, c.out + begin, end - begin);
    });
  }
}

}  // namespace tesra
