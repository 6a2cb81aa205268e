// Owns the fp32 matrix product that gemm.cu and conv.cu share: C[row][column] = sum over k of
// A(row, k) * B(column, k), where each operand is a loader that says where an element lies.
// Invariant (repro-f32): for each output, each TESRA_K_CHUNK of k is one FMA chain from +0 with k
// ascending, and the chunk sums are added in ascending order. Tile size and splitting therefore
// change no bit.
#pragma once
#include "../kernels/gemm.h"
#include "launch.h"

namespace tesra::cuda {

constexpr int kTileK = 16;  // k a pipeline stage; divides TESRA_K_CHUNK
constexpr int kProductStages = 3;
constexpr int kPadding = 4;  // floats after each shared row: keeps 16-byte alignment, spreads banks
static_assert(TESRA_K_CHUNK % kTileK == 0, "a stage never crosses a chunk");

// A warp is 4 x 8 lanes; a lane owns kGroups x kGroups pieces of 4 x 4 outputs, 16 rows (32
// columns) apart.
template <int kGroupsT, int kWarpsMT, int kWarpsNT, int kBlocksT>
struct Tile {
  static constexpr int kGroups = kGroupsT;
  static constexpr int kWarpsM = kWarpsMT;
  static constexpr int kWarpsN = kWarpsNT;
  static constexpr int kThreads = 32 * kWarpsM * kWarpsN;
  static constexpr int kRows = kWarpsM * 16 * kGroups;
  static constexpr int kColumns = kWarpsN * 32 * kGroups;
  static constexpr int kBlocksPerMultiprocessor = kBlocksT;
};
// 64 x 128 with 8 x 8 outputs a thread. 128 registers are accumulators (running chunk and total);
// with 3 blocks a multiprocessor (168 registers) 72 words a thread spill, with 2 none: the 64
// independent chains hide latency with fewer warps.
using LargeTile = Tile<2, 2, 2, 2>;
// 32 x 32 with 4 x 4 outputs a thread, for products too small to fill the GPU with large tiles.
using SmallTile = Tile<1, 2, 1, 8>;

struct Epilogue {
  float* c;
  const float* bias;
  float* partial;  // not NULL: block row y handles chunk y alone and stores its sums here
  int m, n, k;
  bool relu, accumulate;
  bool more = false;  // what gemm.h fuses beside bias and ReLU is in the rest
  uint8_t activation = TESRA_ACTIVATION_NONE;
  const float *before = nullptr, *residual = nullptr;
  float* saved = nullptr;
  // Element i of C from its sum with the bias.
  __device__ __forceinline__ float fused(int64_t i, float s) const {
    if (saved) saved[i] = s;
    s = tesra_activated(activation, s, before ? before + i : nullptr);
    return residual ? __fadd_rn(s, residual[i]) : s;
  }
};
// What tiles make of a finished sum; `fused` follows where there is more.
__device__ __forceinline__ float finished(const Epilogue& e, float sum, int column) {
  if (e.bias) sum = __fadd_rn(sum, e.bias[column]);
  return e.relu ? tesra_relu(sum) : sum;
}

// Division by a constant as one multiplication (Granlund and Montgomery 1994), exact for 0 <= x <
// 2^31.
struct FastDivide {
  uint32_t divisor, multiplier, shift;
  FastDivide() = default;
  explicit FastDivide(uint32_t x)
      : divisor(x ? x : 1), multiplier(0), shift(0) {  // 0: an empty tensor
    const uint32_t d = divisor;
    while ((uint64_t{1} << shift) < d) shift++;
    multiplier =
        static_cast<uint32_t>((((uint64_t{1} << 32) * ((uint64_t{1} << shift) - d)) / d) + 1);
  }
  __device__ __forceinline__ int quotient(int x) const {
    const uint32_t high = __umulhi(static_cast<uint32_t>(x), multiplier);
    return static_cast<int>((high + static_cast<uint32_t>(x)) >> shift);
  }
  __device__ __forceinline__ int divide(int x, int& remainder) const {
    const int q = quotient(x);
    remainder = x - q * static_cast<int>(divisor);
    return q;
  }
};

// A dense operand: element (row, k) at p[row * stride + k] (along k) or p[k * stride + row].
template <bool kAlongKT>
struct Dense {
  static constexpr bool kAlongK = kAlongKT;
  static constexpr bool kIsDense = true;
  const float* p;
  int64_t stride;
  bool vectors;  // 16-byte copies along rows are aligned, and the row count is a multiple of 4
  __device__ __forceinline__ const float* at(int row, int k) const {
    return kAlongK ? p + row * stride + k : p + k * stride + row;
  }
};
template <bool kAlongK>
inline Dense<kAlongK> dense(const float* p, int64_t stride, int rows) {
  return Dense<kAlongK>{p, stride, !kAlongK && aligned16(p) && stride % 4 == 0 && rows % 4 == 0};
}

// Copies `kCount` elements (4 * kWidth bytes each), `apart` floats from one to the next, of which
// the first `valid` exist. The pointer walks through an opaque statement: otherwise the compiler
// keeps kCount addresses in registers across the whole product (measured: 1.2 KB of spills a
// thread).
template <int kCount, int kWidth, int kSharedStep>
__device__ __forceinline__ void copyWalk(float* s, const float* from, int64_t apart, int valid) {
  TESRA_FOR(i, kCount) {
    copyAsync<4 * kWidth>(s + i * kSharedStep, from, i < valid);
    from += apart;
    TESRA_OPAQUE(from);
  }
}

// Copies the kRows x kTileK stage of one operand to shared memory as s[k][row].
template <int kRows, int kThreads, class Load>
__device__ __forceinline__ void copyStage(float* s, const Load& load, int row0, int rows, int k0,
                                          int kEnd) {
  constexpr int kStride = kRows + kPadding;
  constexpr int kCount = kTileK * kRows / kThreads;
  const int thread = threadIdx.x;
  if constexpr (!Load::kIsDense) {
    TESRA_UNROLL_2
    for (int i = 0; i < kCount; i++) {
      const int at = thread + i * kThreads;
      const int r = Load::kAlongK ? at / kTileK : at % kRows;
      const int kk = Load::kAlongK ? at % kTileK : at / kRows;
      const float* from = row0 + r < rows && k0 + kk < kEnd ? load.at(row0 + r, k0 + kk) : nullptr;
      copyAsync<4>(s + kk * kStride + r, from ? from : load.base(), from != nullptr);
    }
  } else if constexpr (Load::kAlongK) {
    constexpr int kStep = kThreads / kTileK;
    const int r = thread / kTileK, kk = thread % kTileK;
    const int valid = k0 + kk < kEnd ? (rows - row0 - r + kStep - 1) / kStep : 0;
    copyWalk<kCount, 1, kStep>(s + kk * kStride + r, load.at(row0 + r, k0 + kk),
                               kStep * load.stride, valid);
  } else if (load.vectors) {
    constexpr int kPieces = kRows / 4, kStep = kThreads / kPieces;
    const int r = thread % kPieces * 4, kk = thread / kPieces;
    const int valid = row0 + r < rows ? (kEnd - k0 - kk + kStep - 1) / kStep : 0;
    copyWalk<kCount / 4, 4, kStep * kStride>(s + kk * kStride + r, load.at(row0 + r, k0 + kk),
                                             kStep * load.stride, valid);
  } else {
    constexpr int kStep = kThreads / kRows;
    const int r = thread % kRows, kk = thread / kRows;
    const int valid = row0 + r < rows ? (kEnd - k0 - kk + kStep - 1) / kStep : 0;
    copyWalk<kCount, 1, kStep * kStride>(s + kk * kStride + r, load.at(row0 + r, k0 + kk),
                                         kStep * load.stride, valid);
  }
}

template <class T, class LoadA, class LoadB>
__global__ void __launch_bounds__(T::kThreads, T::kBlocksPerMultiprocessor)
    product(LoadA loadA, LoadB loadB, Epilogue e, int blocksM) {
  constexpr int kG = T::kGroups;
  constexpr int kStrideA = T::kRows + kPadding, kStrideB = T::kColumns + kPadding;
  __shared__ __align__(16) float sharedA[kProductStages][kTileK * kStrideA];
  __shared__ __align__(16) float sharedB[kProductStages][kTileK * kStrideB];

  const int row0 = static_cast<int>(blockIdx.x) % blocksM * T::kRows;
  const int column0 = static_cast<int>(blockIdx.x) / blocksM * T::kColumns;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int laneRow = warp % T::kWarpsM * (16 * kG) + lane / 8 * 4;
  const int laneColumn = warp / T::kWarpsM * (32 * kG) + lane % 8 * 4;

  int kBegin = 0, kEnd = e.k;
  if (e.partial) {
    kBegin = static_cast<int>(blockIdx.y) * TESRA_K_CHUNK;
    kEnd = min(e.k, kBegin + TESRA_K_CHUNK);
  }
  const int stages = (kEnd - kBegin + kTileK - 1) / kTileK;

  float sum[kG][kG][4][4], total[kG][kG][4][4];
  TESRA_FOR(i, kG)
    TESRA_FOR(j, kG)
      TESRA_FOR(r, 4)
        TESRA_FOR(c, 4) sum[i][j][r][c] = total[i][j][r][c] = 0.0f;

  TESRA_FOR(s, kProductStages - 1) {
    if (s < stages) {
      copyStage<T::kRows, T::kThreads>(sharedA[s], loadA, row0, e.m, kBegin + s * kTileK, kEnd);
      copyStage<T::kColumns, T::kThreads>(sharedB[s], loadB, column0, e.n, kBegin + s * kTileK,
                                          kEnd);
    }
    copyCommit();
  }

  const auto step = [&](const float* a, const float* b) {
    float fa[kG][4], fb[kG][4];
    TESRA_FOR(i, kG) {
      const float4 va = *reinterpret_cast<const float4*>(a + laneRow + 16 * i);
      const float4 vb = *reinterpret_cast<const float4*>(b + laneColumn + 32 * i);
      fa[i][0] = va.x, fa[i][1] = va.y, fa[i][2] = va.z, fa[i][3] = va.w;
      fb[i][0] = vb.x, fb[i][1] = vb.y, fb[i][2] = vb.z, fb[i][3] = vb.w;
    }
    TESRA_FOR(i, kG)
      TESRA_FOR(j, kG)
        TESRA_FOR(r, 4)
          TESRA_FOR(c, 4) sum[i][j][r][c] = __fmaf_rn(fa[i][r], fb[j][c], sum[i][j][r][c]);
  };
  // Visits the lane's outputs inside the matrix: visit(row, column, i, j, r, c).
  const auto outputs = [&](auto&& visit) {
    TESRA_FOR(i, kG)
      TESRA_FOR(r, 4) {
        const int row = row0 + laneRow + 16 * i + r;
        if (row >= e.m) continue;
        TESRA_FOR(j, kG)
          TESRA_FOR(c, 4) {
            const int column = column0 + laneColumn + 32 * j + c;
            if (column < e.n) visit(row, column, i, j, r, c);
          }
      }
  };

  bool first = true;  // the first chunk's sum is taken as it is: +0 + -0 would be +0
  if (e.accumulate && !e.partial) {
    outputs([&](int row, int column, int i, int j, int r, int c) {
      total[i][j][r][c] = e.c[static_cast<int64_t>(row) * e.n + column];
    });
    first = false;
  }
  int slot = 0;
  TESRA_NO_UNROLL
  for (int s = 0; s < stages; s++) {
    copyWait<kProductStages - 2>();
    __syncthreads();  // stage s is there for all; all are done with the slot that the next copy
                      // overwrites
    const int ahead = s + kProductStages - 1;
    if (ahead < stages) {
      const int to = slot == 0 ? kProductStages - 1 : slot - 1;
      copyStage<T::kRows, T::kThreads>(sharedA[to], loadA, row0, e.m, kBegin + ahead * kTileK,
                                       kEnd);
      copyStage<T::kColumns, T::kThreads>(sharedB[to], loadB, column0, e.n, kBegin + ahead * kTileK,
                                          kEnd);
    }
    copyCommit();

    const float* a = sharedA[slot];
    const float* b = sharedB[slot];
    const int depth = kEnd - (kBegin + s * kTileK);
    if (depth >= kTileK) {
      TESRA_FOR(kk, kTileK) step(a + kk * kStrideA, b + kk * kStrideB);
    } else {
      // No step beyond k: fma(0, 0, -0) would turn a sum of -0 into +0.
      TESRA_NO_UNROLL
      for (int kk = 0; kk < depth; kk++) step(a + kk * kStrideA, b + kk * kStrideB);
    }
    slot = slot + 1 == kProductStages ? 0 : slot + 1;

    if ((s + 1) % (TESRA_K_CHUNK / kTileK) == 0 || s + 1 == stages) {
      TESRA_FOR(i, kG)
        TESRA_FOR(j, kG)
          TESRA_FOR(r, 4)
            TESRA_FOR(c, 4) {
              const float chunk = sum[i][j][r][c];
              total[i][j][r][c] = first ? chunk : __fadd_rn(total[i][j][r][c], chunk);
              sum[i][j][r][c] = 0.0f;
            }
      first = false;
    }
  }

  if (e.partial) {
    float* partial = e.partial + static_cast<int64_t>(blockIdx.y) * e.m * e.n;
    outputs([&](int row, int column, int i, int j, int r, int c) {
      partial[static_cast<int64_t>(row) * e.n + column] = total[i][j][r][c];
    });
  } else {
    outputs([&](int row, int column, int i, int j, int r, int c) {
      e.c[static_cast<int64_t>(row) * e.n + column] = finished(e, total[i][j][r][c], column);
    });
    // The lane's own outputs once more, not unrolled: 64 copies of the activations would not fit
    // the instruction cache, nor their temporaries the registers beside the sums. Convolutions fuse
    // no more than ReLU.
    if constexpr (LoadA::kIsDense && LoadB::kIsDense) {
      if (!e.more) return;
      TESRA_NO_UNROLL
      for (int o = 0; o < 16 * kG * kG; o++) {
        const int row = row0 + laneRow + 16 * (o / (16 * kG)) + o / (4 * kG) % 4;
        const int column = column0 + laneColumn + 32 * (o / 4 % kG) + o % 4;
        if (row >= e.m || column >= e.n) continue;
        const int64_t i = static_cast<int64_t>(row) * e.n + column;
        e.c[i] = e.fused(i, e.c[i]);
      }
    }
  }
}

// How one product is cut for a GPU of so many multiprocessors; changes speed only.
struct ProductShape {
  bool large;
  int blocksM, blocksN, chunks;
  bool split;
};
// Splitting stores chunks * m * n floats; beyond this the copies cost more than idle
// multiprocessors.
constexpr int64_t kPartialBytesMax = int64_t{256} << 20;
inline ProductShape productShape(int m, int n, int k, int multiprocessors) {
  const auto ceil = [](int64_t x, int64_t y) { return (x + y - 1) / y; };
  ProductShape shape{};
  shape.chunks = static_cast<int>(ceil(k, TESRA_K_CHUNK));
  const int64_t large = ceil(m, LargeTile::kRows) * ceil(n, LargeTile::kColumns);
  shape.large = large >= 2 * multiprocessors;
  const int rows = shape.large ? LargeTile::kRows : SmallTile::kRows;
  const int columns = shape.large ? LargeTile::kColumns : SmallTile::kColumns;
  shape.blocksM = static_cast<int>(ceil(m, rows));
  shape.blocksN = static_cast<int>(ceil(n, columns));
  const int64_t blocks = int64_t{shape.blocksM} * shape.blocksN;
  shape.split = shape.chunks == 0 ||
                (shape.chunks > 1 && shape.chunks <= 65535 && blocks < 4 * multiprocessors &&
                 int64_t{shape.chunks} * m * n * 4 <= kPartialBytesMax);
  return shape;
}
inline size_t productScratch(int m, int n, int k, int multiprocessors) {
  const ProductShape shape = productShape(m, n, k, multiprocessors);
  return shape.split ? static_cast<size_t>(shape.chunks) * m * n * sizeof(float) : 0;
}

// What gemm.h fuses behind the sums of `op`. Defined in gemm.cu.
Epilogue epilogueOf(const tesra_gemm& op);

// Passes over C once for what is `more`, for products whose tiles leave it out. Defined in gemm.cu.
cudaError_t launchFused(cudaStream_t stream, const Epilogue& e);

// Adds the chunk sums of a split product in order; chunks = 0 stands for an empty k. Defined in
// gemm.cu.
cudaError_t launchJoin(cudaStream_t stream, const Epilogue& e, int chunks);

template <class LoadA, class LoadB>
cudaError_t launchProduct(const Launch& launch, const LoadA& a, const LoadB& b, Epilogue e) {
  if (e.m == 0 || e.n == 0) return cudaSuccess;
  const ProductShape shape = productShape(e.m, e.n, e.k, launch.multiprocessors);
  if (shape.split) e.partial = static_cast<float*>(launch.scratch);
  const dim3 grid(static_cast<unsigned>(shape.blocksM) * shape.blocksN,
                  shape.split ? shape.chunks : 1);
  if (shape.chunks > 0) {
    if (shape.large) {
      auto* kernel = product<LargeTile, LoadA, LoadB>;
      TESRA_LAUNCH(kernel, grid, LargeTile::kThreads, 0, launch.stream, a, b, e, shape.blocksM);
    } else {
      auto* kernel = product<SmallTile, LoadA, LoadB>;
      TESRA_LAUNCH(kernel, grid, SmallTile::kThreads, 0, launch.stream, a, b, e, shape.blocksM);
    }
    const cudaError_t error = cudaGetLastError();
    if (error != cudaSuccess) return error;
  }
  return shape.split ? launchJoin(launch.stream, e, shape.chunks) : cudaSuccess;
}

}  // namespace tesra::cuda
