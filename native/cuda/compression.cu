// Owns gradient compression on the GPU: an exact selection of the top k by radix histograms, blocks
// for int8 and signs, and their expansion. Invariant: the bytes of compression.h; counts and offsets
// are sums of integers, so no order of threads changes them. Device pointers throughout.
#include "../kernels/compression.h"

#include "lanes.h"
#include "launch.h"
#include "pack.h"

namespace tesra::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;

__device__ __forceinline__ uint32_t magnitudeBits(float t) {
  return tesra_float_bits(t) & 0x7fffffffu;
}

// What is compressed: x, or residual = x + residual, made by whoever reads an element first.
struct Fed {
  const float* x;
  float* residual;
  __device__ __forceinline__ float feed(int64_t i) const {
    if (!residual) return x[i];
    const float sum = __fadd_rn(x[i], residual[i]), t = tesra_fed(sum);
    residual[i] = t;
    return t;
  }
  __device__ __forceinline__ float again(int64_t i) const { return residual ? residual[i] : x[i]; }
};

__global__ void writeHeader(uint32_t* out, uint32_t kind, uint32_t parameter, uint32_t n) {
  const uint32_t words[4] = {TESRA_PACKED_MAGIC + kind, parameter, n, 0};
  if (threadIdx.x < 4) out[threadIdx.x] = words[threadIdx.x];
}

// ---------------------------------------------------------------- top k

// A key's digits from the top: 11, 10 and 10 bits.
constexpr int kDigits = 3;
template <int kDigit>
constexpr int kDigitBits = kDigit == 0 ? 11 : 10;
template <int kDigit>
constexpr int kDigitShift = 20 - 10 * kDigit;
constexpr int kBins = 1 << kDigitBits<0>;
// Elements a task: a block of threads looks at one.
constexpr int kTask = 1 << 14;

struct Selection {
  uint32_t prefix, left;  // the threshold's digits so far; entries wanted among those that share them
  uint32_t bins[kDigits][kBins];
};
struct TaskCount {
  uint32_t above, equal;  // entries of the task; later of all tasks before it
};

template <int kDigit>
__global__ void __launch_bounds__(kThreads)
    countDigits(Fed t, int64_t n, Selection* selection) {
  __shared__ uint32_t bins[kBins];
  constexpr int kAbove = kDigitShift<kDigit> + kDigitBits<kDigit>;
  constexpr uint32_t kMask = (1u << kDigitBits<kDigit>) - 1;
  for (int i = threadIdx.x; i < kBins; i += kThreads) bins[i] = 0;
  __syncthreads();
  const uint32_t prefix = selection->prefix;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < n; i += stride) {
    const uint32_t key = magnitudeBits(kDigit == 0 ? t.feed(i) : t.again(i));
    if (key >> kAbove == prefix) atomicAdd(&bins[key >> kDigitShift<kDigit> & kMask], 1u);
  }
  __syncthreads();
  for (int i = threadIdx.x; i < kBins; i += kThreads)
    if (bins[i]) atomicAdd(&selection->bins[kDigit][i], bins[i]);
}

// One block: the bin that holds the `left`-th largest key, from the top.
template <int kDigit>
__global__ void __launch_bounds__(kThreads) chooseDigit(Selection* selection) {
  __shared__ uint32_t part[kThreads];
  constexpr int kCount = 1 << kDigitBits<kDigit>, kEach = kCount / kThreads;
  const uint32_t* const bins = selection->bins[kDigit];
  const int top = kCount - 1 - static_cast<int>(threadIdx.x) * kEach;
  uint32_t sum = 0;
  for (int i = 0; i < kEach; i++) sum += bins[top - i];
  part[threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.x != 0) return;
  uint32_t left = selection->left;
  int chunk = 0;
  while (part[chunk] < left) left -= part[chunk++];
  int bin = kCount - 1 - chunk * kEach;
  while (bins[bin] < left) left -= bins[bin--];
  selection->left = left;
  selection->prefix = selection->prefix << kDigitBits<kDigit> | static_cast<uint32_t>(bin);
}

__global__ void startSelection(Selection* selection, uint32_t entries) {
  if (threadIdx.x == 0) selection->prefix = 0, selection->left = entries;
}

