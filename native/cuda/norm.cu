// Owns layer and RMS normalisation, softmax over rows, and their gradients.
// Invariant: norm.h. A row belongs to half a warp, whose lanes are the 16 of TESRA_LANES; the fold by
// exclusive or adds the same pairs as the header's.
#include "../kernels/norm.h"

#include "launch.h"
#include "lanes.h"

namespace tesra::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kRowsPerBlock = kThreads / TESRA_LANES;
constexpr int kGradThreads = 256;
constexpr int kColumnThreads = 64;

// The row that this half warp works on. Rows past the end repeat the last one without storing, so
// that whole warps reach every exchange.
struct RowOf {
  int64_t row;
  int lane;
  bool inside;
};
__device__ __forceinline__ RowOf rowOf(int64_t rows) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kRowsPerBlock + threadIdx.x / TESRA_LANES;
  return {at < rows ? at : rows - 1, static_cast<int>(threadIdx.x % TESRA_LANES), at < rows};
}

__global__ void normRows(tesra_norm o) {
  const RowOf at = rowOf(o.rows);
  const int n = o.columns;
  const float count = static_cast<float>(n);
  const float* const x = o.x + at.row * n;
  float mean = 0.0f, sum = 0.0f;
  if (o.mean) {
    for (int c = at.lane; c < n; c += TESRA_LANES) sum = __fadd_rn(sum, x[c]);
    mean = __fdiv_rn(foldLanes(sum), count);
    sum = 0.0f;
    for (int c = at.lane; c < n; c += TESRA_LANES) {
      const float d = __fsub_rn(x[c], mean);
      sum = __fmaf_rn(d, d, sum);
    }
  } else {
    for (int c = at.lane; c < n; c += TESRA_LANES) sum = __fmaf_rn(x[c], x[c], sum);
  }
  const float square = __fdiv_rn(foldLanes(sum), count);
  const float rstd = __fdiv_rn(1.0f, __fsqrt_rn(__fadd_rn(square, o.epsilon)));
  if (!at.inside) return;
  if (at.lane == 0) {
    if (o.mean) o.mean[at.row] = mean;
    o.rstd[at.row] = rstd;
  }
  float* const y = o.y + at.row * n;
  for (int c = at.lane; c < n; c += TESRA_LANES)
    y[c] = o.mean ? __fmaf_rn(__fmul_rn(__fsub_rn(x[c], mean), rstd), o.gamma[c], o.beta[c])
                  : __fmul_rn(__fmul_rn(x[c], rstd), o.gamma[c]);
}

// One block a chunk of TESRA_NORM_ROWS rows: half warps find each row's two means, then each thread
// walks its columns down the rows, which gives dx and the chunk's sums at once.
__global__ void __launch_bounds__(kGradThreads) normGradChunk(tesra_norm_grad o, float* partial) {
  __shared__ float meanOf[TESRA_NORM_ROWS], rstdOf[TESRA_NORM_ROWS];
  __shared__ float a[TESRA_NORM_ROWS], b[TESRA_NORM_ROWS];
  const int n = o.columns, lane = threadIdx.x % TESRA_LANES, group = threadIdx.x / TESRA_LANES;
  const bool centred = o.mean != nullptr;
  const float count = static_cast<float>(n);
  const int64_t first = static_cast<int64_t>(blockIdx.x) * TESRA_NORM_ROWS;
  const int rows = static_cast<int>(o.rows - first < TESRA_NORM_ROWS ? o.rows - first : TESRA_NORM_ROWS);
  for (int base = 0; base < TESRA_NORM_ROWS; base += kGradThreads / TESRA_LANES) {
    const int r = base + group;
    const int64_t row = first + (r < rows ? r : rows - 1);
    const float *const x = o.x + row * n, *const dy = o.dy + row * n;
    const float mean = centred ? o.mean[row] : 0.0f, rstd = o.rstd[row];
    float sumA = 0.0f, sumB = 0.0f;
    for (int c = lane; c < n; c += TESRA_LANES) {
      const float g = __fmul_rn(dy[c], o.gamma[c]);
      const float h = __fmul_rn(centred ? __fsub_rn(x[c], mean) : x[c], rstd);
      sumA = __fadd_rn(sumA, g);
      sumB = __fmaf_rn(g, h, sumB);
    }
    sumA = foldLanes(sumA), sumB = foldLanes(sumB);
    if (lane == 0 && r < rows) {
      meanOf[r] = mean, rstdOf[r] = rstd;
      a[r] = __fdiv_rn(sumA, count), b[r] = __fdiv_rn(sumB, count);
    }
  }
  __syncthreads();
  float* const sums = partial + static_cast<int64_t>(blockIdx.x) * n * (centred ? 2 : 1);
  for (int c = static_cast<int>(threadIdx.x); c < n; c += kGradThreads) {
    const float gamma = o.gamma[c];
    float sumGamma = 0.0f, sumBeta = 0.0f;
    for (int r = 0; r < rows; r++) {
      const int64_t i = (first + r) * n + c;
      const float d = o.dy[i];
      const float h = __fmul_rn(centred ? __fsub_rn(o.x[i], meanOf[r]) : o.x[i], rstdOf[r]);
      const float t = __fmaf_rn(-h, b[r], __fmul_rn(d, gamma));
      o.dx[i] = __fmul_rn(centred ? __fsub_rn(t, a[r]) : t, rstdOf[r]);
      sumGamma = __fmaf_rn(d, h, sumGamma);
      sumBeta = __fadd_rn(sumBeta, d);
    }
    sums[c] = sumGamma;
    if (centred) sums[n + c] = sumBeta;
  }
}

