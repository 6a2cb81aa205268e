// Owns copies between layouts and rotary embedding.
// Invariant: copy.h and rope.h; a thread owns the places that it writes.
#include "launch.h"
#include "pack.h"

namespace tesra::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void clearAll(float* out, int64_t n) {
  forEachPack(n, [&](int64_t i) { out[i] = 0.0f; });
}

__global__ void copyStrided(tesra_copy o, int64_t count) {
  forEachPack(count, [&](int64_t i) {
    int64_t from = 0, to = 0, index = i;
    for (int d = TESRA_COPY_RANK_MAX - 1; d >= 0; d--) {
      const int64_t at = index % o.size[d];
      index /= o.size[d];
      from += at * o.from[d];
      to += at * o.to[d];
    }
    o.out[to] = o.accumulate ? __fadd_rn(o.out[to], o.x[from]) : o.x[from];
  });
}

// One thread turns a pair of all heads of a row, or copies one of the columns that do not turn.
__global__ void rotate(tesra_rope o) {
  const int half = o.head_size / 2, turning = o.heads * o.head_size;
  const int64_t items = half + (o.columns - turning);
  forEachPack(o.rows * items, [&](int64_t i) {
    const int64_t row = i / items;
    const int item = static_cast<int>(i - row * items);
    const float* x = o.x + row * o.columns;
    float* out = o.out + row * o.columns;
    if (item >= half) {
      const int c = turning + item - half;
      out[c] = x[c];
      return;
    }
    float c, s;
    tesra_rotation(o.ratio, static_cast<int32_t>(row % o.length), item, &c, &s);
    if (o.inverse) s = -s;
    for (int at = item; at < turning; at += o.head_size) {
      const float a = x[at], b = x[at + half];
      out[at] = __fmaf_rn(a, c, -__fmul_rn(b, s));
      out[at + half] = __fmaf_rn(b, c, __fmul_rn(a, s));
    }
  });
}

}  // namespace

cudaError_t launchCopy(const Launch& launch, const tesra_copy& op) {
  if (op.clear && op.out_elements > 0) {
    TESRA_LAUNCH(clearAll, gridFor(op.out_elements, kThreads), kThreads, 0, launch.stream, op.all,
                 op.out_elements);
    const cudaError_t error = cudaGetLastError();
    if (error != cudaSuccess) return error;
  }
  int64_t count = 1;
  for (const int64_t size : op.size) count *= size;
  if (count == 0) return cudaSuccess;
  TESRA_LAUNCH(copyStrided, gridFor(count, kThreads), kThreads, 0, launch.stream, op, count);
  return cudaGetLastError();
}

cudaError_t launchRope(const Launch& launch, const tesra_rope& op) {
  if (op.rows == 0) return cudaSuccess;
  const int64_t items = op.columns - op.heads * op.head_size + op.head_size / 2;
  TESRA_LAUNCH(rotate, gridFor(op.rows * items, kThreads), kThreads, 0, launch.stream, op);
  return cudaGetLastError();
}

}  // namespace tesra::cuda
