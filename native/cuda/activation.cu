// Owns the element-wise operations and the test for finite values.
// Invariant: out may be exactly one of the inputs, so each thread reads its elements before it
// writes them.
#include "../kernels/activation.h"

#include "launch.h"
#include "pack.h"

namespace tesra::cuda {
namespace {

constexpr int kThreads = 256;

template <int kKind>
__device__ __forceinline__ float apply(float x, float y, float alpha, float beta) {
  if constexpr (kKind == TESRA_OP_RELU) return tesra_relu(x);
  if constexpr (kKind == TESRA_OP_RELU_GRAD) return y > 0.0f ? x : 0.0f;
  if constexpr (kKind == TESRA_OP_ADD) return __fadd_rn(x, y);
  if constexpr (kKind == TESRA_OP_GELU) return tesra_gelu(x);
  if constexpr (kKind == TESRA_OP_GELU_GRAD) return __fmul_rn(x, tesra_gelu_derivative(y));
  if constexpr (kKind == TESRA_OP_GELU_TANH) return tesra_gelu_tanh(x);
  if constexpr (kKind == TESRA_OP_GELU_TANH_GRAD)
    return __fmul_rn(x, tesra_gelu_tanh_derivative(y));
  if constexpr (kKind == TESRA_OP_SILU) return tesra_silu(x);
  if constexpr (kKind == TESRA_OP_SILU_GRAD) return __fmul_rn(x, tesra_silu_derivative(y));
  if constexpr (kKind == TESRA_OP_MUL) return __fmul_rn(x, y);
  if constexpr (kKind == TESRA_OP_DIV) return __fdiv_rn(x, y);
  if constexpr (kKind == TESRA_OP_EXP) return tesra_exp(x);
  if constexpr (kKind == TESRA_OP_LOG) return tesra_natural_log(x);
  if constexpr (kKind == TESRA_OP_SQRT) return __fsqrt_rn(x);
  if constexpr (kKind == TESRA_OP_ERF) return tesra_erf(x);
  if constexpr (kKind == TESRA_OP_SIGMOID) return tesra_sigmoid(x);
  return __fmaf_rn(alpha, x, beta);
}

template <int kKind, int kWidth>
__global__ void map(const float* x, const float* y, float* out, int64_t packs, float alpha,
                    float beta) {
  constexpr bool kBinary = kKind == TESRA_OP_RELU_GRAD || kKind == TESRA_OP_ADD ||
                           kKind == TESRA_OP_GELU_GRAD || kKind == TESRA_OP_GELU_TANH_GRAD ||
                           kKind == TESRA_OP_SILU_GRAD || kKind == TESRA_OP_MUL ||
                           kKind == TESRA_OP_DIV;
  forEachPack(packs, [&](int64_t i) {
    Pack<kWidth> a = loadPack<kWidth>(x, i), b{};
    if (kBinary) b = loadPack<kWidth>(y, i);
    for (int j = 0; j < kWidth; j++) a.v[j] = apply<kKind>(a.v[j], b.v[j], alpha, beta);
    storePack(out, i, a);
  });
}

__global__ void widen(const uint8_t* x, float* out, int64_t n, float scale, float shift) {
  forEachPack(n, [&](int64_t i) { out[i] = __fmaf_rn(scale, static_cast<float>(x[i]), shift); });
}

__global__ void setOne(int32_t* out) {
  *out = 1;
}

__global__ void testFinite(const float* x, int32_t* out, int64_t n) {
  bool finite = true;
  forEachPack(n, [&](int64_t i) {
    finite = finite && (tesra_float_bits(x[i]) & 0x7f800000u) != 0x7f800000u;
  });
  if (!finite) *out = 0;  // every writer writes the same value
}

template <int kKind>
cudaError_t launchKind(const Launch& launch, const tesra_map& op) {
  if (op.n == 0) return cudaSuccess;
  if (op.n % 4 == 0 && aligned16(op.x) && aligned16(op.out) &&
      (op.y == nullptr || aligned16(op.y))) {
    auto* kernel = map<kKind, 4>;
    TESRA_LAUNCH(kernel, gridFor(op.n / 4, kThreads), kThreads, 0, launch.stream, op.x, op.y,
                 op.out, op.n / 4, op.alpha, op.beta);
  } else {
    auto* kernel = map<kKind, 1>;
    TESRA_LAUNCH(kernel, gridFor(op.n, kThreads), kThreads, 0, launch.stream, op.x, op.y, op.out,
                 op.n, op.alpha, op.beta);
  }
  return cudaGetLastError();
}

}  // namespace

cudaError_t launchMap(const Launch& launch, int32_t kind, const tesra_map& op) {
  switch (kind) {
    case TESRA_OP_RELU: return launchKind<TESRA_OP_RELU>(launch, op);
    case TESRA_OP_RELU_GRAD: return launchKind<TESRA_OP_RELU_GRAD>(launch, op);
    case TESRA_OP_ADD: return launchKind<TESRA_OP_ADD>(launch, op);
    case TESRA_OP_GELU: return launchKind<TESRA_OP_GELU>(launch, op);
    case TESRA_OP_GELU_GRAD: return launchKind<TESRA_OP_GELU_GRAD>(launch, op);
    case TESRA_OP_GELU_TANH: return launchKind<TESRA_OP_GELU_TANH>(launch, op);
    case TESRA_OP_GELU_TANH_GRAD: return launchKind<TESRA_OP_GELU_TANH_GRAD>(launch, op);
    case TESRA_OP_SILU: return launchKind<TESRA_OP_SILU>(launch, op);
    case TESRA_OP_SILU_GRAD: return launchKind<TESRA_OP_SILU_GRAD>(launch, op);
    case TESRA_OP_MUL: return launchKind<TESRA_OP_MUL>(launch, op);
    case TESRA_OP_DIV: return launchKind<TESRA_OP_DIV>(launch, op);
    case TESRA_OP_EXP: return launchKind<TESRA_OP_EXP>(launch, op);
    case TESRA_OP_LOG: return launchKind<TESRA_OP_LOG>(launch, op);
    case TESRA_OP_SQRT: return launchKind<TESRA_OP_SQRT>(launch, op);
    case TESRA_OP_ERF: return launchKind<TESRA_OP_ERF>(launch, op);
    case TESRA_OP_SIGMOID: return launchKind<TESRA_OP_SIGMOID>(launch, op);
    default: return launchKind<TESRA_OP_SCALE>(launch, op);
  }
}

cudaError_t launchU8ToF32(const Launch& launch, const tesra_u8_to_f32& op) {
  if (op.n == 0) return cudaSuccess;
  TESRA_LAUNCH(widen, gridFor(op.n, kThreads), kThreads, 0, launch.stream, op.x, op.out, op.n,
               op.scale, op.shift);
  return cudaGetLastError();
}

cudaError_t launchFinite(const Launch& launch, const tesra_finite& op) {
  TESRA_LAUNCH(setOne, 1, 1, 0, launch.stream, op.out);
  cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess || op.n == 0) return error;
  TESRA_LAUNCH(testFinite, gridFor(op.n, kThreads * 8), kThreads, 0, launch.stream, op.x, op.out,
               op.n);
  return cudaGetLastError();
}

}  // namespace tesra::cuda
