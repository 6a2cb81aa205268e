// Owns: the table of functions that each back end (native/cpu, native/cuda) fills in.
// Invariant: arguments reaching a back end were validated by native/addon: shapes, sizes, overlap
// and alignment follow the family headers. One device is entered by one thread at a time, but the
// thread may differ between calls (a CUDA back end sets its device on each entry).
#pragma once
#include "activation.h"
#include "attention.h"
#include "bf16.h"
#include "cn2.h"
#include "compression.h"
#include "conv.h"
#include "copy.h"
#include "embedding.h"
#include "error.h"
#include "exact.h"
#include "gemm.h"
#include "hash.h"
#include "loss.h"
#include "norm.h"
#include "optimizer.h"
#include "pool.h"
#include "pow.h"
#include "random.h"
#include "rope.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TESRA_ABI 1u
#define TESRA_ALIGNMENT 64  // of tensors within an arena; allocations are at least so aligned
#define TESRA_DEVICES_MAX 16

enum tesra_op_kind {
  TESRA_OP_GEMM = 1,
  TESRA_OP_EXACT_GEMM,
  TESRA_OP_BIAS_GRAD,
  TESRA_OP_RELU,
  TESRA_OP_RELU_GRAD,
  TESRA_OP_ADD,
  TESRA_OP_SCALE,
  TESRA_OP_U8_TO_F32,
  TESRA_OP_FINITE,
  TESRA_OP_CONV2D,
  TESRA_OP_CONV2D_DX,
  TESRA_OP_CONV2D_DW,
  TESRA_OP_MAXPOOL,
  TESRA_OP_MAXPOOL_GRAD,
  TESRA_OP_AVGPOOL,
  TESRA_OP_AVGPOOL_GRAD,
  TESRA_OP_SOFTMAX_XENT,
  TESRA_OP_COUNT_CORRECT,
  TESRA_OP_SGD,
  TESRA_OP_MOMENTUM,
  TESRA_OP_ADAM,
  TESRA_OP_DELAY_COMPENSATE,
  TESRA_OP_GELU,
  TESRA_OP_GELU_GRAD,
  TESRA_OP_GELU_TANH,
  TESRA_OP_GELU_TANH_GRAD,
  TESRA_OP_SILU,
  TESRA_OP_SILU_GRAD,
  TESRA_OP_BIAS_ADD,
  TESRA_OP_LAYER_NORM,
  TESRA_OP_LAYER_NORM_GRAD,
  TESRA_OP_RMS_NORM,
  TESRA_OP_RMS_NORM_GRAD,
  TESRA_OP_SOFTMAX,
  TESRA_OP_SOFTMAX_GRAD,
  TESRA_OP_EMBEDDING,
  TESRA_OP_EMBEDDING_GRAD,
  TESRA_OP_ATTENTION,
  TESRA_OP_ATTENTION_GRAD,
  TESRA_OP_DROPOUT,
  TESRA_OP_GLOBAL_NORM,
  TESRA_OP_CLIP,
  TESRA_OP_FILL,
  TESRA_OP_BF16_GEMM,
  TESRA_OP_MUL,
  TESRA_OP_DIV,
  TESRA_OP_EXP,
  TESRA_OP_LOG,
  TESRA_OP_SQRT,
  TESRA_OP_ERF,
  TESRA_OP_SIGMOID,
  TESRA_OP_COPY,
  TESRA_OP_ROPE,
};

// All pointers inside are device pointers (CPU: plain memory).
typedef struct tesra_op {
  int32_t kind;
  union {
    tesra_gemm gemm;  // GEMM, BF16_GEMM
    tesra_exact_gemm exact_gemm;
    tesra_bias_grad bias_grad;
    tesra_map map;  // RELU, ADD, SCALE, GELU, GELU_TANH, SILU and the gradients, MUL to SIGMOID
    tesra_bias_add bias_add;
    tesra_u8_to_f32 u8_to_f32;
    tesra_finite finite;
    tesra_conv conv;  // CONV2D, CONV2D_DX, CONV2D_DW
    tesra_pool pool;  // the four pooling kinds
    tesra_softmax_xent softmax_xent;
    tesra_count_correct count_correct;
    tesra_sgd sgd;  // SGD, MOMENTUM
    tesra_adam adam;
    tesra_delay_compensate delay_compensate;
    tesra_norm norm;            // LAYER_NORM, RMS_NORM
    tesra_norm_grad norm_grad;  // LAYER_NORM_GRAD, RMS_NORM_GRAD
    tesra_softmax softmax;      // SOFTMAX, SOFTMAX_GRAD
    tesra_embedding embedding;
    tesra_embedding_grad embedding_grad;
    tesra_attention attention;
    tesra_attention_grad attention_grad;
    tesra_dropout dropout;
    tesra_global_norm global_norm;
    tesra_clip clip;
    tesra_fill fill;
    tesra_copy copy;
    tesra_rope rope;
  } u;
} tesra_op;

