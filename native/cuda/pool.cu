// Owns max and average pooling and their gradients.
// Invariant: gradients gather (each input cell adds its windows in ascending output order), so the
// order of additions is fixed without atomics.
#include "../kernels/pool.h"

#include "launch.h"
#include "pack.h"

namespace tesra::cuda {
namespace {

constexpr int kThreads = 256;

struct Cell {
  int n, y, x, channel;
};
__device__ __forceinline__ Cell cellOf(int64_t i, int height, int width, int channels) {
  Cell cell;
  cell.channel = static_cast<int>(i % channels);
  i /= channels;
  cell.x = static_cast<int>(i % width);
  i /= width;
  cell.y = static_cast<int>(i % height);
  cell.n = static_cast<int>(i / height);
  return cell;
}

__device__ __forceinline__ int inputOffset(const tesra_pool& p, const Cell& o, int i, int j) {
  return ((o.n * p.h + o.y * p.stride + i) * p.w + o.x * p.stride + j) * p.c + o.channel;
}

__global__ void maxForward(tesra_pool p, int64_t outputs) {
  forEachPack(outputs, [&](int64_t at) {
    const Cell o = cellOf(at, p.oh, p.ow, p.c);
    int best = inputOffset(p, o, 0, 0);
    float value = p.x[best];
    for (int i = 0; i < p.kernel; i++)
      for (int j = 0; j < p.kernel; j++) {
        if (i == 0 && j == 0) continue;
        const int offset = inputOffset(p, o, i, j);
        const float next = p.x[offset];
        if (next > value || next != next) value = next, best = offset;
      }
    p.out[at] = value;
    p.index_out[at] = best;
  });
}

__global__ void averageForward(tesra_pool p, int64_t outputs, float cells) {
  forEachPack(outputs, [&](int64_t at) {
    const Cell o = cellOf(at, p.oh, p.ow, p.c);
    float sum = 0.0f;
    for (int i = 0; i < p.kernel; i++)
      for (int j = 0; j < p.kernel; j++) sum = __fadd_rn(sum, p.x[inputOffset(p, o, i, j)]);
    p.out[at] = __fdiv_rn(sum, cells);
  });
}

// Calls visit(output offset) in ascending order for each window that covers the cell.
template <class Visit>
__device__ __forceinline__ void forEachWindow(const tesra_pool& p, const Cell& cell,
                                              Visit&& visit) {
  const int firstY = cell.y < p.kernel ? 0 : (cell.y - p.kernel) / p.stride + 1;
  const int firstX = cell.x < p.kernel ? 0 : (cell.x - p.kernel) / p.stride + 1;
  const int lastY = min(cell.y / p.stride, p.oh - 1), lastX = min(cell.x / p.stride, p.ow - 1);
  for (int y = firstY; y <= lastY; y++)
    for (int x = firstX; x <= lastX; x++)
      visit(((static_cast<int64_t>(cell.n) * p.oh + y) * p.ow + x) * p.c + cell.channel);
}

// An index outside its own image is skipped. One inside the image but outside its own window cannot
// come from maxForward (it is somebody's hostile data): *foreign is raised, and scatterForeign
// redoes the gradient in the defined order.
__global__ void maxGradient(tesra_pool p, int64_t inputs, int64_t outputs, uint32_t* foreign) {
  forEachPack(inputs, [&](int64_t at) {
    const Cell cell = cellOf(at, p.h, p.w, p.c);
    float sum = 0.0f;
    forEachWindow(p, cell, [&](int64_t o) {
      if (p.index[o] == at) sum = __fadd_rn(sum, p.dy[o]);
    });
    p.out[at] = sum;
  });
  forEachPack(outputs, [&](int64_t at) {
    const Cell o = cellOf(at, p.oh, p.ow, p.c);
    const int64_t index = p.index[at];
    if (index < 0 || index >= inputs) return;
    const Cell cell = cellOf(index, p.h, p.w, p.c);
    const int i = cell.y - o.y * p.stride, j = cell.x - o.x * p.stride;
    const bool inside =
        cell.channel == o.channel && i >= 0 && i < p.kernel && j >= 0 && j < p.kernel;
    if (cell.n == o.n && !inside) *foreign = 1;  // every writer writes the same value
  });
}

// One block, one thread an image, in order: slow, linear, and only ever at work with foreign
// indices. Leaves the flag at 0.
__global__ void scatterForeign(tesra_pool p, uint32_t* foreign) {
  const bool needed = *foreign != 0;
  __syncthreads();
  if (!needed) return;
  const int64_t inputs = static_cast<int64_t>(p.h) * p.w * p.c,
                outputs = static_cast<int64_t>(p.oh) * p.ow * p.c;
  for (int64_t n = threadIdx.x; n < p.n; n += blockDim.x) {
    float* const dx = p.out + n * inputs;
    for (int64_t i = 0; i < inputs; i++) dx[i] = 0.0f;
    for (int64_t o = n * outputs; o < (n + 1) * outputs; o++) {
      const int64_t index = p.index[o] - n * inputs;
      if (index >= 0 && index < inputs) dx[index] = __fadd_rn(dx[index], p.dy[o]);
    }
  }
  if (threadIdx.x == 0) *foreign = 0;
}

__global__ void averageGradient(tesra_pool p, int64_t inputs, float cells) {
  forEachPack(inputs, [&](int64_t at) {
    const Cell cell = cellOf(at, p.h, p.w, p.c);
    float sum = 0.0f;
    forEachWindow(p, cell, [&](int64_t o) { sum = __fadd_rn(sum, __fdiv_rn(p.dy[o], cells)); });
    p.out[at] = sum;
  });
}

}  // namespace

size_t poolScratch(int32_t kind) {
  return kind == TESRA_OP_MAXPOOL_GRAD ? sizeof(uint32_t) : 0;
}

cudaError_t launchPool(const Launch& launch, int32_t kind, const tesra_pool& op) {
  const int64_t outputs = static_cast<int64_t>(op.n) * op.oh * op.ow * op.c;
  const int64_t inputs = static_cast<int64_t>(op.n) * op.h * op.w * op.c;
  const float cells = static_cast<float>(op.kernel * op.kernel);
  uint32_t* const foreign = static_cast<uint32_t*>(launch.scratch);
  const cudaStream_t stream = launch.stream;
  if (kind == TESRA_OP_MAXPOOL) {
    if (outputs)
      TESRA_LAUNCH(maxForward, gridFor(outputs, kThreads), kThreads, 0, stream, op, outputs);
  } else if (kind == TESRA_OP_AVGPOOL) {
    if (outputs)
      TESRA_LAUNCH(averageForward, gridFor(outputs, kThreads), kThreads, 0, stream, op, outputs,
                   cells);
  } else if (kind == TESRA_OP_AVGPOOL_GRAD) {
    if (inputs)
      TESRA_LAUNCH(averageGradient, gridFor(inputs, kThreads), kThreads, 0, stream, op, inputs,
                   cells);
  } else if (inputs) {
    TESRA_LAUNCH(maxGradient, gridFor(inputs, kThreads), kThreads, 0, stream, op, inputs, outputs,
                 foreign);
    const cudaError_t error = cudaGetLastError();
    if (error != cudaSuccess) return error;
    TESRA_LAUNCH(scatterForeign, 1, kThreads, 0, stream, op, foreign);
  }
  return cudaGetLastError();
}

}  // namespace tesra::cuda
