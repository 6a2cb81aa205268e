// Owns the seam between the device object (backend.cu) and the kernel families: launchers and their
// scratch. Invariant: a launcher only enqueues on launch.stream (so it can be captured into a
// graph), uses no memory but the operation's tensors and launch.scratch, and returns the launch's
// error.
#pragma once
#include "../kernels/backend.h"
#include "intrinsics.h"

namespace tesra::cuda {

struct Launch {
  cudaStream_t stream;
  int sm, multiprocessors;
  void*
      scratch;  // scratchBytes(op, multiprocessors) bytes, zeroed when allocated, 256-byte aligned
};

// Scratch that one operation needs; 0 for most.
size_t scratchBytes(const tesra_op& op, int multiprocessors);
// Enqueues one operation of any kind.
cudaError_t launchOp(const Launch& launch, const tesra_op& op);

size_t gemmScratch(const tesra_gemm& op, int multiprocessors);
cudaError_t launchGemm(const Launch& launch, const tesra_gemm& op);
size_t bf16GemmScratch(const tesra_gemm& op, int multiprocessors);
cudaError_t launchBf16Gemm(const Launch& launch, const tesra_gemm& op);
size_t exactGemmScratch(const tesra_exact_gemm& op, int multiprocessors);
cudaError_t launchExactGemm(const Launch& launch, const tesra_exact_gemm& op);
size_t biasGradScratch(const tesra_bias_grad& op);
cudaError_t launchBiasGrad(const Launch& launch, const tesra_bias_grad& op);

size_t convScratch(int32_t kind, const tesra_conv& op, int multiprocessors);
cudaError_t launchConv(const Launch& launch, int32_t kind, const tesra_conv& op);

size_t poolScratch(int32_t kind);
cudaError_t launchPool(const Launch& launch, int32_t kind, const tesra_pool& op);

cudaError_t launchMap(const Launch& launch, int32_t kind, const tesra_map& op);
cudaError_t launchU8ToF32(const Launch& launch, const tesra_u8_to_f32& op);
cudaError_t launchFinite(const Launch& launch, const tesra_finite& op);

cudaError_t launchNorm(const Launch& launch, const tesra_norm& op);
size_t normGradScratch(const tesra_norm_grad& op);
cudaError_t launchNormGrad(const Launch& launch, const tesra_norm_grad& op);
cudaError_t launchSoftmax(const Launch& launch, int32_t kind, const tesra_softmax& op);

cudaError_t launchBiasAdd(const Launch& launch, const tesra_bias_add& op);
cudaError_t launchEmbedding(const Launch& launch, const tesra_embedding& op);
cudaError_t launchEmbeddingGrad(const Launch& launch, const tesra_embedding_grad& op);

cudaError_t launchCopy(const Launch& launch, const tesra_copy& op);
cudaError_t launchRope(const Launch& launch, const tesra_rope& op);

cudaError_t launchAttention(const Launch& launch, const tesra_attention& op);
size_t attentionGradScratch(const tesra_attention_grad& op);
cudaError_t launchAttentionGrad(const Launch& launch, const tesra_attention_grad& op);

cudaError_t launchFill(const Launch& launch, const tesra_fill& op);
cudaError_t launchDropout(const Launch& launch, const tesra_dropout& op);
size_t globalNormScratch(const tesra_global_norm& op);
cudaError_t launchGlobalNorm(const Launch& launch, const tesra_global_norm& op);
cudaError_t launchClip(const Launch& launch, const tesra_clip& op);

size_t softmaxXentScratch(const tesra_softmax_xent& op);
cudaError_t launchSoftmaxXent(const Launch& launch, const tesra_softmax_xent& op);
cudaError_t launchCountCorrect(const Launch& launch, const tesra_count_correct& op);

size_t adamScratch(const tesra_adam& op);
cudaError_t launchSgd(const Launch& launch, int32_t kind, const tesra_sgd& op);
cudaError_t launchAdam(const Launch& launch, const tesra_adam& op);
cudaError_t launchDelayCompensate(const Launch& launch, const tesra_delay_compensate& op);

// BLAKE3 of `size` device bytes (16-byte aligned); `work` holds blake3Scratch(size) bytes; the
// 32-byte result lies at the returned pointer's target, inside `work`, when the stream is done.
size_t blake3Scratch(size_t size);
cudaError_t launchBlake3(cudaStream_t stream, const uint8_t* data, size_t size,
                         const uint32_t key[8], bool keyed, uint32_t* work, uint32_t** result);

// Device pointers, 16-byte aligned; k a multiple of 64, `pitch` bytes between rows of both operands,
// a multiple of 16.
cudaError_t launchInt8Gemm(const Launch& launch, const int8_t* a, const int8_t* bt, int32_t* c,
                           int m, int n, int k, int pitch);
// Rows [0, rows) of challenge matrix 0 or 1 (pow.h), rows x k at `out`.
cudaError_t launchChallengeRows(cudaStream_t stream, const uint8_t seed[32], uint32_t matrix,
                                int rows, int k, int8_t* out);
struct ScanOutput {
  uint32_t* count;    // zeroed by the caller
  uint32_t* tiles;    // capacity words
  uint32_t* tickets;  // capacity * 8 words
  uint32_t capacity;
};
cudaError_t launchCrmScan(cudaStream_t stream, int sm, const int8_t* a, const int8_t* bt, int m,
                          int n, int k, const uint8_t key[32], const uint8_t target[32],
                          const ScanOutput& out);
cudaError_t launchCrmTile(cudaStream_t stream, const int8_t* aRows, const int8_t* bColumns, int k,
                          uint32_t* transcript);

// CN2 of host bytes, device memory taken and given back by the call.
int runCn2Hash(cudaStream_t stream, const tesra_cn2& args, tesra_error* error);
int runCn2Scan(cudaStream_t stream, int multiprocessors, tesra_cn2_scan& args, tesra_error* error);

// Grid for `items` at `perBlock` a block, capped: kernels walk the rest in grid strides. 65,536
// blocks are hundreds of waves on any GPU, enough to hide the tail.
constexpr int64_t kGridBlocksMax = 65536;
inline unsigned gridFor(int64_t items, int64_t perBlock) {
  const int64_t blocks = (items + perBlock - 1) / perBlock;
  return static_cast<unsigned>(blocks < 1 ? 1 : blocks > kGridBlocksMax ? kGridBlocksMax : blocks);
}
inline bool aligned16(const void* pointer) {
  return (reinterpret_cast<uintptr_t>(pointer) & 15) == 0;
}

}  // namespace tesra::cuda
