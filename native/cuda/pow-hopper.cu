// Owns Hopper's form (sm_90a) of the CryptoRight-M scan: operands by TMA, products by wgmma, one
// warp that copies and two warpgroups that multiply. Bits as pow.cu's. Not yet run on a GPU: the
// emulator has run it, and onHopper() asks for TESRA_HOPPER=1 until a GPU has.
//
// A block computes 256 x 128 cells; a warpgroup 256 x 64 of them as four m64n64k32 products. In
// such a product warp w of the warpgroup holds rows 16w .. 16w+15, so the four warps are given rows
// of four different lottery blocks: row 16w + r of product q is row 64w + 16q + r of the block. A
// lane's 4 x 32 sums are then exactly one lottery tile, and its transcript never leaves the lane,
// as in mma-geometry.h.
#include "scan.h"
#include "stage-ring.h"

namespace tesra::cuda {
namespace {

constexpr int kProducts = 4;
constexpr int kBlockRows = 64 * kProducts;
constexpr int kConsumers = 2;  // warpgroups that multiply, 64 columns each
constexpr int kBlockColumns = 64 * kConsumers;
constexpr int kThreads = kWarpgroup * (1 + kConsumers);
// Four stages of 48 KiB and the transcripts fill 208 of a multiprocessor's 227 KiB.
using Ring = StageRing<4, kBlockRows + kBlockColumns, kConsumers>;
constexpr int kTileBytes = 64 * kStageDepth;
constexpr int kTranscriptBytes = mma::kTranscriptWords * kWarpgroup * kConsumers * 4;
static_assert(kStageDepth == TESRA_CRM_CHUNK, "a stage ends a chunk");

constexpr int kBarriersAt = Ring::kTileBytes + kTranscriptBytes;
constexpr int kSharedBytes = kBarriersAt + Ring::kBarrierBytes + 1024;  // 1024: the ring's alignment
static_assert(kSharedBytes <= 227 * 1024, "fits a Hopper multiprocessor");

__global__ void __launch_bounds__(kThreads, 1)
    scanHopper(const TESRA_GRID_CONSTANT TensorMap a, const TESRA_GRID_CONSTANT TensorMap bt, int m,
               int n, int k, int blocksM, int blocksN, ScanArguments scan) {
#if TESRA_HOPPER_CODE
  TESRA_DYNAMIC_SHARED(raw);
  unsigned char* const shared = alignShared1024(raw);
  uint32_t* const transcript = reinterpret_cast<uint32_t*>(shared + Ring::kTileBytes);
  const Ring ring{shared, reinterpret_cast<Barrier*>(shared + kBarriersAt)};

  const int thread = threadIdx.x, lane = thread % 32;
  const int warpgroup = thread / kWarpgroup, warp = thread % kWarpgroup / 32;
  const mma::BlockAt block = mma::blockAt(static_cast<int>(blockIdx.x), blocksM, blocksN);
  const int stages = k / kStageDepth;

  if (thread == 0) ring.init();
  __syncthreads();

  if (warpgroup == kConsumers) {
    releaseRegisters<kCopyRegisters>();
    if (warp != 0 || lane != 0) return;
    for (int s = 0; s < stages; s++) {
      unsigned char* const to = ring.claim(s);
      for (int q = 0; q < kProducts; q++)
        copyTensor4(to + q * kTileBytes, a, ring.full(s), s * kStageDepth, 0, q,
                    block.row * kProducts);
      copyTensor2(to + kProducts * kTileBytes, bt, ring.full(s), s * kStageDepth,
                  block.column * kBlockColumns);
    }
    return;
  }

  claimRegisters<kMultiplyRegisters>();
  uint32_t* const own = transcript + warpgroup * kWarpgroup + thread % kWarpgroup;
  for (int i = 0; i < mma::kTranscriptWords; i++) own[i * kWarpgroup * kConsumers] = 0;
  int32_t sum[kProducts][32];
  TESRA_FOR(q, kProducts)
    TESRA_FOR(i, 32) sum[q][i] = 0;
  TESRA_NO_UNROLL
  for (int s = 0; s < stages; s++) {
    const unsigned char* const at = ring.await(s);
    const uint64_t b = sharedDescriptor(at + (kProducts + warpgroup) * kTileBytes);
    TESRA_FOR(q, kProducts)
      holdSums(sum[q]);
    wgmmaFence();
    TESRA_FOR(step, kStageDepth / 32)
      TESRA_FOR(q, kProducts)
        wgmma(sum[q], sharedDescriptor(at + q * kTileBytes) + 2 * step, b + 2 * step);
    wgmmaCommit();
    wgmmaWait<0>();
    TESRA_FOR(q, kProducts)
      holdSums(sum[q]);
    if (lane == 0) ring.free(s);
    uint32_t x = 0;
    TESRA_FOR(q, kProducts)
      TESRA_FOR(i, 32) x ^= static_cast<uint32_t>(sum[q][i]);
    uint32_t& word = own[s % mma::kTranscriptWords * kWarpgroup * kConsumers];
    word = rotateRight(word, 32 - TESRA_CRM_ROTATE) ^ x;
  }

  const int rowBlock = block.row * kProducts + warp;
  const int columnBlock = block.column * kConsumers + warpgroup;
  if (rowBlock >= m / mma::kWarpCells || columnBlock >= n / mma::kWarpCells) return;
  uint32_t j[16];
  TESRA_FOR(i, 16) j[i] = own[i * kWarpgroup * kConsumers];
  reportTicket(scan, j, mma::tileIndex(rowBlock, columnBlock, n / mma::kWarpCells, lane));
#endif
}

}  // namespace

cudaError_t launchScanHopper(cudaStream_t stream, const int8_t* a, const int8_t* bt, int m, int n,
                             int k, const ScanArguments& scan) {
  TensorMap mapA, mapB;
  // A as [block of 64][16-row part][row of the part][k]: a copy takes one part of four blocks.
  const uint64_t pitch = static_cast<uint64_t>(k);
  const uint64_t sizeA[4] = {pitch, 16, 4, static_cast<uint64_t>(m / 64)};
  const uint64_t strideA[3] = {pitch, 16 * pitch, 64 * pitch};
  const uint32_t boxA[4] = {kStageDepth, 16, 1, kProducts};
  const uint64_t sizeB[2] = {pitch, static_cast<uint64_t>(n)};
  const uint64_t strideB[1] = {pitch};
  const uint32_t boxB[2] = {kStageDepth, kBlockColumns};
  cudaError_t error = makeTensorMap(&mapA, a, 4, sizeA, strideA, boxA);
  if (error == cudaSuccess) error = makeTensorMap(&mapB, bt, 2, sizeB, strideB, boxB);
  auto* kernel = scanHopper;
  if (error == cudaSuccess)
    error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes);
  if (error != cudaSuccess) return error;
  const int blocksM = (m + kBlockRows - 1) / kBlockRows;
  const int blocksN = (n + kBlockColumns - 1) / kBlockColumns;
  const unsigned grid = static_cast<unsigned>(blocksM) * blocksN;
  TESRA_LAUNCH(kernel, grid, kThreads, kSharedBytes, stream, mapA, mapB, m, n, k, blocksM,
               blocksN, scan);
  return cudaGetLastError();
}

}  // namespace tesra::cuda
