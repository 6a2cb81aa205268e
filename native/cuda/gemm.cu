// Owns the fp32 matrix product's launcher, the join of split products, and the bias gradient.
// Invariant: gemm.h and the fixed orders of exact-math.h.
#include "product.h"

namespace tesra::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void join(Epilogue e, int chunks) {
  const int64_t cells = static_cast<int64_t>(e.m) * e.n;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < cells;
       i += stride) {
    float value = e.accumulate ? e.c[i] : 0.0f;
    for (int chunk = 0; chunk < chunks; chunk++) {
      const float sum = e.partial[chunk * cells + i];
      value = chunk == 0 && !e.accumulate ? sum : __fadd_rn(value, sum);
    }
    value = finished(e, value, static_cast<int>(i % e.n));
    e.c[i] = e.more ? e.fused(i, value) : value;
  }
}

__global__ void fuse(Epilogue e) {
  const int64_t cells = static_cast<int64_t>(e.m) * e.n;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < cells;
       i += stride)
    e.c[i] = e.fused(i, e.c[i]);
}

// One thread a column and chunk of rows: a warp reads 32 neighbouring columns.
__global__ void biasGradChunks(const float* dy, float* partial, int64_t m, int n) {
  const int column = static_cast<int>(blockIdx.y * blockDim.x + threadIdx.x);
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * TESRA_ROW_CHUNK;
  const int64_t end = begin + TESRA_ROW_CHUNK < m ? begin + TESRA_ROW_CHUNK : m;
  if (column >= n) return;
  float sum = 0.0f;
  for (int64_t row = begin; row < end; row++) sum = __fadd_rn(sum, dy[row * n + column]);
  partial[static_cast<int64_t>(blockIdx.x) * n + column] = sum;
}

__global__ void biasGradJoin(const float* partial, float* db, int64_t chunks, int n) {
  const int column = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (column >= n) return;
  float sum = 0.0f;
  for (int64_t chunk = 0; chunk < chunks; chunk++) {
    const float next = partial[chunk * n + column];
    sum = chunk == 0 ? next : __fadd_rn(sum, next);
  }
  db[column] = sum;
}

constexpr int kColumnsPerBlock = 64;

int64_t rowChunks(const tesra_bias_grad& op) {
  return (op.m + TESRA_ROW_CHUNK - 1) / TESRA_ROW_CHUNK;
}

}  // namespace

cudaError_t launchJoin(cudaStream_t stream, const Epilogue& e, int chunks) {
  const unsigned grid = gridFor(static_cast<int64_t>(e.m) * e.n, kThreads);
  TESRA_LAUNCH(join, grid, kThreads, 0, stream, e, chunks);
  return cudaGetLastError();
}

Epilogue epilogueOf(const tesra_gemm& op) {
  const bool more =
      op.saved || op.before || op.residual || op.activation > TESRA_ACTIVATION_RELU;
  const bool relu = !more && op.activation == TESRA_ACTIVATION_RELU;
  return {op.c,      op.bias,       nullptr,   op.m,        op.n,    op.k, relu, op.accumulate != 0,
          more,      op.activation, op.before, op.residual, op.saved};
}

cudaError_t launchFused(cudaStream_t stream, const Epilogue& e) {
  const unsigned grid = gridFor(static_cast<int64_t>(e.m) * e.n, kThreads);
  TESRA_LAUNCH(fuse, grid, kThreads, 0, stream, e);
  return cudaGetLastError();
}

size_t gemmScratch(const tesra_gemm& op, int multiprocessors) {
  return productScratch(op.m, op.n, op.k, multiprocessors);
}

cudaError_t launchGemm(const Launch& launch, const tesra_gemm& op) {
  const Epilogue e = epilogueOf(op);
  const auto withB = [&](const auto& a) {
    return op.trans_b ? launchProduct(launch, a, dense<true>(op.b, op.k, op.n), e)
                      : launchProduct(launch, a, dense<false>(op.b, op.n, op.n), e);
  };
  return op.trans_a ? withB(dense<false>(op.a, op.m, op.m)) : withB(dense<true>(op.a, op.k, op.m));
}

size_t biasGradScratch(const tesra_bias_grad& op) {
  return static_cast<size_t>(rowChunks(op)) * op.n * sizeof(float);
}

cudaError_t launchBiasGrad(const Launch& launch, const tesra_bias_grad& op) {
  if (op.n == 0) return cudaSuccess;
  const int64_t chunks = rowChunks(op);
  float* partial = static_cast<float*>(launch.scratch);
  const unsigned columns = (op.n + kColumnsPerBlock - 1) / kColumnsPerBlock;
  if (chunks > 0) {
    const dim3 grid(static_cast<unsigned>(chunks), columns);
    TESRA_LAUNCH(biasGradChunks, grid, kColumnsPerBlock, 0, launch.stream, op.dy, partial, op.m,
                 op.n);
    const cudaError_t error = cudaGetLastError();
    if (error != cudaSuccess) return error;
  }
  TESRA_LAUNCH(biasGradJoin, columns, kColumnsPerBlock, 0, launch.stream, partial, op.db, chunks,
               op.n);
  return cudaGetLastError();
}

}  // namespace tesra::cuda