__global__ void __launch_bounds__(kThreads)
    countTasks(Fed t, int64_t n, const Selection* selection, TaskCount* counts) {
  __shared__ int above[kWarps], equal[kWarps];
  const uint32_t threshold = selection->prefix;
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * kTask;
  int mineAbove = 0, mineEqual = 0;
  for (int i = threadIdx.x; i < kTask && begin + i < n; i += kThreads) {
    const uint32_t key = magnitudeBits(t.again(begin + i));
    mineAbove += key > threshold;
    mineEqual += key == threshold;
  }
  mineAbove = __reduce_add_sync(0xffffffffu, mineAbove);
  mineEqual = __reduce_add_sync(0xffffffffu, mineEqual);
  if (threadIdx.x % 32 == 0) {
    above[threadIdx.x / 32] = mineAbove;
    equal[threadIdx.x / 32] = mineEqual;
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  TaskCount sum{0, 0};
  for (int i = 0; i < kWarps; i++) {
    sum.above += static_cast<uint32_t>(above[i]);
    sum.equal += static_cast<uint32_t>(equal[i]);
  }
  counts[blockIdx.x] = sum;
}

// One block: each task's counts become those of all tasks before it.
__global__ void __launch_bounds__(kThreads) scanTasks(TaskCount* counts, int tasks) {
  __shared__ TaskCount part[kThreads];
  const int each = (tasks + kThreads - 1) / kThreads, first = static_cast<int>(threadIdx.x) * each;
  TaskCount sum{0, 0};
  for (int i = first; i < first + each && i < tasks; i++) {
    sum.above += counts[i].above;
    sum.equal += counts[i].equal;
  }
  part[threadIdx.x] = sum;
  __syncthreads();
  TaskCount before{0, 0};
  for (int i = 0; i < static_cast<int>(threadIdx.x); i++) {
    before.above += part[i].above;
    before.equal += part[i].equal;
  }
  for (int i = first; i < first + each && i < tasks; i++) {
    const TaskCount own = counts[i];
    counts[i] = before;
    before.above += own.above;
    before.equal += own.equal;
  }
}

// Entries in the order of their indices: each has as many before it as keys above the threshold,
// and of those equal to it as many as are still wanted.
__global__ void __launch_bounds__(kThreads)
    writeEntries(Fed t, int64_t n, const Selection* selection, const TaskCount* counts,
                 uint32_t entries, uint32_t* indices, float* values) {
  __shared__ uint32_t warpAbove[kWarps], warpEqual[kWarps];
  const int thread = threadIdx.x, warp = thread / 32;
  const uint32_t threshold = selection->prefix, wanted = selection->left;
  const uint32_t lower = (1u << thread % 32) - 1;
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * kTask;
  uint32_t above = counts[blockIdx.x].above, equal = counts[blockIdx.x].equal;
  for (int round = 0; round < kTask / kThreads; round++) {
    const int64_t i = begin + round * kThreads + thread;
    const float value = i < n ? t.again(i) : 0.0f;
    const uint32_t key = magnitudeBits(value);
    const bool isAbove = i < n && key > threshold, isEqual = i < n && key == threshold;
    const uint32_t votesAbove = __ballot_sync(0xffffffffu, isAbove);
    const uint32_t votesEqual = __ballot_sync(0xffffffffu, isEqual);
    __syncthreads();  // the counts of the round before have been read
    if (thread % 32 == 0) {
      warpAbove[warp] = static_cast<uint32_t>(__popc(votesAbove));
      warpEqual[warp] = static_cast<uint32_t>(__popc(votesEqual));
    }
    __syncthreads();
    uint32_t beforeAbove = above + static_cast<uint32_t>(__popc(votesAbove & lower));
    uint32_t beforeEqual = equal + static_cast<uint32_t>(__popc(votesEqual & lower));
    for (int w = 0; w < kWarps; w++) {
      beforeAbove += w < warp ? warpAbove[w] : 0;
      beforeEqual += w < warp ? warpEqual[w] : 0;
      above += warpAbove[w];
      equal += warpEqual[w];
    }
    if (!isAbove && !(isEqual && beforeEqual < wanted)) continue;
    const uint32_t place = beforeAbove + (beforeEqual < wanted ? beforeEqual : wanted);
    if (place >= entries) continue;  // never; but memory is safe whatever the counts
    indices[place] = static_cast<uint32_t>(i);
    values[place] = value;
    if (t.residual) t.residual[i] = 0.0f;
  }
}

// ---------------------------------------------------------------- int8

struct Quantise {
  Fed t;
  int64_t n;
  uint32_t block, blocks;
  uint8_t stochastic;
  uint32_t keyLow, keyHigh, stream;
  float* scales;
  int8_t* q;
};

__device__ __forceinline__ int8_t quantised(const Quantise& o, float t, float inverse,
                                            uint32_t word) {
  if (!o.stochastic)
    return static_cast<int8_t>(
        tesra_float_bits(__fadd_rn(__fmul_rn(t, inverse), TESRA_ROUND_MAGIC)));
  const float u = __fmul_rn(static_cast<float>(word >> 8), 0x1p-24f);
  const float r = __fadd_rn(__fmul_rn(t, inverse), u);
  int whole = static_cast<int>(r);
  whole -= static_cast<float>(whole) > r ? 1 : 0;
  return static_cast<int8_t>(whole < 127 ? whole : 127);
}

// One block of threads a block of elements. A thread takes four neighbours, which share their
// random words.
__global__ void __launch_bounds__(kThreads) takeInt8(Quantise o) {
  __shared__ uint32_t part[kWarps];
  for (uint32_t b = blockIdx.x; b < o.blocks; b += gridDim.x) {
    const int64_t begin = static_cast<int64_t>(b) * o.block, left = o.n - begin;
    const int count = static_cast<int>(left < o.block ? left : o.block);
    const Fed t{o.t.x + begin, o.t.residual ? o.t.residual + begin : nullptr};
    int8_t* const q = o.q + begin;
    uint32_t most = 0;
    for (int i = 4 * threadIdx.x; i < count; i += 4 * kThreads)
      TESRA_FOR(e, 4) {
        const uint32_t here = i + e < count ? magnitudeBits(t.feed(i + e)) : 0;
        most = here > most ? here : most;
      }
    for (int apart = 16; apart > 0; apart /= 2) {
      const uint32_t other = __shfl_xor_sync(0xffffffffu, most, apart);
      most = other > most ? other : most;
    }
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = most;
    __syncthreads();
    for (int i = 0; i < kWarps; i++) most = part[i] > most ? part[i] : most;
    __syncthreads();
    const float a = tesra_bits_float(most);
    const bool finite = most < 0x7f800000u, sent = finite && a >= TESRA_INT8_TINY;
    const float inverse = sent ? __fdiv_rn(127.0f, a) : 0.0f;
    const float scale =
        sent ? __fdiv_rn(a, 127.0f) : finite ? 0.0f : tesra_bits_float(0x7fc00000u);
    if (threadIdx.x == 0) o.scales[b] = scale;
    for (int i = 4 * threadIdx.x; i < count; i += 4 * kThreads) {
      const uint32_t counter[4] = {static_cast<uint32_t>((begin + i) / 4), o.stream, 0, 0};
      uint32_t words[4] = {};
      if (o.stochastic) tesra_philox(counter, o.keyLow, o.keyHigh, words);
      TESRA_FOR(e, 4) {
        if (i + e >= count) continue;
        const float x = t.again(i + e);
        const int8_t whole = sent ? quantised(o, x, inverse, words[e]) : 0;
        q[i + e] = whole;
        if (!t.residual || (finite && !sent)) continue;
        t.residual[i + e] =
            finite ? __fsub_rn(x, __fmul_rn(static_cast<float>(whole), scale)) : 0.0f;
      }
    }
  }
}

// ---------------------------------------------------------------- signs

// Half a warp a block of elements: its 16 lanes are the header's.
__global__ void __launch_bounds__(kThreads)
    takeSigns(Fed t, int64_t n, uint32_t block, float* magnitudes, uint8_t* bits) {
  const int lane = threadIdx.x % TESRA_LANES, half = threadIdx.x % 32 / TESRA_LANES;
  const int64_t blocks = (n + block - 1) / block, stride = static_cast<int64_t>(gridDim.x) * kThreads;
  // Both halves of a warp go round as often: they vote together.
  for (int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x / 32 * 32;
       at / TESRA_LANES < blocks; at += stride) {
    const int64_t b = at / TESRA_LANES + half, begin = b * block;
    const int64_t left = b < blocks ? n - begin : 0;
    const int count = static_cast<int>(left < block ? left : block);
    float sum = 0.0f;
    for (int i = lane; i < count; i += TESRA_LANES)
      sum = __fadd_rn(sum, tesra_bits_float(magnitudeBits(t.feed(begin + i))));
    sum = foldLanes(sum);
    const bool finite = __fsub_rn(sum, sum) == 0.0f;
    const float magnitude = finite && count > 0 ? __fdiv_rn(sum, static_cast<float>(count))
                                                : tesra_bits_float(0x7fc00000u);
    if (lane == 0 && count > 0) magnitudes[b] = magnitude;
    for (uint32_t i = lane; i < block; i += TESRA_LANES) {
      const bool inside = static_cast<int>(i) < count;
      const float x = inside ? t.again(begin + i) : 0.0f;
      const uint32_t sign = tesra_float_bits(x) & 0x80000000u;
      const uint32_t votes = __ballot_sync(0xffffffffu, sign != 0) >> (TESRA_LANES * half) & 0xffff;
      const int first = static_cast<int>(i) - lane;  // of the sixteen
      if (lane % 8 == 0 && first + lane < count)
        bits[(begin + first + lane) / 8] = static_cast<uint8_t>(votes >> lane);
      if (!inside || !t.residual) continue;
      t.residual[begin + i] =
          finite ? __fsub_rn(x, tesra_bits_float(tesra_float_bits(magnitude) | sign)) : 0.0f;
    }
  }
}

// ---------------------------------------------------------------- expansion

__device__ __forceinline__ void expand(const tesra_decompress& d, int64_t i, float element) {
  d.out[i] = d.add ? __fmaf_rn(d.scale, element, d.out[i]) : __fmul_rn(d.scale, element);
}

__global__ void __launch_bounds__(kThreads) putEntries(tesra_decompress d) {
  const uint32_t* const indices = reinterpret_cast<const uint32_t*>(d.packed + TESRA_PACKED_HEADER);
  const float* const values = reinterpret_cast<const float*>(indices + d.parameter);
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < d.parameter;
       i += stride)
    if (indices[i] < d.n) expand(d, indices[i], values[i]);
}

