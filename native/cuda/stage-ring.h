// Owns Hopper's pipeline: a ring of stages in shared memory, which one thread fills by tensor
// copies and warpgroups empty by products. Invariant: step s lies in slot s % kStages; `full` ends
// a phase when the step's bytes are there, `empty` when every consuming warp has let go of it.
#pragma once
#include "hopper.h"

namespace tesra::cuda {

constexpr int kWarpgroup = 128;
// 128 bytes of k a stage: the width of the swizzle, and one chunk of a CryptoRight-M transcript.
constexpr int kStageDepth = 128;
// Registers a thread: 65,536 for 128 that copy and 256 that multiply; 128 of theirs are sums.
constexpr int kCopyRegisters = 40;
constexpr int kMultiplyRegisters = 232;
static_assert(kWarpgroup * (kCopyRegisters + 2 * kMultiplyRegisters) <= 65536, "one register file");

// kRows rows of kStageDepth bytes a stage; kConsumers warpgroups that multiply.
template <int kStages, int kRows, int kConsumers>
struct StageRing {
  static constexpr int kStageBytes = kRows * kStageDepth;
  static constexpr int kTileBytes = kStages * kStageBytes;
  static constexpr int kBarrierBytes = 2 * kStages * static_cast<int>(sizeof(Barrier));

  unsigned char* tiles;  // kTileBytes, at a multiple of 1024, which the swizzle counts from
  Barrier* barriers;     // kBarrierBytes

#if TESRA_HOPPER_CODE
  // By one thread, before the block's barrier.
  __device__ __forceinline__ void init() const {
    for (int s = 0; s < kStages; s++) {
      barrierInit(full(s), 1);               // the copying thread, and the bytes it expects
      barrierInit(empty(s), 4 * kConsumers);  // a lane of every multiplying warp
    }
    barrierInitFence();
  }
  __device__ __forceinline__ Barrier* full(int step) const { return barriers + step % kStages; }
  __device__ __forceinline__ unsigned char* at(int step) const {
    return tiles + step % kStages * kStageBytes;
  }

  // The copying thread: waits for the slot and announces a stage's bytes to full(step).
  __device__ __forceinline__ unsigned char* claim(int step) const {
    // The first turn finds every slot empty: a fresh barrier's previous phase counts as ended.
    barrierWait(empty(step), (step / kStages + 1) & 1);
    barrierExpect(full(step), kStageBytes);
    return at(step);
  }
  // A multiplying thread.
  __device__ __forceinline__ const unsigned char* await(int step) const {
    barrierWait(full(step), step / kStages & 1);
    return at(step);
  }
  // One lane of each multiplying warp, when its products have read the stage.
  __device__ __forceinline__ void free(int step) const { barrierArrive(empty(step)); }

 private:
  __device__ __forceinline__ Barrier* empty(int step) const {
    return barriers + kStages + step % kStages;
  }
#endif
};

}  // namespace tesra::cuda
