// Owns 16-byte access to float vectors: a pack of 4 (or 1, where alignment or length do not allow
// 4).
#pragma once
#include "intrinsics.h"

namespace tesra::cuda {

template <int kWidth>
struct alignas(4 * kWidth) Pack {
  float v[kWidth];
};

template <int kWidth>
__device__ __forceinline__ Pack<kWidth> loadPack(const float* from, int64_t i) {
  return reinterpret_cast<const Pack<kWidth>*>(from)[i];
}
template <int kWidth>
__device__ __forceinline__ void storePack(float* to, int64_t i, const Pack<kWidth>& pack) {
  reinterpret_cast<Pack<kWidth>*>(to)[i] = pack;
}

// Calls visit(i) for this thread's share of 0 <= i < count; neighbours take neighbouring packs.
template <class Visit>
__device__ __forceinline__ void forEachPack(int64_t count, Visit&& visit) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += stride)
    visit(i);
}

}  // namespace tesra::cuda