template <bool kSigns>
__global__ void __launch_bounds__(kThreads) putBlocks(tesra_decompress d) {
  const float* const units = reinterpret_cast<const float*>(d.packed + TESRA_PACKED_HEADER);
  const uint32_t n = static_cast<uint32_t>(d.n), blocks = (n + d.parameter - 1) / d.parameter;
  const uint8_t* const parts = reinterpret_cast<const uint8_t*>(units + blocks);
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < d.n; i += stride) {
    const float unit = units[static_cast<uint32_t>(i) / d.parameter];
    float element;
    if (kSigns)
      element = parts[i / 8] >> (i % 8) & 1 ? -unit : unit;
    else
      element = __fmul_rn(static_cast<float>(static_cast<int8_t>(parts[i])), unit);
    expand(d, i, element);
  }
}

int tasksOf(int64_t n) {
  return static_cast<int>((n + kTask - 1) / kTask);
}

cudaError_t launchTopk(const Launch& launch, const tesra_compress& c) {
  const Fed t{c.x, c.residual};
  if (c.n == 0) return cudaSuccess;
  Selection* const selection = static_cast<Selection*>(launch.scratch);
  TaskCount* const counts = reinterpret_cast<TaskCount*>(selection + 1);
  const cudaError_t error = cudaMemsetAsync(selection, 0, sizeof(Selection), launch.stream);
  if (error != cudaSuccess) return error;
  const unsigned grid = gridFor(c.n, kTask), tasks = static_cast<unsigned>(tasksOf(c.n));
  TESRA_LAUNCH(startSelection, 1, 32, 0, launch.stream, selection, c.parameter);
  TESRA_LAUNCH(countDigits<0>, grid, kThreads, 0, launch.stream, t, c.n, selection);
  if (c.parameter == 0) return cudaGetLastError();  // the residual has been fed
  TESRA_LAUNCH(chooseDigit<0>, 1, kThreads, 0, launch.stream, selection);
  TESRA_LAUNCH(countDigits<1>, grid, kThreads, 0, launch.stream, t, c.n, selection);
  TESRA_LAUNCH(chooseDigit<1>, 1, kThreads, 0, launch.stream, selection);
  TESRA_LAUNCH(countDigits<2>, grid, kThreads, 0, launch.stream, t, c.n, selection);
  TESRA_LAUNCH(chooseDigit<2>, 1, kThreads, 0, launch.stream, selection);
  TESRA_LAUNCH(countTasks, tasks, kThreads, 0, launch.stream, t, c.n, selection, counts);
  TESRA_LAUNCH(scanTasks, 1, kThreads, 0, launch.stream, counts, static_cast<int>(tasks));
  uint32_t* const indices = reinterpret_cast<uint32_t*>(c.out + TESRA_PACKED_HEADER);
  float* const values = reinterpret_cast<float*>(indices + c.parameter);
  TESRA_LAUNCH(writeEntries, tasks, kThreads, 0, launch.stream, t, c.n, selection, counts,
               c.parameter, indices, values);
  return cudaGetLastError();
}

}  // namespace

