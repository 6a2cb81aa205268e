// Owns the index arithmetic of the int8 tensor-core kernel: which thread loads which bytes, which
// lane of mma.m16n8k32 holds which cell, and therefore which cells form a CryptoRight-M lottery
// tile. Invariant: a lane's 128 accumulators are exactly one lottery tile (rows 64b+g+8i, columns
// 64c+2t+8j+{0,1}), so a transcript never leaves its thread. Plain C++ as well, so that a host
// emulation checks every formula.
#pragma once
#include <cstdint>

#if defined(__CUDACC__)
#define TESRA_ANYWHERE __host__ __device__
#else
#define TESRA_ANYWHERE
#endif

namespace tesra::cuda::mma {

// One warp computes 64 x 64 cells: 4 x 8 MMAs of 16 x 8, four int32 accumulators a lane each.
constexpr int kWarpCells = 64;
constexpr int kWarpMmasM = 4;
constexpr int kWarpMmasN = 8;
constexpr int kAccumulators = kWarpMmasM * kWarpMmasN * 4;
// A block is 2 x 4 warps: 128 x 256 cells. Operand traffic per cell falls with the perimeter; 256
// threads with up to 255 registers fill one multiprocessor's register file.
constexpr int kWarpsM = 2;
constexpr int kWarpsN = 4;
constexpr int kThreads = 32 * kWarpsM * kWarpsN;
constexpr int kBlockRows = kWarpCells * kWarpsM;
constexpr int kBlockColumns = kWarpCells * kWarpsN;
// 64 bytes of k a stage, three stages: 72 KiB, and 16 KiB of transcripts, stay under the 99 KiB
// that every compute capability >= 8.0 grants to one block.
constexpr int kStageK = 64;
constexpr int kStages = 3;
constexpr int kPieceBytes = 16;
constexpr int kPiecesPerRow = kStageK / kPieceBytes;
constexpr int kStageBytesA = kBlockRows * kStageK;
constexpr int kStageBytesB = kBlockColumns * kStageK;
constexpr int kStageBytes = kStageBytesA + kStageBytesB;
constexpr int kPiecesA = kBlockRows * kPiecesPerRow / kThreads;
constexpr int kPiecesB = kBlockColumns * kPiecesPerRow / kThreads;
constexpr int kTranscriptWords = 16;
constexpr int kTranscriptBytes = kTranscriptWords * kThreads * 4;
constexpr int kChunkK = 128;
constexpr int kStagesPerChunk = kChunkK / kStageK;

// Row `row` of a stage holds four 16-byte pieces; the exclusive-or spreads the eight rows that one
// ldmatrix reads over all 32 banks (rows are 64 bytes, so a row's bank half is its lowest bit).
TESRA_ANYWHERE constexpr int sharedOffset(int row, int piece) {
  return row * kStageK + ((piece ^ ((row >> 1) & 3)) * kPieceBytes);
}

// The i-th piece that thread `thread` copies of an operand: row and piece inside the stage.
TESRA_ANYWHERE constexpr int copyRow(int thread, int i) {
  return (thread + i * kThreads) / kPiecesPerRow;
}
TESRA_ANYWHERE constexpr int copyPiece(int thread) {
  return thread % kPiecesPerRow;
}

// ldmatrix.x4: lane l supplies the address of row l%8 of matrix l/8. For A the matrices are
// (rows 0-7, k 0-15), (8-15, 0-15), (0-7, 16-31), (8-15, 16-31) = registers a0..a3 of m16n8k32;
// for B they are b0, b1 of one 8-column MMA and b0, b1 of the next.
TESRA_ANYWHERE constexpr int ldmatrixRowA(int lane, int mi) {
  return 16 * mi + (lane & 15);
}
TESRA_ANYWHERE constexpr int ldmatrixPieceA(int lane, int step) {
  return 2 * step + (lane >> 4);
}
TESRA_ANYWHERE constexpr int ldmatrixRowB(int lane, int pair) {
  return 16 * pair + (lane & 7) + ((lane >> 4) << 3);
}
TESRA_ANYWHERE constexpr int ldmatrixPieceB(int lane, int step) {
  return 2 * step + ((lane >> 3) & 1);
}

// Accumulator (mi, nj, c) of a lane inside the warp's 64 x 64 cells.
TESRA_ANYWHERE constexpr int accumulatorRow(int lane, int mi, int c) {
  return 16 * mi + (lane >> 2) + 8 * (c >> 1);
}
TESRA_ANYWHERE constexpr int accumulatorColumn(int lane, int nj, int c) {
  return 8 * nj + 2 * (lane & 3) + (c & 1);
}

// Tile numbering of the specification: 32 tiles for each 64 x 64 block, in lane order.
TESRA_ANYWHERE constexpr uint32_t tileIndex(uint32_t rowBlock, uint32_t columnBlock,
                                            uint32_t columnBlocks, uint32_t lane) {
  return (rowBlock * columnBlocks + columnBlock) * 32u + lane;
}

// Blocks run in bands of kBandRows rows of blocks, so that the blocks in flight share operands in
// L2.
constexpr int kBandRows = 8;
struct BlockAt {
  int row, column;
};
TESRA_ANYWHERE constexpr BlockAt blockAt(int block, int blocksM, int blocksN) {
  const int band = block / (kBandRows * blocksN);
  const int first = band * kBandRows;
  const int height = blocksM - first < kBandRows ? blocksM - first : kBandRows;
  const int inside = block - first * blocksN;
  return BlockAt{first + inside % height, inside / height};
}

static_assert(kAccumulators == 128, "a lottery tile has 128 cells");
static_assert(kStages * kStageBytes + kTranscriptBytes <= 99 * 1024,
              "fits every capability >= 8.0");
static_assert(kPiecesA * kThreads == kBlockRows * kPiecesPerRow, "copies of A cover the stage");
static_assert(kPiecesB * kThreads == kBlockColumns * kPiecesPerRow, "copies of B cover the stage");

}  // namespace tesra::cuda::mma
