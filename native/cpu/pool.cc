// Owns: max and average pooling and their gradients, over images in parallel.
#include <cstring>

#include "cpu.h"

namespace tesra {

void maxpool(const Context& cx, const tesra_pool& p) {
  cx.pool->run(p.n, [&](int64_t n, int) {
    for (int64_t i = 0; i < p.oh; ++i) {
      const int64_t in = (n * p.h + i * p.stride) * p.w * p.c, out = (n * p.oh + i) * p.ow * p.c;
      cx.kernels->maxpool_row(p, p.x + in, static_cast<int32_t>(in), p.out + out,
                              p.index_out + out);
    }
  });
}

void maxpool_grad(const Context& cx, const tesra_pool& p) {
  const int64_t in = int64_t{p.h} * p.w * p.c, out = int64_t{p.oh} * p.ow * p.c;
  cx.pool->run(p.n, [&](int64_t n, int) {
    float* dx = p.out + n * in;
    const float* dy = p.dy + n * out;
    const int32_t* index = p.index + n * out;
    std::memset(dx, 0, sizeof(float) * static_cast<size_t>(in));
    for (int64_t o = 0; o < out; ++o) {
      const uint64_t at = static_cast<uint64_t>(index[o] - n * in);
      if (at < static_cast<uint64_t>(in)) dx[at] = dx[at] + dy[o];
    }
  });
}

void avgpool(const Context& cx, const tesra_pool& p) {
  cx.pool->run(p.n, [&](int64_t n, int) {
    for (int64_t i = 0; i < p.oh; ++i)
      cx.kernels->avgpool_row(p, p.x + (n * p.h + i * p.stride) * p.w * p.c,
                              p.out + (n * p.oh + i) * p.ow * p.c);
  });
}

void avgpool_grad(const Context& cx, const tesra_pool& p) {
  const int64_t in = int64_t{p.h} * p.w * p.c, row = int64_t{p.w} * p.c;
  const float cells = static_cast<float>(p.kernel * p.kernel);
  cx.pool->run(p.n, [&](int64_t n, int) {
    float* dx = p.out + n * in;
    std::memset(dx, 0, sizeof(float) * static_cast<size_t>(in));
    const float* dy = p.dy + n * p.oh * p.ow * p.c;
    for (int64_t i = 0; i < p.oh; ++i)
      for (int64_t j = 0; j < p.ow; ++j, dy += p.c)
        for (int64_t y = 0; y < p.kernel; ++y)
          for (int64_t z = 0; z < p.kernel; ++z) {
            float* to = dx + (i * p.stride + y) * row + (j * p.stride + z) * p.c;
            for (int64_t c = 0; c < p.c; ++c) to[c] = to[c] + dy[c] / cells;
          }
  });
}

}  // namespace tesra
