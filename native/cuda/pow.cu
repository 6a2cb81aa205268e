// Owns the CryptoRight-M scan over the lottery tiles of an int8 product, and the replay of one tile.
// Integers only: any order of summation gives the same bits. Invariant:
// mma-geometry.h; a tile's running accumulators and its hash stay within one thread.
#include "mma-product.h"
#include "scan.h"

namespace tesra::cuda {
namespace {

// Tickets of all lottery tiles of a * bt transposed.
__global__ void __launch_bounds__(mma::kThreads, 1)
    scanTiles(Operands o, int blocksM, int blocksN, ScanArguments scan) {
  TESRA_DYNAMIC_SHARED(shared);
  uint32_t* const transcript =
      reinterpret_cast<uint32_t*>(shared + mma::kStages * mma::kStageBytes);
  const int thread = threadIdx.x, warp = thread / 32, lane = thread % 32;
  const mma::BlockAt block = mma::blockAt(static_cast<int>(blockIdx.x), blocksM, blocksN);
  for (int i = 0; i < mma::kTranscriptWords; i++) transcript[i * mma::kThreads + thread] = 0;

  WarpSums<int32_t> sum;
  multiplyBlock<int32_t>(shared, o, block, 0, o.k / mma::kStageK, sum, [&](int s) {
    if (s % mma::kStagesPerChunk != mma::kStagesPerChunk - 1) return;
    uint32_t x = 0;
    TESRA_FOR(i, mma::kWarpMmasM)
      TESRA_FOR(j, mma::kWarpMmasN)
        TESRA_FOR(e, 4) x ^= static_cast<uint32_t>(sum[i][j][e]);
    const int chunk = s / mma::kStagesPerChunk;
    uint32_t& word = transcript[chunk % mma::kTranscriptWords * mma::kThreads + thread];
    word = rotateRight(word, 32 - TESRA_CRM_ROTATE) ^ x;
  });

  const int rowBlock = block.row * mma::kWarpsM + warp / mma::kWarpsN,
            columnBlock = block.column * mma::kWarpsN + warp % mma::kWarpsN;
  const int rowBlocks = o.m / mma::kWarpCells, columnBlocks = o.n / mma::kWarpCells;
  if (rowBlock >= rowBlocks || columnBlock >= columnBlocks) return;
  uint32_t j[16];
  TESRA_FOR(i, 16) j[i] = transcript[i * mma::kThreads + thread];
  reportTicket(scan, j, mma::tileIndex(rowBlock, columnBlock, columnBlocks, lane));
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

cudaError_t launchScan(cudaStream_t stream, const Operands& o, const ScanArguments& scan) {
  const int blocksM = (o.m + mma::kBlockRows - 1) / mma::kBlockRows;
  const int blocksN = (o.n + mma::kBlockColumns - 1) / mma::kBlockColumns;
  constexpr int kShared = mma::kStages * mma::kStageBytes + mma::kTranscriptBytes;
  auto* kernel = scanTiles;
  const cudaError_t error =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared);
  if (error != cudaSuccess) return error;
  const unsigned grid = static_cast<unsigned>(blocksM) * blocksN;
  TESRA_LAUNCH(kernel, grid, mma::kThreads, kShared, stream, o, blocksM, blocksN, scan);
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

cudaError_t launchCrmScan(cudaStream_t stream, int sm, const int8_t* a, const int8_t* bt, int m,
                          int n, int k, const uint8_t key[32], const uint8_t target[32],
                          const ScanOutput& out) {
  const ScanArguments scan{keyOf(key), keyOf(target), out};
  if (onHopper(sm)) return launchScanHopper(stream, a, bt, m, n, k, scan);
  return launchScan(stream, Operands{a, bt, m, n, k, k}, scan);
}

cudaError_t launchCrmTile(cudaStream_t stream, const int8_t* aRows, const int8_t* bColumns, int k,
                          uint32_t* transcript) {
  TESRA_LAUNCH(replayTile, 1, kTileThreads, 0, stream, aRows, bColumns, k, transcript);
  return cudaGetLastError();
}

}  // namespace tesra::cuda
