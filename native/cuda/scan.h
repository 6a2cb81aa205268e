// Owns the end of a CryptoRight-M tile on the GPU: its ticket, the comparison with the target, the
// report of a winner.
#pragma once
#include "../kernels/pow.h"

#include "blake3-core.h"
#include "launch.h"
#include "mma-geometry.h"

namespace tesra::cuda {

struct ScanArguments {
  Key key, target;
  ScanOutput out;
};

__device__ __forceinline__ bool atMost(const uint32_t (&x)[8], const Key& limit) {
  for (int i = 7; i >= 0; i--)
    if (x[i] != limit.word[i]) return x[i] < limit.word[i];
  return true;
}

// j: the tile's transcript, which is used up.
__device__ __forceinline__ void reportTicket(const ScanArguments& scan, uint32_t (&j)[16],
                                             uint32_t tile) {
  uint32_t ticket[8];
  TESRA_FOR(i, 8) ticket[i] = scan.key.word[i];
  compress(
      ticket, j, 0, 64,
      TESRA_BLAKE3_CHUNK_START | TESRA_BLAKE3_CHUNK_END | TESRA_BLAKE3_ROOT | TESRA_BLAKE3_KEYED);
  if (!atMost(ticket, scan.target)) return;
  const uint32_t place = atomicAdd(scan.out.count, 1u);
  if (place >= scan.out.capacity) return;
  scan.out.tiles[place] = tile;
  for (int i = 0; i < 8; i++) scan.out.tickets[static_cast<uint64_t>(place) * 8 + i] = ticket[i];
}

// pow-hopper.cu
cudaError_t launchScanHopper(cudaStream_t stream, const int8_t* a, const int8_t* bt, int m, int n,
                             int k, const ScanArguments& scan);

}  // namespace tesra::cuda
