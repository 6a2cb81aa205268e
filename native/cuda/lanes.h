// Owns the exchanges of half a warp that stands for the 16 lanes of TESRA_LANES.
#pragma once
#include "../kernels/exact-math.h"
#include "intrinsics.h"

namespace tesra::cuda {

static_assert(TESRA_LANES == 16, "half a warp a row");

// The header's fold 8, 4, 2, 1: an exclusive-or exchange adds the same pairs, and floating-point
// addition commutes. Every lane gets the sum.
__device__ __forceinline__ float foldLanes(float x) {
  TESRA_UNROLL
  for (int apart = TESRA_LANES / 2; apart > 0; apart /= 2)
    x = __fadd_rn(x, __shfl_xor_sync(0xffffffffu, x, apart));
  return x;
}

// The larger of all lanes' values; NaN in a lane is passed over when the lane was folded from a
// number.
__device__ __forceinline__ float foldMaximum(float best) {
  TESRA_UNROLL
  for (int apart = TESRA_LANES / 2; apart > 0; apart /= 2) {
    const float value = __shfl_xor_sync(0xffffffffu, best, apart);
    if (value > best) best = value;
  }
  return best;
}

// best = x > best ? x : best, from x[0]: a NaN in first place stays, any other is passed over.
__device__ __forceinline__ float maximumOf(const float* x, int n, int lane) {
  const float first = x[0];
  float best = -INFINITY;
  for (int c = lane; c < n; c += TESRA_LANES)
    if (x[c] > best) best = x[c];
  best = foldMaximum(best);
  return first != first ? first : best;
}

}  // namespace tesra::cuda
