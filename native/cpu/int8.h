// Owns: what the users of the int8 tiles share: sizes of packed operands and the walk over tiles.
// Invariant: integer sums, so packing, order and threads change no bit.
#pragma once
#include "cpu.h"

namespace tesra {

// Bytes of the packed operands of one product. A panel carries its corrections behind it.
struct Int8Packing {
  Int8Packing(const Int8Kernels& k, int32_t depth, int32_t chunk_) : chunk(chunk_) {
    const int64_t packed = round_up(depth, k.depth) * k.element_bytes;
    group = static_cast<size_t>(round_up(packed * k.rows, 64));
    correction = static_cast<size_t>(round_up(packed * kInt8Columns, 64));
    panel = correction + static_cast<size_t>(ceil_div(depth, chunk)) * kInt8Columns * 4;
  }
  int32_t chunk;
  size_t group, panel, correction;

  int32_t* corrections(void* packed) const {
    return reinterpret_cast<int32_t*>(static_cast<uint8_t*>(packed) + correction);
  }
  const int32_t* corrections(const void* packed) const {
    return reinterpret_cast<const int32_t*>(static_cast<const uint8_t*>(packed) + correction);
  }
};

// What a tile of whole depth needs beside its operands.
inline Int8Tile int8_tile(const Int8Packing& p, const void* a, const void* b, int32_t k) {
  Int8Tile t;
  t.a = a;
  t.a_row = 64;
  t.a_step = 2048;
  t.b = b;
  t.correction = p.corrections(b);
  t.k = k;
  t.chunk = p.chunk;
  t.x = nullptr;
  t.x_stride = 0;
  t.c = nullptr;
  t.ldc = 0;
  return t;
}

// Panels that stay in L2 (768 KiB of them) while the groups pass by, each held in L1 for all of them:
// neighbouring tiles then write neighbouring columns, on the pages of one group's rows.
constexpr int64_t kInt8BlockBytes = 768 << 10;

// body(group, panel, thread) for every tile.
template <class F>
void int8_for_tiles(const Context& cx, int64_t groups, int64_t panels, size_t panel_bytes,
                    const F& body) {
  const Int8Kernels& k = cx.kernels->int8;
  const int threads = cx.pool->threads();
  const int64_t fit = kInt8BlockBytes / static_cast<int64_t>(panel_bytes);
  const int64_t block = larger<int64_t>(1, smaller(panels, fit)), blocks = ceil_div(panels, block);
  const int64_t parts = threads == 1 ? 1 : smaller(groups, ceil_div(4 * threads, blocks));
  cx.pool->run(blocks * parts, [&](int64_t task, int thread) {
    const int64_t p0 = task / parts * block, p1 = smaller(panels, p0 + block);
    const int64_t g0 = task % parts * groups / parts, g1 = (task % parts + 1) * groups / parts;
    if (k.begin) k.begin();
    for (int64_t g = g0; g < g1; ++g)
      for (int64_t p = p0; p < p1; ++p) body(g, p, thread);
    if (k.end) k.end();
  });
}

}  // namespace tesra
