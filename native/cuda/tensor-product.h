// Owns what the two forms of a product on tensor cores share (tensor-product.cu for every GPU,
// tensor-product-hopper.cu for sm_90a): operands, the cut into work, where sums go.
// Invariant: c = a * bt transposed, both operands rows of bytes along k: int8 with int32 sums, which
// are exact and wrap, or bf16 with fp32 sums, whose order is the device's own.
#pragma once
#include "mma-geometry.h"
#include "product.h"

namespace tesra::cuda {

struct Operands {
  const void *a, *bt;  // m and n rows, 16-byte aligned
  int m, n;
  int k;      // bytes of a row, a multiple of mma::kStageK
  int pitch;  // bytes between rows, a multiple of 16
};

// A block's cells, in both forms.
constexpr int kTensorRows = mma::kBlockRows, kTensorColumns = mma::kBlockColumns;

// Work is a block of cells and a share of k: too few blocks to fill the GPU leave k to several.
struct TensorWork {
  int blocksM, blocksN, splits, splitK;  // splitK: bytes of k, a multiple of kSplitUnit
  TESRA_ANYWHERE int items() const { return blocksM * blocksN * splits; }
};
// A stage of Hopper's form, two of the other.
constexpr int kSplitUnit = 128;
// Filling and emptying a pipeline, and joining the shares, costs about as much as four stages.
constexpr int kSplitUnitsMin = 8;
inline TensorWork tensorWork(int m, int n, int k, int multiprocessors) {
  const auto ceil = [](int x, int y) { return x / y + (x % y != 0); };
  TensorWork work{ceil(m, kTensorRows), ceil(n, kTensorColumns), 1, 0};
  const int units = ceil(k, kSplitUnit);
  const int64_t blocks = int64_t{work.blocksM} * work.blocksN;
  const int wanted = blocks > 0 ? static_cast<int>(multiprocessors / blocks) : 1;
  const int most = units / kSplitUnitsMin;
  const int splits = wanted < most ? wanted : most;
  const int share = ceil(units, splits > 1 ? splits : 1);
  work.splits = share > 0 ? ceil(units, share) : 1;
  work.splitK = share * kSplitUnit;
  return work;
}

// Where int32 sums go. Shares of k meet by integer addition, which no order changes.
struct IntegerCells {
  using Sum = int32_t;
  int32_t* c;
  int m, n;
  bool add, pairs;
  // Cells (row, column) and (row, column + 1); column is even.
  __device__ __forceinline__ void put(int row, int column, int, int32_t x, int32_t y) const {
    if (row >= m || column >= n) return;
    int32_t* const to = c + static_cast<int64_t>(row) * n + column;
    if (add) {
      atomicAdd(reinterpret_cast<uint32_t*>(to), static_cast<uint32_t>(x));
      if (column + 1 < n) atomicAdd(reinterpret_cast<uint32_t*>(to) + 1, static_cast<uint32_t>(y));
    } else if (pairs) {
      *reinterpret_cast<int2*>(to) = int2{x, y};
    } else {
      to[0] = x;
      if (column + 1 < n) to[1] = y;
    }
  }
};

// Where fp32 sums go. Shares of k lie one after another in e.partial and are joined in order.
struct FloatCells {
  using Sum = float;
  Epilogue e;
  bool pairs;
  __device__ __forceinline__ void put(int row, int column, int split, float x, float y) const {
    if (row >= e.m || column >= e.n) return;
    const int64_t at = static_cast<int64_t>(row) * e.n + column;
    const bool second = column + 1 < e.n;
    float* to = e.c + at;
    if (e.partial) {
      to = e.partial + static_cast<int64_t>(split) * e.m * e.n + at;
    } else {
      if (e.accumulate) x = __fadd_rn(to[0], x), y = second ? __fadd_rn(to[1], y) : y;
      x = finished(e, x, column);
      y = second ? finished(e, y, column + 1) : y;
    }
    if (pairs) {
      *reinterpret_cast<float2*>(to) = float2{x, y};
    } else {
      to[0] = x;
      if (second) to[1] = y;
    }
  }
};

// Whether the forms for sm_90a run on this GPU.
bool onHopper(int sm);

// c = a * bt transposed; k > 0. `c` of a split integer product is cleared here.
cudaError_t launchTensorProduct(const Launch& launch, const Operands& o, const TensorWork& work,
                                const IntegerCells& cells);
cudaError_t launchTensorProduct(const Launch& launch, const Operands& o, const TensorWork& work,
                                const FloatCells& cells);
// tensor-product-hopper.cu
cudaError_t launchHopperProduct(const Launch& launch, const Operands& o, const TensorWork& work,
                                const IntegerCells& cells);
cudaError_t launchHopperProduct(const Launch& launch, const Operands& o, const TensorWork& work,
                                const FloatCells& cells);

}  // namespace tesra::cuda
