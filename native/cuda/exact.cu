// Owns exact-int on the GPU: cutting operands into int8 slices, and the join of the slices' products
// to fp32. The products are tensor-product.h's. Invariant: exact.h, bit for bit.
//
// A run (a row of op(A), a column of op(B)) holds its slices one after another, `slice` bytes each:
// A's first to last, B's last to first. The products of one order are then one product over a longer
// k, of the first slices of A and the last of B.
#include "../kernels/exact.h"

#include "product.h"

namespace tesra::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kSliceAlignment = 64;  // what the int8 product asks of a depth

// `count` runs of `depth` floats: run r at from + r * apart, its elements `step` floats apart. Slice
// s of run r goes to out + r * slices * slice + s * plane, zero from depth to slice.
struct Cut {
  const float* from;
  int64_t apart, step;
  int count, depth, slices, slice;
  int8_t* out;
  int64_t plane;
  double* scales;
};

__device__ __forceinline__ uint32_t magnitude(float x) {
  return tesra_float_bits(x) & 0x7fffffffu;
}

// One block a run. Where runs lie across memory, neighbouring blocks read neighbouring floats: a
// sector serves eight of them out of L2.
__global__ void __launch_bounds__(kThreads) cutRuns(Cut c) {
  __shared__ uint32_t part[kThreads / 32];
  const int thread = threadIdx.x;
  for (int run = blockIdx.x; run < c.count; run += gridDim.x) {
    const float* const x = c.from + run * c.apart;
    uint32_t largest = 0;
    for (int i = thread; i < c.depth; i += kThreads) {
      const uint32_t here = magnitude(x[i * c.step]);
      largest = here > largest ? here : largest;
    }
    for (int step = 16; step > 0; step /= 2) {
      const uint32_t other = __shfl_xor_sync(0xffffffffu, largest, step);
      largest = other > largest ? other : largest;
    }
    if (thread % 32 == 0) part[thread / 32] = largest;
    __syncthreads();
    for (int i = 0; i < kThreads / 32; i++) largest = part[i] > largest ? part[i] : largest;
    __syncthreads();
    const bool finite = largest < 0x7f800000u;
    const int biased = largest >> 23 > 0 ? static_cast<int>(largest >> 23) : 1;
    const int up = finite ? 132 - biased : 0, half = up >> 1;
    const float first = tesra_bits_float(static_cast<uint32_t>(127 + half) << 23);
    const float second = tesra_bits_float(static_cast<uint32_t>(127 + up - half) << 23);
    int8_t* const out = c.out + static_cast<int64_t>(run) * c.slices * c.slice;
    for (int i = thread; i < c.slice; i += kThreads) {
      float t = finite && i < c.depth ? __fmul_rn(__fmul_rn(x[i * c.step], first), second) : 0.0f;
      for (int s = 0; s < c.slices; s++) {
        const float whole = rintf(t);
        out[s * c.plane + i] = static_cast<int8_t>(static_cast<int>(whole));
        t = __fmul_rn(__fsub_rn(t, whole), 128.0f);
      }
    }
    if (thread == 0) c.scales[run] = finite ? ldexp(1.0, -up) : static_cast<double>(NAN);
  }
}

struct Join {
  const int32_t* sums;  // by order, m x n each
  const double *rows, *columns;
  Epilogue e;  // with the bias and all that follows in the last chunk of k alone
  int64_t cells;
  int slices;
  bool load;
};

__global__ void __launch_bounds__(kThreads) joinSlices(Join j) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < j.cells;
       i += stride) {
    const int64_t row = i / j.e.n, column = i - row * j.e.n;
    double q = j.sums[i], unit = 1.0;
    for (int s = 1; s < j.slices; s++) {
      q = q * 128.0 + j.sums[s * j.cells + i];  // below 2^46: exact, contracted or not
      unit *= 0x1p-7;
    }
    const float value = static_cast<float>((q * j.rows[row]) * (j.columns[column] * unit));
    float sum = j.load ? __fadd_rn(j.e.c[i], value) : value;
    sum = finished(j.e, sum, static_cast<int>(column));
    j.e.c[i] = j.e.more ? j.e.fused(i, sum) : sum;
  }
}

