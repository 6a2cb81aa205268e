// Owns rows by index, their gradient without atomics, and the addition of one vector to every row.
// Invariant: embedding.h; the rows of one id are added in ascending order, by one block.
#include "../kernels/embedding.h"

#include "launch.h"
#include "pack.h"

namespace tesra::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;

__global__ void addBias(tesra_bias_add o) {
  forEachPack(o.m * o.n, [&](int64_t i) { o.out[i] = __fadd_rn(o.x[i], o.bias[i % o.n]); });
}

__global__ void gather(tesra_embedding o) {
  forEachPack(o.rows * o.columns, [&](int64_t i) {
    const int64_t row = i / o.columns;
    const int32_t id = o.ids[row];
    const bool known = id >= 0 && id < o.vocabulary;
    o.out[i] = known ? o.table[static_cast<int64_t>(id) * o.columns + (i - row * o.columns)]
                     : tesra_bits_float(0x7fc00000u);
  });
}

__global__ void clear(float* out, int64_t n) {
  forEachPack(n, [&](int64_t i) { out[i] = 0.0f; });
}

// Whether any of this block's threads says so. Ends with a barrier.
__device__ __forceinline__ bool anyOf(bool mine, int* hits) {
  const int count = __reduce_add_sync(0xffffffffu, mine ? 1 : 0);
  if (threadIdx.x % 32 == 0) hits[threadIdx.x / 32] = count;
  __syncthreads();
  int total = 0;
  TESRA_FOR(w, kWarps) total += hits[w];
  __syncthreads();
  return total > 0;
}

// Block r adds all rows of row r's id when r is the first of them. Looking for them costs rows^2 / 2
// comparisons of cached words in all: 2 x 10^9 for 65,536 tokens, some milliseconds.
__global__ void __launch_bounds__(kThreads) scatter(tesra_embedding_grad o) {
  __shared__ int hits[kWarps];
  __shared__ bool same[kThreads];
  const int thread = static_cast<int>(threadIdx.x);
  for (int64_t r = blockIdx.x; r < o.rows; r += gridDim.x) {
    const int32_t id = o.ids[r];
    if (id < 0 || id >= o.vocabulary) continue;
    bool seen = false;
    for (int64_t base = 0; base < r && !seen; base += kThreads)
      seen = anyOf(base + thread < r && o.ids[base + thread] == id, hits);
    if (seen) continue;
    float* const to = o.dtable + static_cast<int64_t>(id) * o.columns;
    for (int64_t base = r; base < o.rows; base += kThreads) {
      const bool mine = base + thread < o.rows && o.ids[base + thread] == id;
      same[thread] = mine;
      if (!anyOf(mine, hits)) continue;
      for (int c = thread; c < o.columns; c += kThreads) {
        float sum = to[c];
        for (int t = 0; t < kThreads; t++)
          if (same[t]) sum = __fadd_rn(sum, o.dy[(base + t) * o.columns + c]);
        to[c] = sum;
      }
      __syncthreads();  // `same` is overwritten next
    }
  }
}

}  // namespace

cudaError_t launchBiasAdd(const Launch& launch, const tesra_bias_add& op) {
  if (op.m == 0 || op.n == 0) return cudaSuccess;
  TESRA_LAUNCH(addBias, gridFor(op.m * op.n, kThreads), kThreads, 0, launch.stream, op);
  return cudaGetLastError();
}

cudaError_t launchEmbedding(const Launch& launch, const tesra_embedding& op) {
  const int64_t floats = op.rows * op.columns;
  if (floats == 0) return cudaSuccess;
  TESRA_LAUNCH(gather, gridFor(floats, kThreads), kThreads, 0, launch.stream, op);
  return cudaGetLastError();
}

cudaError_t launchEmbeddingGrad(const Launch& launch, const tesra_embedding_grad& op) {
  const int64_t floats = static_cast<int64_t>(op.vocabulary) * op.columns;
  if (floats == 0) return cudaSuccess;
  if (!op.accumulate) {
    TESRA_LAUNCH(clear, gridFor(floats, kThreads), kThreads, 0, launch.stream, op.dtable, floats);
    const cudaError_t error = cudaGetLastError();
    if (error != cudaSuccess) return error;
  }
  if (op.rows == 0) return cudaSuccess;
  TESRA_LAUNCH(scatter, gridFor(op.rows, 1), kThreads, 0, launch.stream, op);
  return cudaGetLastError();
}

}  // namespace tesra::cuda
