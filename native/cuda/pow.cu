// Owns the int8 matrix product on tensor cores, the CryptoRight-M scan over its lottery tiles, and
// the replay of one tile. Integers only: any order of summation gives the same bits. Invariant:
// mma-geometry.h; a tile's running accumulators and its hash stay within one thread.
#include "scan.h"

namespace tesra::cuda {
namespace {

struct Operands {
  const int8_t* a;   // m rows
  const int8_t* bt;  // n rows
  int m, n;
  int k;      // a multiple of kStageK
  int pitch;  // bytes between rows, a multiple of 16
};

__device__ __forceinline__ void copyOperand(unsigned char* to, const int8_t* from, int row0,
                                            int rows, int pitch, int k0, int count) {
  const int thread = threadIdx.x, piece = mma::copyPiece(thread);
  TESRA_FOR(i, count) {
    const int row = mma::copyRow(thread, i);
    const bool valid = row0 + row < rows;
    const int8_t* source =
        from + static_cast<int64_t>(valid ? row0 + row : 0) * pitch + k0 + piece * mma::kPieceBytes;
    copyAsync<16>(to + mma::sharedOffset(row, piece), source, valid);
  }
}

// kScan: tickets of the lottery tiles; otherwise c = a * b, m x n row-major.
template <bool kScan>
__global__ void __launch_bounds__(mma::kThreads, 1)
    int8Product(Operands o, int blocksM, int blocksN, int32_t* c, ScanArguments scan) {
  TESRA_DYNAMIC_SHARED(shared);
  uint32_t* const transcript =
      reinterpret_cast<uint32_t*>(shared + mma::kStages * mma::kStageBytes);

  const int thread = threadIdx.x, warp = thread / 32, lane = thread % 32;
  const int warpM = warp / mma::kWarpsN, warpN = warp % mma::kWarpsN;
  const mma::BlockAt block = mma::blockAt(static_cast<int>(blockIdx.x), blocksM, blocksN);
  const int row0 = block.row * mma::kBlockRows, column0 = block.column * mma::kBlockColumns;
  const int stages = o.k / mma::kStageK;

  const auto copyStage = [&](int slot, int stage) {
    unsigned char* const at = shared + slot * mma::kStageBytes;
    copyOperand(at, o.a, row0, o.m, o.pitch, stage * mma::kStageK, mma::kPiecesA);
    copyOperand(at + mma::kStageBytesA, o.bt, column0, o.n, o.pitch, stage * mma::kStageK,
                mma::kPiecesB);
  };

  int32_t sum[mma::kWarpMmasM][mma::kWarpMmasN][4];
  TESRA_FOR(i, mma::kWarpMmasM)
    TESRA_FOR(j, mma::kWarpMmasN)
      TESRA_FOR(e, 4) sum[i][j][e] = 0;
  if (kScan)
    for (int i = 0; i < mma::kTranscriptWords; i++) transcript[i * mma::kThreads + thread] = 0;

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

    if (kScan && s % mma::kStagesPerChunk == mma::kStagesPerChunk - 1) {
      uint32_t x = 0;
      TESRA_FOR(i, mma::kWarpMmasM)
        TESRA_FOR(j, mma::kWarpMmasN)
          TESRA_FOR(e, 4) x ^= static_cast<uint32_t>(sum[i][j][e]);
      const int chunk = s / mma::kStagesPerChunk;
      uint32_t& word = transcript[chunk % mma::kTranscriptWords * mma::kThreads + thread];
      word = rotateRight(word, 32 - TESRA_CRM_ROTATE) ^ x;
    }
  }