typedef struct tesra_device tesra_device;  // each back end defines its own
typedef struct tesra_plan tesra_plan;

typedef struct tesra_gpu {
  char id[64];    // what `gpu` selects: the UUID as "GPU-..." or "MIG-..."
  char name[128];
  int32_t index;  // within the visible devices
  int32_t sm;     // 80, 90, ...
  uint64_t memory_bytes;
} tesra_gpu;

typedef struct tesra_probe {
  int32_t compiled;   // 1 when this back end is in the binary
  int32_t available;  // 1 when a device can be opened now
  char reason[256];   // why not, in one sentence with the driver's words; empty when available
  int32_t driver_version, runtime_version;  // CUDA: as 12040; 0 when unknown
  int32_t count;
  tesra_gpu devices[TESRA_DEVICES_MAX];
} tesra_probe;

typedef struct tesra_open {
  int32_t threads;  // CPU: 0 = as many as the process may run on
  int32_t isa;      // CPU: 0 = best, 1 = scalar, 2 = avx2, 3 = avx512, 4 = amx
  const char* gpu;  // CUDA: NULL or "" = first visible; an index as text, or an id
} tesra_open;

typedef struct tesra_device_info {
  char isa[16];   // "scalar", "avx2", "avx512", "amx", "sm_90"
  char name[128];
  int32_t threads;
} tesra_device_info;

// Every int function returns an enum tesra_code and, when not TESRA_OK, fills *error.
typedef struct tesra_backend {
  uint32_t abi;         // TESRA_ABI
  const char* name;     // "cpu" or "cuda"
  int32_t host_memory;  // 1: device pointers are host pointers and may be viewed
  void (*probe)(tesra_probe* out);
  int (*open)(const tesra_open* options, tesra_device** out, tesra_error* error);
  void (*close)(tesra_device* device);
  void (*describe)(tesra_device* device, tesra_device_info* out);

  int (*alloc)(tesra_device* device, size_t size, void** out, tesra_error* error);  // zeroed
  void (*free)(tesra_device* device, void* pointer);
  // Both return when the host side may be reused, ordered with plan_run on the same device.
  int (*upload)(tesra_device* device, void* to, const void* from, size_t size, tesra_error* error);
  int (*download)(tesra_device* device, void* to, const void* from, size_t size, tesra_error* error);
  int (*sync)(tesra_device* device, tesra_error* error);

  // plan_create copies the operations, allocates all scratch and (CUDA) instantiates a graph.
  // plan_run executes them in order, allocates nothing, and returns when the results are there.
  int (*plan_create)(tesra_device* device, const tesra_op* ops, size_t count, tesra_plan** out,
                     tesra_error* error);
  int (*plan_run)(tesra_device* device, tesra_plan* plan, tesra_error* error);
  void (*plan_destroy)(tesra_device* device, tesra_plan* plan);
  // One operation at once, without a plan; may allocate scratch.
  int (*run_op)(tesra_device* device, const tesra_op* op, tesra_error* error);

  // Host pointers from here on.
  int (*blake3)(tesra_device* device, const tesra_blake3* args, tesra_error* error);
  int (*int8_gemm)(tesra_device* device, const tesra_int8_gemm* args, tesra_error* error);
  int (*crm_scan)(tesra_device* device, tesra_crm_scan* args, tesra_error* error);
  int (*crm_tile)(tesra_device* device, const tesra_crm_tile* args, tesra_error* error);
  int (*cn2_hash)(tesra_device* device, const tesra_cn2* args, tesra_error* error);
  int (*cn2_scan)(tesra_device* device, tesra_cn2_scan* args, tesra_error* error);
  // NULL where the back end leaves it to the CPU's.
  int (*compress)(tesra_device* device, const tesra_compress* args, tesra_error* error);
  int (*decompress)(tesra_device* device, const tesra_decompress* args, tesra_error* error);
} tesra_backend;

const tesra_backend* tesra_cpu_backend(void);
// Never NULL: a build without CUDA links a stub whose probe says compiled = 0 and whose open fails
// with TESRA_E_UNAVAILABLE.
const tesra_backend* tesra_cuda_backend(void);

#ifdef __cplusplus
}
#endif
