// Owns: the int8 product. B is packed into panels; A into groups of rows, or read in place where the
// kernel can and the group is whole.
#include <cstring>

#include "int8.h"

namespace tesra {

void int8_gemm(const Context& cx, const tesra_int8_gemm& g) {
  if (g.m == 0 || g.n == 0) return;
  if (g.k == 0) {
    std::memset(g.c, 0, sizeof(int32_t) * static_cast<size_t>(g.m) * g.n);
    return;
  }
  const Int8Kernels& k = cx.kernels->int8;
  const Int8Packing p(k, g.k, g.k);
  const int64_t groups = ceil_div(g.m, k.rows), panels = ceil_div(g.n, kInt8Columns);
  const bool in_place = k.in_place && g.k % k.depth == 0;
  const int64_t first_packed = in_place ? g.m / k.rows : 0;
  uint8_t* const b = static_cast<uint8_t*>(
      cx.workspace->take(p.panel * panels + p.group * (groups - first_packed)));
  uint8_t* const a = b + p.panel * panels;
  cx.pool->run(panels, [&](int64_t j, int) {
    const int64_t column = j * kInt8Columns;
    uint8_t* to = b + j * p.panel;
    k.pack_b(g.bt + column * g.k, g.k, static_cast<int>(smaller<int64_t>(kInt8Columns, g.n - column)),
             g.k, g.k, to, p.corrections(to));
  });
  cx.pool->run(groups - first_packed, [&](int64_t i, int) {
    const int64_t row = (first_packed + i) * k.rows;
    k.pack_a(g.a + row * g.k, g.k, static_cast<int>(smaller<int64_t>(k.rows, g.m - row)), g.k,
             a + i * p.group);
  });
  int8_for_tiles(cx, groups, panels, p.panel, [&](int64_t i, int64_t j, int) {
    const int64_t row = i * k.rows, column = j * kInt8Columns;
    const int64_t rows = smaller<int64_t>(k.rows, g.m - row);
    const int64_t columns = smaller<int64_t>(kInt8Columns, g.n - column);
    Int8Tile t = int8_tile(p, a + (i - first_packed) * p.group, b + j * p.panel, g.k);
    if (i < first_packed) {
      t.a = g.a + row * g.k;
      t.a_row = g.k;
      t.a_step = k.depth;
    }
    alignas(64) int32_t whole[32 * kInt8Columns];
    const bool is_whole = rows == k.rows && columns == kInt8Columns;
    t.c = is_whole ? g.c + row * g.n + column : whole;
    t.ldc = is_whole ? g.n : kInt8Columns;
    k.tile(t);
    if (is_whole) return;
    for (int64_t r = 0; r < rows; ++r)
      std::memcpy(g.c + (row + r) * g.n + column, whole + r * kInt8Columns,
                  sizeof(int32_t) * static_cast<size_t>(columns));
  });
}

}  // namespace tesra
