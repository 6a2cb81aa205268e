// Owns a stand-in for the CUDA runtime that runs kernels on the CPU, one block at a time, each
// thread a fibre. Only check.cc is built with it. Invariant: it is harsher than a GPU where a GPU
// is merely lucky: threads run in a shuffled order between barriers, an asynchronous copy lands no
// sooner than its wait, fresh memory is 0xff, and memory ends at a guard page.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(8) int2 {
  int32_t x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};
struct alignas(16) int4 {
  int32_t x, y, z, w;
};

extern dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulator {
extern int multiprocessors;  // what the device properties report
extern int deviceError;      // what cudaGetDeviceCount answers
void seed(uint64_t value);
void launch(dim3 grid, dim3 block, size_t shared, void* stream, std::function<void()> kernel);
unsigned char* dynamicShared();
void blockBarrier();
void warpBarrier();
constexpr int kExchangeWords = 8;
struct Exchange {
  uint32_t word[kExchangeWords];
  const void* pointer;
};
// Publishes this lane's values and returns all 32 lanes' once every lane has published.
const Exchange* exchange(const Exchange& mine);
int lane();
}  // namespace emulator

inline void __syncthreads() {
  emulator::blockBarrier();
}
inline float __fmaf_rn(float a, float b, float c) {
  return fmaf(a, b, c);
}
inline float __fadd_rn(float a, float b) {
  return a + b;
}
inline float __fsub_rn(float a, float b) {
  return a - b;
}
inline float __fmul_rn(float a, float b) {
  return a * b;
}
inline float __fdiv_rn(float a, float b) {
  return a / b;
}
inline float __fsqrt_rn(float a) {
  return sqrtf(a);
}
inline double __dsqrt_rn(double a) {
  return sqrt(a);
}
inline uint64_t __umul64hi(uint64_t a, uint64_t b) {
  return static_cast<uint64_t>(static_cast<unsigned __int128>(a) * b >> 64);
}
inline uint32_t __umulhi(uint32_t a, uint32_t b) {
  return static_cast<uint32_t>((uint64_t{a} * b) >> 32);
}
inline int min(int a, int b) {
  return a < b ? a : b;
}
inline int __dp4a(int a, int b, int c) {
  for (int i = 0; i < 4; i++)
    c += static_cast<int8_t>(a >> (8 * i)) * static_cast<int8_t>(b >> (8 * i));
  return c;
}
template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  static_assert(sizeof(T) == 4, "32-bit values");
  emulator::Exchange mine{};
  memcpy(mine.word, &value, 4);
  memcpy(&value, emulator::exchange(mine)[emulator::lane() ^ mask].word, 4);
  return value;
}
inline uint32_t __reduce_xor_sync(unsigned, uint32_t value) {
  const emulator::Exchange* all = emulator::exchange({{value}, nullptr});
  uint32_t x = 0;
  for (int i = 0; i < 32; i++) x ^= all[i].word[0];
  return x;
}
inline uint32_t __ballot_sync(unsigned, bool vote) {
  const emulator::Exchange* all = emulator::exchange({{vote}, nullptr});
  uint32_t x = 0;
  for (int i = 0; i < 32; i++) x |= all[i].word[0] << i;
  return x;
}
inline int __popc(uint32_t x) {
  return __builtin_popcount(x);
}
inline int __reduce_add_sync(unsigned, int value) {
  const emulator::Exchange* all = emulator::exchange({{static_cast<uint32_t>(value)}, nullptr});
  uint32_t x = 0;
  for (int i = 0; i < 32; i++) x += all[i].word[0];
  return static_cast<int>(x);
}
inline uint32_t atomicAdd(uint32_t* to, uint32_t by) {
  const uint32_t old = *to;
  *to += by;
  return old;
}

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInsufficientDriver = 35,
  cudaErrorNoDevice = 100,
};
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost };
enum {
  cudaStreamNonBlocking = 1,
  cudaStreamCaptureModeThreadLocal = 1,
  cudaFuncAttributeMaxDynamicSharedMemorySize = 8
};
struct EmulatedGraph;
using cudaStream_t = void*;
using cudaGraph_t = EmulatedGraph*;
using cudaGraphExec_t = EmulatedGraph*;
struct EmulatedEvent;
using cudaEvent_t = EmulatedEvent*;
struct cudaDeviceProp {
  char name[256];
  struct {
    char bytes[16];
  } uuid;
  int major, minor, multiProcessorCount;
  size_t totalGlobalMem;
};
const char* cudaGetErrorString(cudaError_t);
const char* cudaGetErrorName(cudaError_t);
cudaError_t cudaGetLastError();
cudaError_t cudaRuntimeGetVersion(int*);
cudaError_t cudaDriverGetVersion(int*);
cudaError_t cudaGetDeviceCount(int*);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp*, int);
cudaError_t cudaSetDevice(int);
cudaError_t cudaMalloc(void**, size_t);
cudaError_t cudaFree(void*);
cudaError_t cudaMemsetAsync(void*, int, size_t, cudaStream_t);
cudaError_t cudaMemcpyAsync(void*, const void*, size_t, cudaMemcpyKind, cudaStream_t);
cudaError_t cudaMemcpy2DAsync(void*, size_t, const void*, size_t, size_t, size_t, cudaMemcpyKind,
                              cudaStream_t);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t*, unsigned);
cudaError_t cudaStreamSynchronize(cudaStream_t);
cudaError_t cudaStreamDestroy(cudaStream_t);
cudaError_t cudaStreamBeginCapture(cudaStream_t, int);
cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t*);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t*, cudaGraph_t, unsigned);
cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t);
cudaError_t cudaGraphLaunch(cudaGraphExec_t, cudaStream_t);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t);
cudaError_t cudaGraphDestroy(cudaGraph_t);
cudaError_t cudaEventCreate(cudaEvent_t*);
cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t);
cudaError_t cudaEventElapsedTime(float*, cudaEvent_t, cudaEvent_t);
cudaError_t cudaEventDestroy(cudaEvent_t);
template <class F>
cudaError_t cudaFuncSetAttribute(F*, int, int) {
  return cudaSuccess;
}
