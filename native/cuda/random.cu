// Owns dropout, four neighbouring elements a thread, which share one counter; and first weights.
// Invariant: random.h.
#include "../kernels/random.h"

#include "launch.h"
#include "pack.h"

namespace tesra::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void drop(tesra_dropout o) {
  const uint32_t step = tesra_dropout_step(o.step[0]);
  forEachPack((o.n + 3) / 4, [&](int64_t block) {
    const uint32_t counter[4] = {static_cast<uint32_t>(block),
                                 static_cast<uint32_t>(static_cast<uint64_t>(block) >> 32), o.stream,
                                 step};
    uint32_t words[4];
    tesra_philox(counter, o.key_low, o.key_high, words);
    TESRA_FOR(j, 4) {
      const int64_t i = 4 * block + j;
      if (i < o.n) o.out[i] = words[j] >> 8 >= o.threshold ? __fmul_rn(o.x[i], o.scale) : 0.0f;
    }
  });
}

__global__ void fillUniform(tesra_fill o) {
  forEachPack((o.n + 3) / 4, [&](int64_t block) {
    double u[4];
    tesra_uniforms(&o, static_cast<uint64_t>(block), u);
    TESRA_FOR(j, 4)
      if (4 * block + j < o.n) o.out[4 * block + j] = static_cast<float>((2.0 * u[j] - 1.0) * o.scale);
  });
}

__global__ void fillNormal(tesra_fill o) {
  forEachPack(o.n, [&](int64_t i) { o.out[i] = tesra_normal(&o, i); });
}

}  // namespace

cudaError_t launchFill(const Launch& launch, const tesra_fill& op) {
  if (op.n == 0) return cudaSuccess;
  if (op.normal)
    TESRA_LAUNCH(fillNormal, gridFor(op.n, kThreads), kThreads, 0, launch.stream, op);
  else
    TESRA_LAUNCH(fillUniform, gridFor((op.n + 3) / 4, kThreads), kThreads, 0, launch.stream, op);
  return cudaGetLastError();
}

cudaError_t launchDropout(const Launch& launch, const tesra_dropout& op) {
  if (op.n == 0) return cudaSuccess;
  TESRA_LAUNCH(drop, gridFor((op.n + 3) / 4, kThreads), kThreads, 0, launch.stream, op);
  return cudaGetLastError();
}

}  // namespace tesra::cuda
