// Owns the bf16 form of the matrix product on the GPU: rounding the operands, row by row along k,
// and the product on tensor cores. Invariant: gemm.h, BF16_GEMM.
#include "../kernels/bf16.h"

#include "tensor-product.h"

namespace tesra::cuda {
namespace {

constexpr int kPack = 8;  // bf16 in 16 bytes
constexpr int kRowThreads = 128;
constexpr int kTile = 64;
constexpr int kTileThreads = 256;

// `rows` rows of `depth` floats to rows of `pitch` bf16, zero from depth on.
struct Round {
  const float* from;
  int64_t stride;  // floats between rows (roundRows) or between elements of a row (roundColumns)
  int rows, depth, pitch;
  uint16_t* to;
  bool vectors;  // 16-byte loads are aligned
};

__device__ __forceinline__ uint32_t pairOf(float low, float high) {
  return tesra_bf16_bits(low) | tesra_bf16_bits(high) << 16;
}
__device__ __forceinline__ uint4 packOf(const float (&x)[kPack]) {
  return uint4{pairOf(x[0], x[1]), pairOf(x[2], x[3]), pairOf(x[4], x[5]), pairOf(x[6], x[7])};
}

// Rows that lie along k. A block takes whole rows, a thread eight elements.
__global__ void __launch_bounds__(kRowThreads) roundRows(Round r) {
  for (int row = blockIdx.x; row < r.rows; row += gridDim.x) {
    const float* const from = r.from + row * r.stride;
    uint4* const to = reinterpret_cast<uint4*>(r.to + static_cast<int64_t>(row) * r.pitch);
    for (int pack = threadIdx.x; pack < r.pitch / kPack; pack += kRowThreads) {
      const int first = pack * kPack;
      float x[kPack];
      if (r.vectors && first + kPack <= r.depth) {
        const float4 low = *reinterpret_cast<const float4*>(from + first);
        const float4 high = *reinterpret_cast<const float4*>(from + first + 4);
        x[0] = low.x, x[1] = low.y, x[2] = low.z, x[3] = low.w;
        x[4] = high.x, x[5] = high.y, x[6] = high.z, x[7] = high.w;
      } else {
        TESRA_FOR(i, kPack) x[i] = first + i < r.depth ? from[first + i] : 0.0f;
      }
      to[pack] = packOf(x);
    }
  }
}

// Rows that lie across memory: tiles of 64 x 64 turn in shared memory, so that both sides are read
// and written along their own rows.
__global__ void __launch_bounds__(kTileThreads) roundColumns(Round r) {
  __shared__ float tile[kTile][kTile + 1];
  const int tilesRows = (r.rows + kTile - 1) / kTile;
  const int64_t tiles = static_cast<int64_t>(tilesRows) * ((r.pitch + kTile - 1) / kTile);
  for (int64_t index = blockIdx.x; index < tiles; index += gridDim.x) {
    const int row0 = static_cast<int>(index % tilesRows) * kTile;
    const int depth0 = static_cast<int>(index / tilesRows) * kTile;
    const int column = threadIdx.x % kTile;
    __syncthreads();  // the tile before has been written out
    for (int i = threadIdx.x / kTile; i < kTile; i += kTileThreads / kTile)
      tile[i][column] = row0 + column < r.rows && depth0 + i < r.depth
                            ? r.from[(depth0 + i) * r.stride + row0 + column]
                            : 0.0f;
    __syncthreads();
    const int row = threadIdx.x / 4;
    for (int first = threadIdx.x % 4 * kPack; first < kTile; first += 4 * kPack) {
      if (row0 + row >= r.rows || depth0 + first >= r.pitch) continue;
      float x[kPack];
      TESRA_FOR(i, kPack) x[i] = tile[first + i][row];
      *reinterpret_cast<uint4*>(r.to + static_cast<int64_t>(row0 + row) * r.pitch + depth0 +
                                first) = packOf(x);
    }
  }
}

cudaError_t launchRound(cudaStream_t stream, Round r, bool alongK) {
  if (alongK) {
    r.vectors = aligned16(r.from) && r.stride % 4 == 0;
    TESRA_LAUNCH(roundRows, gridFor(r.rows, 1), kRowThreads, 0, stream, r);
  } else {
    TESRA_LAUNCH(roundColumns, gridFor(static_cast<int64_t>(r.rows) * r.pitch, kTile * kTile / 2),
                 kTileThreads, 0, stream, r);
  }
  return cudaGetLastError();
}

// Where everything lies in the scratch, in bytes.
struct Layout {
  Layout(const tesra_gemm& g, int multiprocessors)
      : pitch((g.k + kDepthUnit - 1) / kDepthUnit * kDepthUnit),
        work(tensorWork(g.m, g.n, 2 * pitch, multiprocessors)) {
    const auto place = [&](int64_t bytes) {
      const size_t at = total;
      total += static_cast<size_t>((bytes + 255) / 256 * 256);
      return at;
    };
    a = place(int64_t{2} * pitch * g.m);
    b = place(int64_t{2} * pitch * g.n);
    partial = place(work.splits > 1 ? int64_t{4} * work.splits * g.m * g.n : 0);
  }
  static constexpr int kDepthUnit = mma::kStageK / 2;
  int pitch;  // bf16 between rows
  TensorWork work;
  size_t total = 0, a, b, partial;
};

bool isEmpty(const tesra_gemm& g) {
  return g.m == 0 || g.n == 0 || g.k == 0;
}

}  // namespace

size_t bf16GemmScratch(const tesra_gemm& op, int multiprocessors) {
  return isEmpty(op) ? gemmScratch(op, multiprocessors) : Layout(op, multiprocessors).total;
}

cudaError_t launchBf16Gemm(const Launch& launch, const tesra_gemm& op) {
  if (isEmpty(op)) return launchGemm(launch, op);
  const Layout at(op, launch.multiprocessors);
  char* const base = static_cast<char*>(launch.scratch);
  uint16_t* const a = reinterpret_cast<uint16_t*>(base + at.a);
  uint16_t* const b = reinterpret_cast<uint16_t*>(base + at.b);
  cudaError_t error = launchRound(
      launch.stream, Round{op.a, op.trans_a ? op.m : op.k, op.m, op.k, at.pitch, a, false},
      !op.trans_a);
  if (error == cudaSuccess)
    error = launchRound(launch.stream,
                        Round{op.b, op.trans_b ? op.k : op.n, op.n, op.k, at.pitch, b, false},
                        op.trans_b != 0);
  if (error != cudaSuccess) return error;
  float* const partial = at.work.splits > 1 ? reinterpret_cast<float*>(base + at.partial) : nullptr;
  Epilogue e = epilogueOf(op);
  e.partial = partial;
  error = launchTensorProduct(launch, Operands{a, b, op.m, op.n, 2 * at.pitch, 2 * at.pitch},
                              at.work, FloatCells{e, op.n % 2 == 0});
  if (error != cudaSuccess) return error;
  if (partial) return launchJoin(launch.stream, e, at.work.splits);
  return e.more ? launchFused(launch.stream, e) : cudaSuccess;
}

}  // namespace tesra::cuda
