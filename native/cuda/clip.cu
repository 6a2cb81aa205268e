// Owns the norm of one flat vector and clipping by it.
// Invariant: optimizer.h; half a warp sums a chunk, one thread adds the chunks' sums in order.
#include <cmath>

#include "lanes.h"
#include "launch.h"
#include "pack.h"

namespace tesra::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kChunksPerBlock = kThreads / TESRA_LANES;

__global__ void squareSums(tesra_global_norm o, float* sums, int64_t chunks) {
  const int64_t chunk = static_cast<int64_t>(blockIdx.x) * kChunksPerBlock + threadIdx.x / TESRA_LANES;
  const int64_t begin = chunk * TESRA_FLAT_CHUNK;
  const int64_t end = begin + TESRA_FLAT_CHUNK < o.n ? begin + TESRA_FLAT_CHUNK : o.n;
  float sum = 0.0f;
  for (int64_t i = begin + threadIdx.x % TESRA_LANES; i < end; i += TESRA_LANES)
    sum = __fmaf_rn(o.x[i], o.x[i], sum);
  sum = foldLanes(sum);
  if (threadIdx.x % TESRA_LANES == 0 && chunk < chunks) sums[chunk] = sum;
}

// The threads bring the sums, thread 0 adds them.
__global__ void __launch_bounds__(kThreads) normOf(const float* sums, float* norm, int64_t chunks) {
  __shared__ float part[kThreads];
  double sum = 0.0;
  for (int64_t base = 0; base < chunks; base += kThreads) {
    const int64_t i = base + threadIdx.x;
    part[threadIdx.x] = i < chunks ? sums[i] : 0.0f;
    __syncthreads();
    if (threadIdx.x == 0)
      for (int j = 0; j < kThreads && base + j < chunks; j++) sum = sum + static_cast<double>(part[j]);
    __syncthreads();
  }
  if (threadIdx.x == 0) norm[0] = static_cast<float>(sqrt(sum));
}

__global__ void clipBy(tesra_clip o) {
  const float factor = __fdiv_rn(o.limit, __fadd_rn(o.norm[0], 1e-6f));
  if (!(factor < 1.0f || o.normalize)) return;
  forEachPack(o.n, [&](int64_t i) { o.x[i] = __fmul_rn(o.x[i], factor); });
}

int64_t chunksOf(const tesra_global_norm& op) {
  return (op.n + TESRA_FLAT_CHUNK - 1) / TESRA_FLAT_CHUNK;
}

}  // namespace

size_t globalNormScratch(const tesra_global_norm& op) {
  return static_cast<size_t>(chunksOf(op)) * sizeof(float);
}

cudaError_t launchGlobalNorm(const Launch& launch, const tesra_global_norm& op) {
  float* const sums = static_cast<float*>(launch.scratch);
  const int64_t chunks = chunksOf(op);
  if (chunks > 0) {
    const unsigned blocks = static_cast<unsigned>((chunks + kChunksPerBlock - 1) / kChunksPerBlock);
    TESRA_LAUNCH(squareSums, blocks, kThreads, 0, launch.stream, op, sums, chunks);
    const cudaError_t error = cudaGetLastError();
    if (error != cudaSuccess) return error;
  }
  TESRA_LAUNCH(normOf, 1, kThreads, 0, launch.stream, sums, op.norm, chunks);
  return cudaGetLastError();
}

cudaError_t launchClip(const Launch& launch, const tesra_clip& op) {
  if (op.n == 0) return cudaSuccess;
  TESRA_LAUNCH(clipBy, gridFor(op.n, kThreads), kThreads, 0, launch.stream, op);
  return cudaGetLastError();
}

}  // namespace tesra::cuda
