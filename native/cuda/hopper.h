// Owns Hopper's own instructions: tensor copies, transaction barriers, warpgroup products, register
// budgets. As intrinsics.h: kernels reach them here alone, so that the emulator can stand in.
// Source: PTX ISA 8.8, 9.7.9.27 (tensor copies), 9.7.13.15 (mbarrier), 9.7.15 (wgmma), 5.5.7
// (swizzle modes).
#pragma once
#include "intrinsics.h"

#if defined(TESRA_CUDA_EMULATOR)
#include "emulator/hopper.h"
#else
#include <cuda.h>

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define TESRA_HOPPER_CODE 1
#else
#define TESRA_HOPPER_CODE 0  // on other architectures the kernels are empty, and never launched
#endif
#define TESRA_GRID_CONSTANT __grid_constant__

namespace tesra::cuda {

using TensorMap = CUtensorMap;
using Barrier = uint64_t;

// `sizes` of dimensions from the innermost, `strides` in bytes of all but that one, `box` what one
// copy takes: 128 bytes wide, swizzled in shared memory; what lies outside is zero.
inline cudaError_t makeTensorMap(TensorMap* map, const void* base, int rank, const uint64_t* sizes,
                                 const uint64_t* strides, const uint32_t* box) {
  static const auto encode = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult found;
    const cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function,
                                                               12000, cudaEnableDefault, &found);
    if (error != cudaSuccess || found != cudaDriverEntryPointSuccess) function = nullptr;
    return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(function);
  }();
  if (!encode) return cudaErrorNotSupported;
  const uint32_t steps[5] = {1, 1, 1, 1, 1};
  const CUresult result =
      encode(map, CU_TENSOR_MAP_DATA_TYPE_UINT8, static_cast<uint32_t>(rank),
             const_cast<void*>(base), sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
             CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
             CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

__device__ __forceinline__ unsigned char* alignShared1024(unsigned char* raw) {
  return raw + (1024 - sharedAddress(raw) % 1024) % 1024;
}

#if TESRA_HOPPER_CODE
__device__ __forceinline__ void barrierInit(Barrier* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(sharedAddress(barrier)),
               "r"(arrivals)
               : "memory");
}
// Makes initialised barriers visible to the copy engine.
__device__ __forceinline__ void barrierInitFence() {
  asm volatile("fence.mbarrier_init.release.cluster;\n" ::: "memory");
}
// One arrival that also announces bytes of copies to come.
__device__ __forceinline__ void barrierExpect(Barrier* barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(
                   sharedAddress(barrier)),
               "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void barrierArrive(Barrier* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];\n" ::"r"(sharedAddress(barrier))
               : "memory");
}
// Until the phase of this parity has ended.
__device__ __forceinline__ void barrierWait(Barrier* barrier, int parity) {
  asm volatile(
      "{\n"
      ".reg .pred ended;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 ended, [%0], %1;\n"
      "@!ended bra again;\n"
      "}\n" ::"r"(sharedAddress(barrier)),
      "r"(parity)
      : "memory");
}

__device__ __forceinline__ void copyTensor2(void* to, const TensorMap& map, Barrier* barrier,
                                            int x0, int x1) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%3, %4}], [%2];\n" ::"r"(sharedAddress(to)),
      "l"(&map), "r"(sharedAddress(barrier)), "r"(x0), "r"(x1)
      : "memory");
}
__device__ __forceinline__ void copyTensor4(void* to, const TensorMap& map, Barrier* barrier,
                                            int x0, int x1, int x2, int x3) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%3, %4, %5, %6}], [%2];\n" ::"r"(sharedAddress(to)),
      "l"(&map), "r"(sharedAddress(barrier)), "r"(x0), "r"(x1), "r"(x2), "r"(x3)
      : "memory");
}

template <int kCount>
__device__ __forceinline__ void claimRegisters() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;\n" ::"n"(kCount));
}
template <int kCount>
__device__ __forceinline__ void releaseRegisters() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;\n" ::"n"(kCount));
}

