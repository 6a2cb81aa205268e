// Owns the main loop of a product by mma.sync: one block's 128 x 256 cells over a range of k,
// operands by asynchronous copies through a ring of stages. The scan of pow.cu and the products of
// tensor-product.cu are this loop with different ends. Invariant: mma-geometry.h.
#pragma once
#include "tensor-product.h"

namespace tesra::cuda {

__device__ __forceinline__ void copyOperand(unsigned char* to, const void* from, int row0, int rows,
                                            int pitch, int k0, int count) {
  const int thread = threadIdx.x, piece = mma::copyPiece(thread);
  TESRA_FOR(i, count) {
    const int row = mma::copyRow(thread, i);
    const bool valid = row0 + row < rows;
    const char* source = static_cast<const char*>(from) +
                         static_cast<int64_t>(valid ? row0 + row : 0) * pitch + k0 +
                         piece * mma::kPieceBytes;
    copyAsync<16>(to + mma::sharedOffset(row, piece), source, valid);
  }
}

// The sums of one warp: 64 x 64 cells of the block.
template <class Sum>
using WarpSums = Sum[mma::kWarpMmasM][mma::kWarpMmasN][4];

// Bytes [k0, k0 + stages * kStageK) of the block's operands; `shared` holds kStages stages;
// after(s) follows stage s.
template <class Sum, class After>
__device__ __forceinline__ void multiplyBlock(unsigned char* shared, const Operands& o,
                                              mma::BlockAt block, int k0, int stages,
                                              WarpSums<Sum>& sum, const After& after) {
  const int thread = threadIdx.x, warp = thread / 32, lane = thread % 32;
  const int warpM = warp / mma::kWarpsN, warpN = warp % mma::kWarpsN;
  const int row0 = block.row * mma::kBlockRows, column0 = block.column * mma::kBlockColumns;

  const auto copyStage = [&](int slot, int stage) {
    unsigned char* const at = shared + slot * mma::kStageBytes;
    const int k = k0 + stage * mma::kStageK;
    copyOperand(at, o.a, row0, o.m, o.pitch, k, mma::kPiecesA);
    copyOperand(at + mma::kStageBytesA, o.bt, column0, o.n, o.pitch, k, mma::kPiecesB);
  };

  TESRA_FOR(i, mma::kWarpMmasM)
    TESRA_FOR(j, mma::kWarpMmasN)
      TESRA_FOR(e, 4) sum[i][j][e] = 0;
  TESRA_FOR(s, mma::kStages - 1) {
    if (s < stages) copyStage(s, s);
    copyCommit();
  }

  int slot = 0;
  TESRA_NO_UNROLL
  for (int s = 0; s < stages; s++) {
    copyWait<mma::kStages - 2>();
    __syncthreads();  // stage s is there for all; all are done with the slot that the next copy
                      // overwrites
    const int ahead = s + mma::kStages - 1;
    if (ahead < stages) copyStage(slot == 0 ? mma::kStages - 1 : slot - 1, ahead);
    copyCommit();

    const unsigned char* const a = shared + slot * mma::kStageBytes;
    const unsigned char* const b = a + mma::kStageBytesA;
    TESRA_FOR(step, mma::kStageK / 32) {
      uint32_t fa[mma::kWarpMmasM][4], fb[mma::kWarpMmasN / 2][4];
      TESRA_FOR(i, mma::kWarpMmasM)
        loadMatrices(fa[i],
                     a + mma::sharedOffset(warpM * mma::kWarpCells + mma::ldmatrixRowA(lane, i),
                                           mma::ldmatrixPieceA(lane, step)));
      TESRA_FOR(j, mma::kWarpMmasN / 2)
        loadMatrices(fb[j],
                     b + mma::sharedOffset(warpN * mma::kWarpCells + mma::ldmatrixRowB(lane, j),
                                           mma::ldmatrixPieceB(lane, step)));
      TESRA_FOR(i, mma::kWarpMmasM)
        TESRA_FOR(j, mma::kWarpMmasN)
          multiplyAdd(sum[i][j], fa[i], fb[j / 2][j % 2 * 2], fb[j / 2][j % 2 * 2 + 1]);
    }
    slot = slot + 1 == mma::kStages ? 0 : slot + 1;
    after(s);
  }
}

}  // namespace tesra::cuda