__global__ void normGradJoin(tesra_norm_grad o, const float* partial, int64_t chunks) {
  const int width = o.columns * (o.mean ? 2 : 1);
  const int c = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (c >= width) return;
  float sum = 0.0f;
  for (int64_t chunk = 0; chunk < chunks; chunk++) {
    const float next = partial[chunk * width + c];
    sum = chunk == 0 ? next : __fadd_rn(sum, next);
  }
  (c < o.columns ? o.dgamma[c] : o.dbeta[c - o.columns]) = sum;
}

__global__ void softmaxForward(tesra_softmax o) {
  const RowOf at = rowOf(o.rows);
  const int n = o.columns;
  const float* const x = o.x + at.row * n;
  float* const y = o.out + at.row * n;
  const float mx = maximumOf(x, n, at.lane);
  float sum = 0.0f;
  for (int c = at.lane; c < n; c += TESRA_LANES) sum = __fadd_rn(sum, tesra_exp(__fsub_rn(x[c], mx)));
  const float inverse = __fdiv_rn(1.0f, foldLanes(sum));
  if (!at.inside) return;
  for (int c = at.lane; c < n; c += TESRA_LANES)
    y[c] = __fmul_rn(tesra_exp(__fsub_rn(x[c], mx)), inverse);
}

__global__ void softmaxBackward(tesra_softmax o) {
  const RowOf at = rowOf(o.rows);
  const int n = o.columns;
  const float *const dy = o.x + at.row * n, *const y = o.y + at.row * n;
  float* const dx = o.out + at.row * n;
  float sum = 0.0f;
  for (int c = at.lane; c < n; c += TESRA_LANES) sum = __fmaf_rn(y[c], dy[c], sum);
  const float d = foldLanes(sum);
  if (!at.inside) return;
  for (int c = at.lane; c < n; c += TESRA_LANES) dx[c] = __fmul_rn(y[c], __fsub_rn(dy[c], d));
}

unsigned rowBlocks(int64_t rows) {
  return static_cast<unsigned>((rows + kRowsPerBlock - 1) / kRowsPerBlock);
}
int64_t chunksOf(const tesra_norm_grad& op) {
  return (op.rows + TESRA_NORM_ROWS - 1) / TESRA_NORM_ROWS;
}

}  // namespace

cudaError_t launchNorm(const Launch& launch, const tesra_norm& op) {
  if (op.rows == 0) return cudaSuccess;
  TESRA_LAUNCH(normRows, rowBlocks(op.rows), kThreads, 0, launch.stream, op);
  return cudaGetLastError();
}

size_t normGradScratch(const tesra_norm_grad& op) {
  return static_cast<size_t>(chunksOf(op)) * op.columns * 2 * sizeof(float);
}

cudaError_t launchNormGrad(const Launch& launch, const tesra_norm_grad& op) {
  float* const partial = static_cast<float*>(launch.scratch);
  const int64_t chunks = chunksOf(op);
  if (chunks > 0) {
    TESRA_LAUNCH(normGradChunk, static_cast<unsigned>(chunks), kGradThreads, 0, launch.stream, op,
                 partial);
    const cudaError_t error = cudaGetLastError();
    if (error != cudaSuccess) return error;
  }
  const unsigned blocks = (2u * op.columns + kColumnThreads - 1) / kColumnThreads;
  TESRA_LAUNCH(normGradJoin, blocks, kColumnThreads, 0, launch.stream, op, partial, chunks);
  return cudaGetLastError();
}

cudaError_t launchSoftmax(const Launch& launch, int32_t kind, const tesra_softmax& op) {
  if (op.rows == 0) return cudaSuccess;
  if (kind == TESRA_OP_SOFTMAX)
    TESRA_LAUNCH(softmaxForward, rowBlocks(op.rows), kThreads, 0, launch.stream, op);
  else
    TESRA_LAUNCH(softmaxBackward, rowBlocks(op.rows), kThreads, 0, launch.stream, op);
  return cudaGetLastError();
}

}  // namespace tesra::cuda