// A tile of rows of 128 bytes, swizzled by 128 bytes: groups of eight rows lie 1024 bytes apart.
// 32 bytes of k more are 2 more in the address field.
__device__ __forceinline__ uint64_t sharedDescriptor(const void* tile) {
  const uint64_t address = (sharedAddress(tile) & 0x3ffff) >> 4;
  return address | uint64_t{1} << 16 | uint64_t{1024 >> 4} << 32 | uint64_t{1} << 62;
}

__device__ __forceinline__ void wgmmaFence() {
  asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory");
}
__device__ __forceinline__ void wgmmaCommit() {
  asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory");
}
// Until at most kPending of the committed groups are under way.
template <int kPending>
__device__ __forceinline__ void wgmmaWait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(kPending) : "memory");
}
// Sums are written behind the compiler's back until the wait: it may neither move nor copy them
// across this.
template <int kCount>
__device__ __forceinline__ void holdSums(int32_t (&d)[kCount]) {
  TESRA_FOR(i, kCount) asm volatile("" : "+r"(d[i])::"memory");
}
template <int kCount>
__device__ __forceinline__ void holdSums(float (&d)[kCount]) {
  TESRA_FOR(i, kCount) asm volatile("" : "+f"(d[i])::"memory");
}

// The operands of an asm statement that are sums, and their names in its text.
#define TESRA_SUMS_4(as, d, i) as(d[i]), as(d[i + 1]), as(d[i + 2]), as(d[i + 3])
#define TESRA_SUMS_16(as, d, i)                                                   \
  TESRA_SUMS_4(as, d, i), TESRA_SUMS_4(as, d, i + 4), TESRA_SUMS_4(as, d, i + 8), \
      TESRA_SUMS_4(as, d, i + 12)
#define TESRA_SUMS_32(as, d, i) TESRA_SUMS_16(as, d, i), TESRA_SUMS_16(as, d, i + 16)
#define TESRA_SUMS_128(as, d)                                                  \
  TESRA_SUMS_32(as, d, 0), TESRA_SUMS_32(as, d, 32), TESRA_SUMS_32(as, d, 64), \
      TESRA_SUMS_32(as, d, 96)
#define TESRA_NAMES_32 \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, " \
  "%17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define TESRA_NAMES_128 \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, " \
  "%17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, " \
  "%47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, " \
  "%62, %63, %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, " \
  "%77, %78, %79, %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, " \
  "%92, %93, %94, %95, %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, " \
  "%106, %107, %108, %109, %110, %111, %112, %113, %114, %115, %116, %117, %118, " \
  "%119, %120, %121, %122, %123, %124, %125, %126, %127"

// d (64 rows of 2 kCount sums, of a warpgroup) += a (64 rows of 32 bytes) * b (2 kCount rows of 32
// bytes) transposed, both K-major: int8 into wrapping int32, or bf16 into fp32. Lane l of warp w
// holds row 16w + l/4 + 8 (i/2 % 2), column 8 (i/4) + 2 (l%4) + i%2 in d[i].
__device__ __forceinline__ void wgmma(int32_t (&d)[32], uint64_t a, uint64_t b) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n64k32.s32.s8.s8 {" TESRA_NAMES_32
               "}, %32, %33, 1;\n"
               : TESRA_SUMS_32("+r", d, 0)
               : "l"(a), "l"(b));
}
__device__ __forceinline__ void wgmma(int32_t (&d)[128], uint64_t a, uint64_t b) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n256k32.s32.s8.s8 {" TESRA_NAMES_128
               "}, %128, %129, 1;\n"
               : TESRA_SUMS_128("+r", d)
               : "l"(a), "l"(b));
}
__device__ __forceinline__ void wgmma(float (&d)[128], uint64_t a, uint64_t b) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {" TESRA_NAMES_128
               "}, %128, %129, 1, 1, 1, 0, 0;\n"
               : TESRA_SUMS_128("+f", d)
               : "l"(a), "l"(b));
}
#endif

}  // namespace tesra::cuda
#endif
