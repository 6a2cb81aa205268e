// Owns the products on tensor cores by mma.sync (every GPU from sm_80 on), and the choice between
// them and Hopper's own form.
#include "../kernels/pow.h"

#include <cstdlib>

#include "mma-product.h"

namespace tesra::cuda {
namespace {

constexpr int kSharedBytes = mma::kStages * mma::kStageBytes;

// One block of cells and one share of k a block of threads.
template <class Cells>
__global__ void __launch_bounds__(mma::kThreads, 1)
    tensorProduct(Operands o, TensorWork work, Cells cells) {
  TESRA_DYNAMIC_SHARED(shared);
  const int split = static_cast<int>(blockIdx.y), k0 = split * work.splitK;
  const int depth = o.k - k0 < work.splitK ? o.k - k0 : work.splitK;
  const mma::BlockAt block =
      mma::blockAt(static_cast<int>(blockIdx.x), work.blocksM, work.blocksN);
  WarpSums<typename Cells::Sum> sum;
  multiplyBlock<typename Cells::Sum>(shared, o, block, k0, depth / mma::kStageK, sum, [](int) {});

  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int row0 = block.row * mma::kBlockRows + warp / mma::kWarpsN * mma::kWarpCells;
  const int column0 = block.column * mma::kBlockColumns + warp % mma::kWarpsN * mma::kWarpCells;
  TESRA_FOR(i, mma::kWarpMmasM)
    TESRA_FOR(half, 2)
      TESRA_FOR(j, mma::kWarpMmasN)
        cells.put(row0 + mma::accumulatorRow(lane, i, 2 * half),
                  column0 + mma::accumulatorColumn(lane, j, 0), split, sum[i][j][2 * half],
                  sum[i][j][2 * half + 1]);
}

template <class Cells>
cudaError_t launchAnywhere(const Launch& launch, const Operands& o, const TensorWork& work,
                           const Cells& cells) {
  auto* kernel = tensorProduct<Cells>;
  const cudaError_t error =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes);
  if (error != cudaSuccess) return error;
  const dim3 grid(static_cast<unsigned>(work.blocksM) * work.blocksN, work.splits);
  TESRA_LAUNCH(kernel, grid, mma::kThreads, kSharedBytes, launch.stream, o, work, cells);
  return cudaGetLastError();
}

}  // namespace

bool onHopper(int sm) {
  // Set until a GPU has compared them with the CPU (bench/gpu/run.sh does, with the variable set).
  const char* wanted = std::getenv("TESRA_HOPPER");
  return sm == 90 && wanted && *wanted == '1';
}

cudaError_t launchTensorProduct(const Launch& launch, const Operands& o, const TensorWork& work,
                                const IntegerCells& cells) {
  if (cells.add) {
    const cudaError_t error =
        cudaMemsetAsync(cells.c, 0, size_t{4} * cells.m * cells.n, launch.stream);
    if (error != cudaSuccess) return error;
  }
  return onHopper(launch.sm) ? launchHopperProduct(launch, o, work, cells)
                             : launchAnywhere(launch, o, work, cells);
}

cudaError_t launchTensorProduct(const Launch& launch, const Operands& o, const TensorWork& work,
                                const FloatCells& cells) {
  return onHopper(launch.sm) ? launchHopperProduct(launch, o, work, cells)
                             : launchAnywhere(launch, o, work, cells);
}

cudaError_t launchInt8Gemm(const Launch& launch, const int8_t* a, const int8_t* bt, int32_t* c,
                           int m, int n, int k, int pitch) {
  if (m == 0 || n == 0) return cudaSuccess;
  if (k == 0) return cudaMemsetAsync(c, 0, size_t{4} * m * n, launch.stream);
  const TensorWork work = tensorWork(m, n, k, launch.multiprocessors);
  const IntegerCells cells{c, m, n, work.splits > 1, n % 2 == 0};
  return launchTensorProduct(launch, Operands{a, bt, m, n, k, pitch}, work, cells);
}

}  // namespace tesra::cuda