size_t compressScratch(const tesra_compress& op) {
  if (op.kind != TESRA_TOPK) return 0;
  return sizeof(Selection) + sizeof(TaskCount) * static_cast<size_t>(tasksOf(op.n));
}

cudaError_t launchCompress(const Launch& launch, const tesra_compress& op) {
  TESRA_LAUNCH(writeHeader, 1, 32, 0, launch.stream, reinterpret_cast<uint32_t*>(op.out),
               static_cast<uint32_t>(op.kind), op.parameter, static_cast<uint32_t>(op.n));
  if (op.kind == TESRA_TOPK) return launchTopk(launch, op);
  if (op.n == 0) return cudaGetLastError();
  const Fed t{op.x, op.residual};
  const int64_t blocks = (op.n + op.parameter - 1) / op.parameter;
  float* const units = reinterpret_cast<float*>(op.out + TESRA_PACKED_HEADER);
  uint8_t* const parts = reinterpret_cast<uint8_t*>(units + blocks);
  if (op.kind == TESRA_INT8) {
    const Quantise o{t,         op.n,         op.parameter, static_cast<uint32_t>(blocks),
                     op.stochastic, op.key_low, op.key_high, op.stream,
                     units,     reinterpret_cast<int8_t*>(parts)};
    TESRA_LAUNCH(takeInt8, gridFor(blocks, 1), kThreads, 0, launch.stream, o);
  } else {
    TESRA_LAUNCH(takeSigns, gridFor(blocks * TESRA_LANES, kThreads), kThreads, 0, launch.stream, t,
                 op.n, op.parameter, units, parts);
  }
  return cudaGetLastError();
}

cudaError_t launchDecompress(const Launch& launch, const tesra_decompress& op) {
  if (op.n == 0) return cudaSuccess;
  if (op.kind == TESRA_TOPK) {
    if (!op.add) {
      const cudaError_t error = cudaMemsetAsync(op.out, 0, size_t{4} * op.n, launch.stream);
      if (error != cudaSuccess) return error;
    }
    if (op.parameter)
      TESRA_LAUNCH(putEntries, gridFor(op.parameter, kThreads), kThreads, 0, launch.stream, op);
  } else if (op.kind == TESRA_INT8) {
    TESRA_LAUNCH(putBlocks<false>, gridFor(op.n, kThreads), kThreads, 0, launch.stream, op);
  } else {
    TESRA_LAUNCH(putBlocks<true>, gridFor(op.n, kThreads), kThreads, 0, launch.stream, op);
  }
  return cudaGetLastError();
}

}  // namespace tesra::cuda
