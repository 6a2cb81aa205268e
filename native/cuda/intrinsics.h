// Owns the few machine instructions that the kernels use by hand: asynchronous copies to shared
// memory, matrix loads, the matrix multiply-adds of int8 and bf16, and the launch syntax. Invariant:
// kernels reach the hardware's own instructions through this file alone, so that the emulator
// (emulator/) can run every kernel on a machine without a GPU.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>

#if defined(TESRA_CUDA_EMULATOR)
#include "emulator/intrinsics.h"
#else

#define TESRA_LAUNCH(kernel, grid, block, shared, stream, ...) \
  kernel<<<grid, block, shared, stream>>>(__VA_ARGS__)
#define TESRA_DYNAMIC_SHARED(name) extern __shared__ __align__(128) unsigned char name[]
#define TESRA_UNROLL _Pragma("unroll")
// An unrolled loop over 0 <= i < count: register arrays may be indexed by i.
#define TESRA_FOR(i, count) _Pragma("unroll") for (int i = 0; i < (count); i++)
#define TESRA_UNROLL_2 _Pragma("unroll 2")
#define TESRA_NO_UNROLL _Pragma("unroll 1")
// Hides a pointer's origin from the optimiser, at no cost in instructions.
#define TESRA_OPAQUE(pointer) asm volatile("" : "+l"(pointer))

namespace tesra::cuda {

__device__ __forceinline__ uint32_t sharedAddress(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// Copies kBytes from global memory to shared memory, or writes zeros when !valid; `from` is not
// read then.
template <int kBytes>
__device__ __forceinline__ void copyAsync(void* to, const void* from, bool valid) {
  const int size = valid ? kBytes : 0;
  if constexpr (kBytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(sharedAddress(to)),
                 "l"(from), "r"(size)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;\n" ::"r"(sharedAddress(to)),
                 "l"(from), "n"(kBytes), "r"(size)
                 : "memory");
  }
}
__device__ __forceinline__ void copyCommit() {
  asm volatile("cp.async.commit_group;\n" ::: "memory");
}
// Waits until at most kPending of this thread's committed groups are under way.
template <int kPending>
__device__ __forceinline__ void copyWait() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(kPending) : "memory");
}

__device__ __forceinline__ void loadMatrices(uint32_t (&r)[4], const void* from) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(sharedAddress(from))
               : "memory");
}

// d (16 x 8 int32) += a (16 x 32 int8) * b (32 x 8 int8), wrapping, no saturation.
__device__ __forceinline__ void multiplyAdd(int32_t (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                            uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};\n"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
// d (16 x 8 fp32) += a (16 x 16 bf16) * b (16 x 8 bf16), whose bytes lie as int8's do.
__device__ __forceinline__ void multiplyAdd(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                            uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

}  // namespace tesra::cuda
#endif
