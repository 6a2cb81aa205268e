// Owns fused softmax cross-entropy (loss and gradient) and the count of right answers.
// Invariant: loss.h; a row is summed by the 16 lanes of half a warp.
#include "../kernels/loss.h"

#include "lanes.h"
#include "launch.h"

namespace tesra::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kRowsPerBlock = kThreads / TESRA_LANES;
constexpr int kFlatThreads = 1024;
struct Best {
  float value;
  int index;
};
// The header's fold from x[0] keeps a NaN in first place and passes over every other one; among
// equals the lowest index stays.
__device__ __forceinline__ Best bestOf(const float* x, int classes, int lane) {
  Best best{-INFINITY, 0x7fffffff};
  for (int c = lane; c < classes; c += TESRA_LANES) {
    const float value = x[c];
    if (value > best.value || (value == best.value && c < best.index)) best = Best{value, c};
  }
  TESRA_UNROLL
  for (int apart = TESRA_LANES / 2; apart > 0; apart /= 2) {
    const float value = __shfl_xor_sync(0xffffffffu, best.value, apart);
    const int index = __shfl_xor_sync(0xffffffffu, best.index, apart);
    if (value > best.value || (value == best.value && index < best.index))
      best = Best{value, index};
  }
  const float first = x[0];
  if (first != first) best = Best{first, 0};
  return best;
}

// Rows past the end repeat the last row without storing, so that whole warps reach every exchange.
__global__ void softmaxRows(tesra_softmax_xent o, float* rowLoss) {
  const int lane = threadIdx.x % TESRA_LANES;
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kRowsPerBlock + threadIdx.x / TESRA_LANES;
  const int row = static_cast<int>(at < o.rows ? at : o.rows - 1);
  const float* const x = o.logits + static_cast<int64_t>(row) * o.classes;
  const int label = o.labels[row];
  const bool known = label >= 0 && label < o.classes;
  const float mx = maximumOf(x, o.classes, lane);
  const float chosen = known ? x[label] : 0.0f;  // before dlogits, which may be logits, is written
  float sum = 0.0f;
  for (int c = lane; c < o.classes; c += TESRA_LANES)
    sum = __fadd_rn(sum, tesra_exp(__fsub_rn(x[c], mx)));
  sum = foldLanes(sum);
  if (at >= o.rows) return;
  if (lane == 0)
    rowLoss[row] =
        known ? __fadd_rn(__fsub_rn(mx, chosen), tesra_log(sum)) : tesra_bits_float(0x7fc00000u);
  if (!o.dlogits) return;
  const float scale = __fdiv_rn(1.0f, static_cast<float>(o.rows));
  float* const d = o.dlogits + static_cast<int64_t>(row) * o.classes;
  for (int c = lane; c < o.classes; c += TESRA_LANES) {
    const float share = __fdiv_rn(tesra_exp(__fsub_rn(x[c], mx)), sum);
    d[c] = known ? __fmul_rn(__fsub_rn(share, c == label ? 1.0f : 0.0f), scale) : 0.0f;
  }
}

// Flat sum of rowLoss and the mean: one block, a half warp a chunk.
__global__ void __launch_bounds__(kFlatThreads)
    meanLoss(const float* rowLoss, float* chunkSums, int rows, float* loss) {
  const int lane = threadIdx.x % TESRA_LANES, group = threadIdx.x / TESRA_LANES;
  constexpr int kGroups = kFlatThreads / TESRA_LANES;
  const int chunks = (rows + TESRA_FLAT_CHUNK - 1) / TESRA_FLAT_CHUNK;
  for (int base = 0; base < chunks; base += kGroups) {
    const int chunk = base + group;
    float sum = 0.0f;
    if (chunk < chunks) {
      const int begin = chunk * TESRA_FLAT_CHUNK;
      const int end = rows - begin < TESRA_FLAT_CHUNK ? rows : begin + TESRA_FLAT_CHUNK;
      for (int i = begin + lane; i < end; i += TESRA_LANES) sum = __fadd_rn(sum, rowLoss[i]);
    }
    sum = foldLanes(sum);
    if (lane == 0 && chunk < chunks) chunkSums[chunk] = sum;
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  float total = 0.0f;
  for (int chunk = 0; chunk < chunks; chunk++)
    total = chunk == 0 ? chunkSums[0] : __fadd_rn(total, chunkSums[chunk]);
  loss[0] = rows == 0 ? 0.0f : __fdiv_rn(total, static_cast<float>(rows));
}

__global__ void __launch_bounds__(kFlatThreads) countCorrect(tesra_count_correct o) {
  __shared__ int counts[kFlatThreads / 32];
  const int lane = threadIdx.x % TESRA_LANES, group = threadIdx.x / TESRA_LANES;
  constexpr int kGroups = kFlatThreads / TESRA_LANES;
  int count = 0;
  for (int64_t base = 0; base < o.rows; base += kGroups) {
    const int64_t at = base + group;
    const int row = static_cast<int>(at < o.rows ? at : o.rows - 1);
    const Best best = bestOf(o.logits + static_cast<int64_t>(row) * o.classes, o.classes, lane);
    if (lane == 0 && at < o.rows && best.index == o.labels[row]) count++;
  }
  count = __reduce_add_sync(0xffffffffu, count);
  if (threadIdx.x % 32 == 0) counts[threadIdx.x / 32] = count;
  __syncthreads();
  if (threadIdx.x != 0) return;
  int total = 0;
  for (int warp = 0; warp < kFlatThreads / 32; warp++) total += counts[warp];
  o.count[0] = static_cast<float>(total);
}

}  // namespace

size_t softmaxXentScratch(const tesra_softmax_xent& op) {
  return (static_cast<size_t>(op.rows) + (op.rows + TESRA_FLAT_CHUNK - 1) / TESRA_FLAT_CHUNK + 1) *
         sizeof(float);
}

cudaError_t launchSoftmaxXent(const Launch& launch, const tesra_softmax_xent& op) {
  float* const rowLoss = static_cast<float*>(launch.scratch);
  if (op.rows > 0) {
    const unsigned grid = static_cast<unsigned>((op.rows + kRowsPerBlock - 1) / kRowsPerBlock);
    TESRA_LAUNCH(softmaxRows, grid, kThreads, 0, launch.stream, op, rowLoss);
    const cudaError_t error = cudaGetLastError();
    if (error != cudaSuccess) return error;
  }
  TESRA_LAUNCH(meanLoss, 1, kFlatThreads, 0, launch.stream, rowLoss, rowLoss + op.rows, op.rows,
               op.loss);
  return cudaGetLastError();
}

cudaError_t launchCountCorrect(const Launch& launch, const tesra_count_correct& op) {
  TESRA_LAUNCH(countCorrect, 1, kFlatThreads, 0, launch.stream, op);
  return cudaGetLastError();
}

}  // namespace tesra::cuda
