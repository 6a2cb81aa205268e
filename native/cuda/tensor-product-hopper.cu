// Owns Hopper's form (sm_90a) of the products on tensor cores: operands by TMA, products by wgmma,
// one warp that copies and two warpgroups that multiply, blocks that stay and take one piece of work
// after another, so that the next one's operands arrive while sums are stored. The same kernel
// multiplies int8 and bf16: both lie K-major in rows of 128 bytes. Not yet run on a GPU: the
// emulator has run it, and onHopper() asks for TESRA_HOPPER=1 until a GPU has.
#include "stage-ring.h"
#include "tensor-product.h"

namespace tesra::cuda {
namespace {

// A warpgroup multiplies 64 rows by all 256 columns (m64n256): 128 sums a thread, and 10 KiB of
// shared memory read in the 128 cycles of a product, of the 16 KiB that could be.
constexpr int kConsumers = 2;
constexpr int kThreads = kWarpgroup * (1 + kConsumers);
// Four stages of 48 KiB.
using Ring = StageRing<4, kTensorRows + kTensorColumns, kConsumers>;
constexpr int kBytesA = kTensorRows * kStageDepth;
constexpr int kSharedBytes = Ring::kTileBytes + Ring::kBarrierBytes + 1024;
static_assert(kTensorRows == 64 * kConsumers && kTensorColumns == 256, "a block is two m64n256");
static_assert(kSplitUnit == kStageDepth, "a share of k is whole stages");
static_assert(kSharedBytes <= 227 * 1024, "fits a Hopper multiprocessor");

struct Item {
  mma::BlockAt block;
  int split, first, last;  // stages of k
};
TESRA_ANYWHERE inline Item itemAt(const TensorWork& work, int stages, int index) {
  const int blocks = work.blocksM * work.blocksN, split = index / blocks;
  const int first = split * (work.splitK / kStageDepth), last = first + work.splitK / kStageDepth;
  return Item{mma::blockAt(index - split * blocks, work.blocksM, work.blocksN), split, first,
              last < stages ? last : stages};
}

template <class Cells>
__global__ void __launch_bounds__(kThreads, 1)
    tensorProductHopper(const TESRA_GRID_CONSTANT TensorMap a,
                        const TESRA_GRID_CONSTANT TensorMap bt, TensorWork work, int stages,
                        Cells cells) {
#if TESRA_HOPPER_CODE
  TESRA_DYNAMIC_SHARED(raw);
  unsigned char* const shared = alignShared1024(raw);
  const Ring ring{shared, reinterpret_cast<Barrier*>(shared + Ring::kTileBytes)};
  const int thread = threadIdx.x, lane = thread % 32;
  const int warpgroup = thread / kWarpgroup, warp = thread % kWarpgroup / 32;
  if (thread == 0) ring.init();
  __syncthreads();

  int step = 0;  // over all stages of all work of this block
  if (warpgroup == kConsumers) {
    releaseRegisters<kCopyRegisters>();
    if (warp != 0 || lane != 0) return;
    for (int index = blockIdx.x; index < work.items(); index += gridDim.x) {
      const Item item = itemAt(work, stages, index);
      for (int s = item.first; s < item.last; s++, step++) {
        unsigned char* const to = ring.claim(step);
        copyTensor2(to, a, ring.full(step), s * kStageDepth, item.block.row * kTensorRows);
        copyTensor2(to + kBytesA, bt, ring.full(step), s * kStageDepth,
                    item.block.column * kTensorColumns);
      }
    }
    return;
  }

  claimRegisters<kMultiplyRegisters>();
  typename Cells::Sum sum[kTensorColumns / 2];
  TESRA_NO_UNROLL
  for (int index = blockIdx.x; index < work.items(); index += gridDim.x) {
    const Item item = itemAt(work, stages, index);
    TESRA_FOR(i, kTensorColumns / 2) sum[i] = 0;
    TESRA_NO_UNROLL
    for (int s = item.first; s < item.last; s++, step++) {
      const unsigned char* const at = ring.await(step);
      const uint64_t fromA = sharedDescriptor(at + warpgroup * 64 * kStageDepth);
      const uint64_t fromB = sharedDescriptor(at + kBytesA);
      holdSums(sum);
      wgmmaFence();
      TESRA_FOR(part, kStageDepth / 32) wgmma(sum, fromA + 2 * part, fromB + 2 * part);
      wgmmaCommit();
      // The stage before has been read when only this one's products are under way.
      wgmmaWait<1>();
      holdSums(sum);
      if (lane == 0 && s > item.first) ring.free(step - 1);
    }
    wgmmaWait<0>();
    holdSums(sum);
    if (lane == 0) ring.free(step - 1);

    const int row = item.block.row * kTensorRows + 64 * warpgroup + 16 * warp + lane / 4;
    const int column = item.block.column * kTensorColumns + 2 * (lane % 4);
    TESRA_FOR(j, kTensorColumns / 8)
      TESRA_FOR(half, 2)
        cells.put(row + 8 * half, column + 8 * j, item.split, sum[4 * j + 2 * half],
                  sum[4 * j + 2 * half + 1]);
  }
#endif
}

// `rows` rows of k bytes, a box of `boxRows` of them and one stage of k; zero beyond.
cudaError_t mapOperand(TensorMap* map, const void* base, int rows, int k, int pitch, int boxRows) {
  const uint64_t sizes[2] = {static_cast<uint64_t>(k), static_cast<uint64_t>(rows)};
  const uint64_t strides[1] = {static_cast<uint64_t>(pitch)};
  const uint32_t box[2] = {kStageDepth, static_cast<uint32_t>(boxRows)};
  return makeTensorMap(map, base, 2, sizes, strides, box);
}

template <class Cells>
cudaError_t launchForm(const Launch& launch, const Operands& o, const TensorWork& work,
                       const Cells& cells) {
  TensorMap a, bt;
  cudaError_t error = mapOperand(&a, o.a, o.m, o.k, o.pitch, kTensorRows);
  if (error == cudaSuccess) error = mapOperand(&bt, o.bt, o.n, o.k, o.pitch, kTensorColumns);
  auto* kernel = tensorProductHopper<Cells>;
  if (error == cudaSuccess)
    error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes);
  if (error != cudaSuccess) return error;
  const int items = work.items();
  const unsigned grid = items < launch.multiprocessors ? items : launch.multiprocessors;
  const int stages = (o.k + kStageDepth - 1) / kStageDepth;
  TESRA_LAUNCH(kernel, grid, kThreads, kSharedBytes, launch.stream, a, bt, work, stages, cells);
  return cudaGetLastError();
}

}  // namespace

cudaError_t launchHopperProduct(const Launch& launch, const Operands& o, const TensorWork& work,
                                const IntegerCells& cells) {
  return launchForm(launch, o, work, cells);
}

cudaError_t launchHopperProduct(const Launch& launch, const Operands& o, const TensorWork& work,
                                const FloatCells& cells) {
  return launchForm(launch, o, work, cells);
}

}  // namespace tesra::cuda