int sliceOf(const tesra_gemm& g) {
  const int depth = g.k < TESRA_EXACT_K_CHUNK ? g.k : TESRA_EXACT_K_CHUNK;
  return (depth + kSliceAlignment - 1) / kSliceAlignment * kSliceAlignment;
}

// Where everything lies in the scratch, in bytes.
struct Layout {
  explicit Layout(const tesra_exact_gemm& e) : slice(sliceOf(e.gemm)) {
    const tesra_gemm& g = e.gemm;
    const auto place = [&](int64_t bytes) {
      const size_t at = total;
      total += static_cast<size_t>((bytes + 255) / 256 * 256);
      return at;
    };
    const int64_t run = int64_t{e.slices} * slice;
    a = place(g.m * run);
    b = place(g.n * run);
    rows = place(int64_t{g.m} * 8);
    columns = place(int64_t{g.n} * 8);
    sums = place(int64_t{4} * e.slices * g.m * g.n);
  }
  int slice;
  size_t total = 0, a, b, rows, columns, sums;
};

bool isEmpty(const tesra_gemm& g) {
  return g.m == 0 || g.n == 0 || g.k == 0;
}

}  // namespace

size_t exactGemmScratch(const tesra_exact_gemm& op, int multiprocessors) {
  return isEmpty(op.gemm) ? gemmScratch(op.gemm, multiprocessors) : Layout(op).total;
}

cudaError_t launchExactGemm(const Launch& launch, const tesra_exact_gemm& op) {
  const tesra_gemm& g = op.gemm;
  if (isEmpty(g)) return launchGemm(launch, g);
  const Layout at(op);
  char* const base = static_cast<char*>(launch.scratch);
  int8_t* const a = reinterpret_cast<int8_t*>(base + at.a);
  int8_t* const b = reinterpret_cast<int8_t*>(base + at.b);
  double* const rows = reinterpret_cast<double*>(base + at.rows);
  double* const columns = reinterpret_cast<double*>(base + at.columns);
  int32_t* const sums = reinterpret_cast<int32_t*>(base + at.sums);
  const int64_t cells = static_cast<int64_t>(g.m) * g.n;
  const int run = op.slices * at.slice;
  for (int k0 = 0; k0 < g.k; k0 += TESRA_EXACT_K_CHUNK) {
    const int depth = g.k - k0 < TESRA_EXACT_K_CHUNK ? g.k - k0 : TESRA_EXACT_K_CHUNK;
    const Cut cutA{g.trans_a ? g.a + int64_t{k0} * g.m : g.a + k0,
                   g.trans_a ? 1 : g.k,
                   g.trans_a ? g.m : 1,
                   g.m, depth, op.slices, at.slice, a, at.slice, rows};
    const Cut cutB{g.trans_b ? g.b + k0 : g.b + int64_t{k0} * g.n,
                   g.trans_b ? g.k : 1,
                   g.trans_b ? 1 : g.n,
                   g.n, depth, op.slices, at.slice, b + (op.slices - 1) * at.slice, -at.slice,
                   columns};
    TESRA_LAUNCH(cutRuns, gridFor(g.m, 1), kThreads, 0, launch.stream, cutA);
    TESRA_LAUNCH(cutRuns, gridFor(g.n, 1), kThreads, 0, launch.stream, cutB);
    cudaError_t error = cudaGetLastError();
    for (int order = 0; order < op.slices && error == cudaSuccess; order++)
      error = launchInt8Gemm(launch, a, b + (op.slices - 1 - order) * at.slice,
                             sums + order * cells, g.m, g.n, (order + 1) * at.slice, run);
    if (error != cudaSuccess) return error;
    Epilogue e = epilogueOf(g);
    if (k0 + depth < g.k) e.bias = nullptr, e.relu = e.more = false;
    const Join join{sums, rows, columns, e, cells, op.slices, k0 > 0 || g.accumulate != 0};
    TESRA_LAUNCH(joinSlices, gridFor(cells, kThreads), kThreads, 0, launch.stream, join);
    error = cudaGetLastError();
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace tesra::cuda