  if constexpr (kScan) {
    const int rowBlock = block.row * mma::kWarpsM + warpM,
              columnBlock = block.column * mma::kWarpsN + warpN;
    const int rowBlocks = o.m / mma::kWarpCells, columnBlocks = o.n / mma::kWarpCells;
    if (rowBlock >= rowBlocks || columnBlock >= columnBlocks) return;
    uint32_t j[16];
    TESRA_FOR(i, 16) j[i] = transcript[i * mma::kThreads + thread];
    reportTicket(scan, j, mma::tileIndex(rowBlock, columnBlock, columnBlocks, lane));
  } else {
    TESRA_FOR(i, mma::kWarpMmasM)
      TESRA_FOR(e, 4) {
        const int row = row0 + warpM * mma::kWarpCells + mma::accumulatorRow(lane, i, e);
        TESRA_FOR(j, mma::kWarpMmasN) {
          const int column = column0 + warpN * mma::kWarpCells + mma::accumulatorColumn(lane, j, e);
          if (row < o.m && column < o.n) c[static_cast<int64_t>(row) * o.n + column] = sum[i][j][e];
        }
      }
  }
}

// One tile: thread = (row i, column) of its 8 x 16 cells; a chunk's words meet by exclusive-or in
// the block.
constexpr int kTileThreads = 128;
__global__ void __launch_bounds__(kTileThreads)
    replayTile(const int8_t* aRows, const int8_t* bColumns, int k, uint32_t* out) {
  __shared__ uint32_t part[2][kTileThreads / 32];
  const int thread = threadIdx.x;
  const int8_t* const a = aRows + static_cast<int64_t>(thread / 16) * k;
  const int8_t* const b = bColumns + static_cast<int64_t>(thread % 16) * k;
  int sum = 0;
  uint32_t word = 0;  // thread w < 16 keeps J[w]
  for (int chunk = 0; chunk < k / TESRA_CRM_CHUNK; chunk++) {
    const int4* const pa = reinterpret_cast<const int4*>(a + chunk * TESRA_CRM_CHUNK);
    const int4* const pb = reinterpret_cast<const int4*>(b + chunk * TESRA_CRM_CHUNK);
    for (int i = 0; i < TESRA_CRM_CHUNK / 16; i++) {
      const int4 x = pa[i], y = pb[i];
      sum = __dp4a(x.x, y.x, sum);
      sum = __dp4a(x.y, y.y, sum);
      sum = __dp4a(x.z, y.z, sum);
      sum = __dp4a(x.w, y.w, sum);
    }
    uint32_t* const row = part[chunk % 2];  // two rows: one barrier a chunk is enough
    const uint32_t x = __reduce_xor_sync(0xffffffffu, static_cast<uint32_t>(sum));
    if (thread % 32 == 0) row[thread / 32] = x;
    __syncthreads();
    if (thread == chunk % mma::kTranscriptWords)
      word = rotateRight(word, 32 - TESRA_CRM_ROTATE) ^ row[0] ^ row[1] ^ row[2] ^ row[3];
  }
  if (thread < mma::kTranscriptWords) out[thread] = word;
}

template <bool kScan>
cudaError_t launchInt8(cudaStream_t stream, const Operands& o, int32_t* c,
                       const ScanArguments& scan) {
  const int blocksM = (o.m + mma::kBlockRows - 1) / mma::kBlockRows;
  const int blocksN = (o.n + mma::kBlockColumns - 1) / mma::kBlockColumns;
  if (blocksM == 0 || blocksN == 0) return cudaSuccess;
  constexpr int kShared = mma::kStages * mma::kStageBytes + (kScan ? mma::kTranscriptBytes : 0);
  auto* kernel = int8Product<kScan>;
  const cudaError_t error =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared);
  if (error != cudaSuccess) return error;
  const unsigned grid = static_cast<unsigned>(blocksM) * blocksN;
  TESRA_LAUNCH(kernel, grid, mma::kThreads, kShared, stream, o, blocksM, blocksN, c, scan);
  return cudaGetLastError();
}

Key keyOf(const uint8_t bytes[32]) {
  Key key;
  for (int i = 0; i < 8; i++)
    key.word[i] = static_cast<uint32_t>(bytes[4 * i]) |
                  static_cast<uint32_t>(bytes[4 * i + 1]) << 8 |
                  static_cast<uint32_t>(bytes[4 * i + 2]) << 16 |
                  static_cast<uint32_t>(bytes[4 * i + 3]) << 24;
  return key;
}

static_assert(mma::kChunkK == TESRA_CRM_CHUNK && mma::kWarpCells == TESRA_CRM_BLOCK,
              "one geometry");

}  // namespace

cudaError_t launchInt8Gemm(cudaStream_t stream, const int8_t* a, const int8_t* bt, int32_t* c,
                           int m, int n, int k, int pitch) {
  return launchInt8<false>(stream, Operands{a, bt, m, n, k, pitch}, c, ScanArguments{});
}

cudaError_t launchCrmScan(cudaStream_t stream, int sm, const int8_t* a, const int8_t* bt, int m,
                          int n, int k, const uint8_t key[32], const uint8_t target[32],
                          const ScanOutput& out) {
  const ScanArguments scan{keyOf(key), keyOf(target), out};
  if (scanOnHopper(sm)) return launchScanHopper(stream, a, bt, m, n, k, scan);
  return launchInt8<true>(stream, Operands{a, bt, m, n, k, k}, nullptr, scan);
}

cudaError_t launchCrmTile(cudaStream_t stream, const int8_t* aRows, const int8_t* bColumns, int k,
                          uint32_t* transcript) {
  TESRA_LAUNCH(replayTile, 1, kTileThreads, 0, stream, aRows, bColumns, k, transcript);
  return cudaGetLastError();
}

}  // namespace tesra::cuda
