// Owns the map from an operation's kind to its family's launcher and scratch.
#include "launch.h"

namespace tesra::cuda {

size_t scratchBytes(const tesra_op& op, int multiprocessors) {
  switch (op.kind) {
    case TESRA_OP_GEMM: return gemmScratch(op.u.gemm, multiprocessors);
    case TESRA_OP_BF16_GEMM: return bf16GemmScratch(op.u.gemm, multiprocessors);
    case TESRA_OP_EXACT_GEMM: return exactGemmScratch(op.u.exact_gemm, multiprocessors);
    case TESRA_OP_BIAS_GRAD: return biasGradScratch(op.u.bias_grad);
    case TESRA_OP_CONV2D:
    case TESRA_OP_CONV2D_DX:
    case TESRA_OP_CONV2D_DW: return convScratch(op.kind, op.u.conv, multiprocessors);
    case TESRA_OP_MAXPOOL:
    case TESRA_OP_MAXPOOL_GRAD:
    case TESRA_OP_AVGPOOL:
    case TESRA_OP_AVGPOOL_GRAD: return poolScratch(op.kind);
    case TESRA_OP_SOFTMAX_XENT: return softmaxXentScratch(op.u.softmax_xent);
    case TESRA_OP_LAYER_NORM_GRAD:
    case TESRA_OP_RMS_NORM_GRAD: return normGradScratch(op.u.norm_grad);
    case TESRA_OP_GLOBAL_NORM: return globalNormScratch(op.u.global_norm);
    case TESRA_OP_ATTENTION_GRAD: return attentionGradScratch(op.u.attention_grad);
    case TESRA_OP_ADAM: return adamScratch(op.u.adam);
    default: return 0;
  }
}

cudaError_t launchOp(const Launch& launch, const tesra_op& op) {
  switch (op.kind) {
    case TESRA_OP_GEMM: return launchGemm(launch, op.u.gemm);
    case TESRA_OP_BF16_GEMM: return launchBf16Gemm(launch, op.u.gemm);
    case TESRA_OP_EXACT_GEMM: return launchExactGemm(launch, op.u.exact_gemm);
    case TESRA_OP_BIAS_GRAD: return launchBiasGrad(launch, op.u.bias_grad);
    case TESRA_OP_RELU:
    case TESRA_OP_RELU_GRAD:
    case TESRA_OP_ADD:
    case TESRA_OP_SCALE:
    case TESRA_OP_GELU:
    case TESRA_OP_GELU_GRAD:
    case TESRA_OP_GELU_TANH:
    case TESRA_OP_GELU_TANH_GRAD:
    case TESRA_OP_SILU:
    case TESRA_OP_SILU_GRAD:
    case TESRA_OP_MUL:
    case TESRA_OP_DIV:
    case TESRA_OP_EXP:
    case TESRA_OP_LOG:
    case TESRA_OP_SQRT:
    case TESRA_OP_ERF:
    case TESRA_OP_SIGMOID: return launchMap(launch, op.kind, op.u.map);
    case TESRA_OP_BIAS_ADD: return launchBiasAdd(launch, op.u.bias_add);
    case TESRA_OP_LAYER_NORM:
    case TESRA_OP_RMS_NORM: return launchNorm(launch, op.u.norm);
    case TESRA_OP_LAYER_NORM_GRAD:
    case TESRA_OP_RMS_NORM_GRAD: return launchNormGrad(launch, op.u.norm_grad);
    case TESRA_OP_SOFTMAX:
    case TESRA_OP_SOFTMAX_GRAD: return launchSoftmax(launch, op.kind, op.u.softmax);
    case TESRA_OP_EMBEDDING: return launchEmbedding(launch, op.u.embedding);
    case TESRA_OP_EMBEDDING_GRAD: return launchEmbeddingGrad(launch, op.u.embedding_grad);
    case TESRA_OP_COPY: return launchCopy(launch, op.u.copy);
    case TESRA_OP_ROPE: return launchRope(launch, op.u.rope);
    case TESRA_OP_FILL: return launchFill(launch, op.u.fill);
    case TESRA_OP_DROPOUT: return launchDropout(launch, op.u.dropout);
    case TESRA_OP_GLOBAL_NORM: return launchGlobalNorm(launch, op.u.global_norm);
    case TESRA_OP_CLIP: return launchClip(launch, op.u.clip);
    case TESRA_OP_ATTENTION: return launchAttention(launch, op.u.attention);
    case TESRA_OP_ATTENTION_GRAD: return launchAttentionGrad(launch, op.u.attention_grad);
    case TESRA_OP_U8_TO_F32: return launchU8ToF32(launch, op.u.u8_to_f32);
    case TESRA_OP_FINITE: return launchFinite(launch, op.u.finite);
    case TESRA_OP_CONV2D:
    case TESRA_OP_CONV2D_DX:
    case TESRA_OP_CONV2D_DW: return launchConv(launch, op.kind, op.u.conv);
    case TESRA_OP_MAXPOOL:
    case TESRA_OP_MAXPOOL_GRAD:
    case TESRA_OP_AVGPOOL:
    case TESRA_OP_AVGPOOL_GRAD: return launchPool(launch, op.kind, op.u.pool);
    case TESRA_OP_SOFTMAX_XENT: return launchSoftmaxXent(launch, op.u.softmax_xent);
    case TESRA_OP_COUNT_CORRECT: return launchCountCorrect(launch, op.u.count_correct);
    case TESRA_OP_SGD:
    case TESRA_OP_MOMENTUM: return launchSgd(launch, op.kind, op.u.sgd);
    case TESRA_OP_ADAM: return launchAdam(launch, op.u.adam);
    case TESRA_OP_DELAY_COMPENSATE: return launchDelayCompensate(launch, op.u.delay_compensate);
    default: return cudaErrorInvalidValue;
  }
}

}  // namespace tesra::cuda
