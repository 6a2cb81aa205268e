// Owns the optimizer updates and delay compensation over flat fp32 vectors, in place.
// Invariant: optimizer.h, one rounding a line; each element is read and written by one thread only.
#include "../kernels/optimizer.h"

#include "launch.h"
#include "pack.h"

namespace tesra::cuda {
namespace {

constexpr int kThreads = 256;

__device__ __forceinline__ float flush(float x) {
  return fabsf(x) < TESRA_FLOAT_TINY ? 0.0f : x;
}

struct SgdConstants {
  float negativeRate, decay, momentum;
  bool decays, nesterov;
};

template <bool kMomentum, int kWidth>
__global__ void sgd(float* p, const float* g, float* m, int64_t packs, SgdConstants o) {
  forEachPack(packs, [&](int64_t i) {
    Pack<kWidth> vp = loadPack<kWidth>(p, i), vm{};
    const Pack<kWidth> vg = loadPack<kWidth>(g, i);
    if (kMomentum) vm = loadPack<kWidth>(m, i);
    for (int j = 0; j < kWidth; j++) {
      const float gd = o.decays ? __fmaf_rn(o.decay, vp.v[j], vg.v[j]) : vg.v[j];
      float update = gd;
      if (kMomentum) {
        vm.v[j] = flush(__fmaf_rn(o.momentum, vm.v[j], gd));
        update = o.nesterov ? __fmaf_rn(o.momentum, vm.v[j], gd) : vm.v[j];
      }
      vp.v[j] = __fmaf_rn(o.negativeRate, update, vp.v[j]);
    }
    if (kMomentum) storePack(m, i, vm);
    storePack(p, i, vp);
  });
}

__global__ void adamCoefficients(tesra_adam o, tesra_adam_coefficients_t* out) {
  const float next = __fadd_rn(o.step_counter[0], 1.0f);
  o.step_counter[0] = next;
  const uint32_t t = !(next >= 1.0f)      ? 1u
                     : next > 16777216.0f ? 16777216u
                                          : static_cast<uint32_t>(next);
  *out = tesra_adam_coefficients(&o, t);
}

template <int kWidth>
__global__ void adam(float* p, const float* g, float* m, float* v, int64_t packs,
                     tesra_adam_coefficients_t given, const tesra_adam_coefficients_t* stored,
                     bool decays) {
  const tesra_adam_coefficients_t o = stored ? *stored : given;
  const float negativeAlpha = -o.alpha;
  forEachPack(packs, [&](int64_t i) {
    Pack<kWidth> vp = loadPack<kWidth>(p, i), vm = loadPack<kWidth>(m, i),
                 vv = loadPack<kWidth>(v, i);
    const Pack<kWidth> vg = loadPack<kWidth>(g, i);
    for (int j = 0; j < kWidth; j++) {
      const float x = vg.v[j];
      if (decays) vp.v[j] = __fmul_rn(vp.v[j], o.decay);
      vm.v[j] = flush(__fmaf_rn(o.beta1, vm.v[j], __fmul_rn(o.omb1, x)));
      vv.v[j] = flush(__fmaf_rn(o.beta2, vv.v[j], __fmul_rn(o.omb2, __fmul_rn(x, x))));
      const float d = __fmaf_rn(__fsqrt_rn(vv.v[j]), o.root, o.epsilon);
      vp.v[j] = __fmaf_rn(negativeAlpha, __fdiv_rn(vm.v[j], d), vp.v[j]);
    }
    storePack(m, i, vm);
    storePack(v, i, vv);
    storePack(p, i, vp);
  });
}

template <int kWidth>
__global__ void delayCompensate(float* g, const float* now, const float* base, int64_t packs,
                                float lambda) {
  forEachPack(packs, [&](int64_t i) {
    Pack<kWidth> vg = loadPack<kWidth>(g, i);
    const Pack<kWidth> vn = loadPack<kWidth>(now, i), vb = loadPack<kWidth>(base, i);
    for (int j = 0; j < kWidth; j++) {
      const float x = vg.v[j];
      vg.v[j] = __fmaf_rn(__fmul_rn(lambda, __fmul_rn(x, x)), __fsub_rn(vn.v[j], vb.v[j]), x);
    }
    storePack(g, i, vg);
  });
}

template <bool kMomentum>
cudaError_t launchSgdKind(const Launch& launch, const tesra_sgd& op) {
  if (op.n == 0) return cudaSuccess;
  const SgdConstants o{static_cast<float>(-op.learning_rate), static_cast<float>(op.weight_decay),
                       static_cast<float>(op.momentum), op.weight_decay != 0, op.nesterov != 0};
  const bool wide =
      op.n % 4 == 0 && aligned16(op.p) && aligned16(op.g) && (!kMomentum || aligned16(op.m));
  const int64_t packs = wide ? op.n / 4 : op.n;
  auto* kernel = wide ? sgd<kMomentum, 4> : sgd<kMomentum, 1>;
  TESRA_LAUNCH(kernel, gridFor(packs, kThreads), kThreads, 0, launch.stream, op.p, op.g, op.m,
               packs, o);
  return cudaGetLastError();
}

}  // namespace

cudaError_t launchSgd(const Launch& launch, int32_t kind, const tesra_sgd& op) {
  return kind == TESRA_OP_MOMENTUM ? launchSgdKind<true>(launch, op)
                                   : launchSgdKind<false>(launch, op);
}

size_t adamScratch(const tesra_adam& op) {
  return op.step_counter ? sizeof(tesra_adam_coefficients_t) : 0;
}

cudaError_t launchAdam(const Launch& launch, const tesra_adam& op) {
  tesra_adam_coefficients_t given{};
  tesra_adam_coefficients_t* stored = nullptr;
  if (op.step_counter) {
    stored = static_cast<tesra_adam_coefficients_t*>(launch.scratch);
    TESRA_LAUNCH(adamCoefficients, 1, 1, 0, launch.stream, op, stored);
    const cudaError_t error = cudaGetLastError();
    if (error != cudaSuccess) return error;
  } else {
    given = tesra_adam_coefficients(&op, op.step);
  }
  if (op.n == 0) return cudaSuccess;
  const bool wide =
      op.n % 4 == 0 && aligned16(op.p) && aligned16(op.g) && aligned16(op.m) && aligned16(op.v);
  const int64_t packs = wide ? op.n / 4 : op.n;
  auto* kernel = wide ? adam<4> : adam<1>;
  const bool decays = op.weight_decay != 0;
  TESRA_LAUNCH(kernel, gridFor(packs, kThreads), kThreads, 0, launch.stream, op.p, op.g, op.m, op.v,
               packs, given, stored, decays);
  return cudaGetLastError();
}

cudaError_t launchDelayCompensate(const Launch& launch, const tesra_delay_compensate& op) {
  if (op.n == 0) return cudaSuccess;
  const bool wide = op.n % 4 == 0 && aligned16(op.g) && aligned16(op.w_now) && aligned16(op.w_base);
  const int64_t packs = wide ? op.n / 4 : op.n;
  auto* kernel = wide ? delayCompensate<4> : delayCompensate<1>;
  TESRA_LAUNCH(kernel, gridFor(packs, kThreads), kThreads, 0, launch.stream, op.g, op.w_now,
               op.w_base, packs, op.lambda);
  return cudaGetLastError();
}

}  // namespace tesra::cuda
