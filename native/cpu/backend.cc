// Owns: the CPU back end's table of functions, its instruction set choice, devices and plans.
// Invariant: plan_run allocates nothing; all scratch of a plan is one block, shared by its
// operations because they run one after another.
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if defined(__x86_64__) && defined(__GNUC__)
#include <cpuid.h>
#endif

#include "cn2/device.h"
#include "cpu.h"

struct tesra_device {
  tesra::Context context;
  std::unique_ptr<tesra::ThreadPool> pool;
  tesra::Workspace workspace;
  tesra::Scratchpads scratchpads;
};

struct tesra_plan {
  std::vector<tesra_op> ops;
  float* scratch = nullptr;
};

namespace tesra {

int fail(tesra_error* error, int code, const char* format, ...) {
  if (error) {
    error->code = code;
    va_list list;
    va_start(list, format);
    std::vsnprintf(error->message, sizeof error->message, format, list);
    va_end(list);
  }
  return code;
}

namespace {

struct Features {
  bool avx2 = false, avx512 = false, vnni = false, amx = false;
};

// Linux hands out the 8 KiB of tile state on request, once a process (arch_prctl(2),
// ARCH_REQ_XCOMP_PERM for feature 18); it refuses where it or a sandbox knows no AMX.
bool amx_permitted() {
#if defined(__linux__) && defined(__x86_64__)
  static const bool permitted = syscall(SYS_arch_prctl, 0x1023, 18) == 0;
  return permitted;
#else
  return false;
#endif
}

Features features() {
  Features f;
#if defined(__x86_64__) && defined(__GNUC__)
  __builtin_cpu_init();
  f.avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("bmi2");
  f.avx512 = f.avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  f.vnni = f.avx512 && __builtin_cpu_supports("avx512vnni");
  unsigned a, b, c, d;
  f.amx = f.vnni && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d >> 24 & 3) == 3 &&
          amx_permitted();  // AMX-TILE and AMX-INT8
#endif
  return f;
}

// isa as in tesra_open; NULL when this CPU lacks it.
const Kernels* choose(int isa) {
  const Features f = features();
  switch (isa) {
    case 0:
      return f.amx      ? amx_kernels()
             : f.avx512 ? avx512_kernels(f.vnni)
             : f.avx2   ? avx2_kernels()
                        : scalar_kernels();
    case 1: return scalar_kernels();
    case 2: return f.avx2 ? avx2_kernels() : nullptr;
    case 3: return f.avx512 ? avx512_kernels(f.vnni) : nullptr;
    case 4: return f.amx ? amx_kernels() : nullptr;
    default: return nullptr;
  }
}

size_t scratch_of(const Context& cx, const tesra_op& op) {
  switch (op.kind) {
    case TESRA_OP_GEMM: return gemm_scratch(cx, op.u.gemm);
    case TESRA_OP_BF16_GEMM: return bf16_gemm_scratch(cx, op.u.gemm);
    case TESRA_OP_EXACT_GEMM: return exact_gemm_scratch(cx, op.u.exact_gemm);
    case TESRA_OP_BIAS_GRAD: return bias_grad_scratch(op.u.bias_grad);
    case TESRA_OP_CONV2D: return conv_scratch(cx, op.u.conv);
    case TESRA_OP_CONV2D_DX: return conv_dx_scratch(cx, op.u.conv);
    case TESRA_OP_CONV2D_DW: return conv_dw_scratch(cx, op.u.conv);
    case TESRA_OP_SOFTMAX_XENT: return softmax_xent_scratch(op.u.softmax_xent);
    case TESRA_OP_LAYER_NORM_GRAD:
    case TESRA_OP_RMS_NORM_GRAD: return norm_grad_scratch(op.u.norm_grad);
    case TESRA_OP_GLOBAL_NORM: return global_norm_scratch(op.u.global_norm);
    case TESRA_OP_ROPE: return rope_scratch(op.u.rope);
    case TESRA_OP_ATTENTION: return attention_scratch(cx, op.u.attention);
    case TESRA_OP_ATTENTION_GRAD: return attention_grad_scratch(cx, op.u.attention_grad);
    default: return 0;
  }
}

constexpr int64_t kElementGrain = 16384;  // floats: about 2 us, the cost of waking a thread

void run_adam(const Context& cx, const tesra_adam& a) {
  uint32_t step = a.step;
  if (a.step_counter) {
    const float t = a.step_counter[0] + 1.0f;
    a.step_counter[0] = t;
    step = t >= 16777216.0f ? 16777216u : t >= 1.0f ? static_cast<uint32_t>(t) : 1u;
  }
  const tesra_adam_coefficients_t k = tesra_adam_coefficients(&a, step);
  const bool decay = a.weight_decay != 0.0;
  parallel_ranges(cx, a.n, kElementGrain, [&](int64_t i, int64_t e) {
    cx.kernels->adam({a.p + i, a.m + i, a.v + i, a.g + i, e - i, k, decay});
  });
}

void map(const Context& cx, TransformerKernels::Map f, const tesra_map& m) {
  parallel_ranges(cx, m.n, kElementGrain, [&](int64_t i, int64_t e) {
    f(m.x + i, m.y ? m.y + i : nullptr, m.out + i, e - i);
  });
}

int execute(const Context& cx, const tesra_op& op, float* scratch, tesra_error* error) {
  const Kernels& k = *cx.kernels;
  const tesra_map& m = op.u.map;
  switch (op.kind) {
    case TESRA_OP_GEMM: gemm(cx, op.u.gemm, scratch); break;
    case TESRA_OP_BF16_GEMM: bf16_gemm(cx, op.u.gemm, scratch); break;
    case TESRA_OP_EXACT_GEMM: exact_gemm(cx, op.u.exact_gemm, scratch); break;
    case TESRA_OP_BIAS_GRAD: bias_grad(cx, op.u.bias_grad, scratch); break;
    case TESRA_OP_RELU:
      parallel_ranges(cx, m.n, kElementGrain,
                      [&](int64_t i, int64_t e) { k.relu(m.x + i, m.out + i, e - i); });
      break;
    case TESRA_OP_RELU_GRAD:
      parallel_ranges(cx, m.n, kElementGrain, [&](int64_t i, int64_t e) {
        k.relu_grad(m.x + i, m.y + i, m.out + i, e - i);
      });
      break;
    case TESRA_OP_ADD:
      parallel_ranges(cx, m.n, kElementGrain,
                      [&](int64_t i, int64_t e) { k.add(m.x + i, m.y + i, m.out + i, e - i); });
      break;
    case TESRA_OP_SCALE:
      parallel_ranges(cx, m.n, kElementGrain, [&](int64_t i, int64_t e) {
        k.scale(m.x + i, m.out + i, e - i, m.alpha, m.beta);
      });
      break;
    case TESRA_OP_GELU: map(cx, k.transformer.gelu, m); break;
    case TESRA_OP_GELU_GRAD: map(cx, k.transformer.gelu_grad, m); break;
    case TESRA_OP_GELU_TANH: map(cx, k.transformer.gelu_tanh, m); break;
    case TESRA_OP_GELU_TANH_GRAD: map(cx, k.transformer.gelu_tanh_grad, m); break;
    case TESRA_OP_SILU: map(cx, k.transformer.silu, m); break;
    case TESRA_OP_SILU_GRAD: map(cx, k.transformer.silu_grad, m); break;
    case TESRA_OP_MUL: map(cx, k.transformer.mul, m); break;
    case TESRA_OP_DIV: map(cx, k.transformer.div, m); break;
    case TESRA_OP_EXP: map(cx, k.transformer.exp, m); break;
    case TESRA_OP_LOG: map(cx, k.transformer.log, m); break;
    case TESRA_OP_SQRT: map(cx, k.transformer.sqrt, m); break;
    case TESRA_OP_ERF: map(cx, k.transformer.erf, m); break;
    case TESRA_OP_SIGMOID: map(cx, k.transformer.sigmoid, m); break;
    case TESRA_OP_COPY: tesra::copy(cx, op.u.copy); break;
    case TESRA_OP_ROPE: rope(cx, op.u.rope, scratch); break;
    case TESRA_OP_BIAS_ADD: bias_add(cx, op.u.bias_add); break;
    case TESRA_OP_LAYER_NORM:
    case TESRA_OP_RMS_NORM: norm(cx, op.u.norm); break;
    case TESRA_OP_LAYER_NORM_GRAD:
    case TESRA_OP_RMS_NORM_GRAD: norm_grad(cx, op.u.norm_grad, scratch); break;
    case TESRA_OP_SOFTMAX: softmax(cx, op.u.softmax); break;
    case TESRA_OP_SOFTMAX_GRAD: softmax_grad(cx, op.u.softmax); break;
    case TESRA_OP_EMBEDDING: embedding(cx, op.u.embedding); break;
    case TESRA_OP_EMBEDDING_GRAD: embedding_grad(cx, op.u.embedding_grad); break;
    case TESRA_OP_ATTENTION: attention(cx, op.u.attention, scratch); break;
    case TESRA_OP_ATTENTION_GRAD: attention_grad(cx, op.u.attention_grad, scratch); break;
    case TESRA_OP_DROPOUT: dropout(cx, op.u.dropout); break;
    case TESRA_OP_FILL: fill(cx, op.u.fill); break;
    case TESRA_OP_GLOBAL_NORM: global_norm(cx, op.u.global_norm, scratch); break;
    case TESRA_OP_CLIP: clip(cx, op.u.clip); break;
    case TESRA_OP_U8_TO_F32: {
      const tesra_u8_to_f32& u = op.u.u8_to_f32;
      parallel_ranges(cx, u.n, kElementGrain, [&](int64_t i, int64_t e) {
        k.u8_to_f32(u.x + i, u.out + i, e - i, u.scale, u.shift);
      });
      break;
    }
    case TESRA_OP_FINITE: {
      const tesra_finite& f = op.u.finite;
      std::atomic<bool> all{true};
      parallel_ranges(cx, f.n, kElementGrain, [&](int64_t i, int64_t e) {
        if (!k.finite(f.x + i, e - i)) all.store(false);
      });
      f.out[0] = all.load() ? 1 : 0;
      break;
    }
    case TESRA_OP_CONV2D: conv_forward(cx, op.u.conv, scratch); break;
    case TESRA_OP_CONV2D_DX: conv_dx(cx, op.u.conv, scratch); break;
    case TESRA_OP_CONV2D_DW: conv_dw(cx, op.u.conv, scratch); break;
    case TESRA_OP_MAXPOOL: maxpool(cx, op.u.pool); break;
    case TESRA_OP_MAXPOOL_GRAD: maxpool_grad(cx, op.u.pool); break;
    case TESRA_OP_AVGPOOL: avgpool(cx, op.u.pool); break;
    case TESRA_OP_AVGPOOL_GRAD: avgpool_grad(cx, op.u.pool); break;
    case TESRA_OP_SOFTMAX_XENT: softmax_xent(cx, op.u.softmax_xent, scratch); break;
    case TESRA_OP_COUNT_CORRECT: count_correct(cx, op.u.count_correct); break;
    case TESRA_OP_SGD: {
      const tesra_sgd& s = op.u.sgd;
      parallel_ranges(cx, s.n, kElementGrain, [&](int64_t i, int64_t e) {
        k.sgd(s.p + i, s.g + i, e - i, static_cast<float>(s.learning_rate),
              static_cast<float>(s.weight_decay));
      });
      break;
    }
    case TESRA_OP_MOMENTUM: {
      const tesra_sgd& s = op.u.sgd;
      parallel_ranges(cx, s.n, kElementGrain, [&](int64_t i, int64_t e) {
        k.momentum(s.p + i, s.g + i, s.m + i, e - i, static_cast<float>(s.learning_rate),
                   static_cast<float>(s.weight_decay), static_cast<float>(s.momentum),
                   s.nesterov != 0);
      });
      break;
    }
    case TESRA_OP_ADAM: run_adam(cx, op.u.adam); break;
    case TESRA_OP_DELAY_COMPENSATE: {
      const tesra_delay_compensate& d = op.u.delay_compensate;
      parallel_ranges(cx, d.n, kElementGrain, [&](int64_t i, int64_t e) {
        k.delay_compensate(d.g + i, d.w_now + i, d.w_base + i, e - i, d.lambda);
      });
      break;
    }
    default:
      return fail(error, TESRA_E_UNSUPPORTED, "operation kind %d is unknown to the CPU back end",
                  op.kind);
  }
  return TESRA_OK;
}

// ---------------------------------------------------------------- the table

void probe(tesra_probe* out) {
  std::memset(out, 0, sizeof *out);
  out->compiled = out->available = 1;
}

int open(const tesra_open* options, tesra_device** out, tesra_error* error) {
  static const char* const names[] = {"the best", "scalar", "avx2", "avx512", "amx"};
  int isa = options->isa;
  if (isa == 0) {
    const char* wanted = std::getenv("TESRA_ISA");
    if (wanted && *wanted) {
      for (int i = 1; i <= 4; ++i)
        if (std::strcmp(wanted, names[i]) == 0) isa = i;
      if (isa == 0)
        return fail(error, TESRA_E_ARGUMENT,
                    "TESRA_ISA is \"%.32s\"; it may be scalar, avx2, avx512 or amx", wanted);
    }
  }
  const Kernels* kernels = choose(isa);
  if (!kernels)
    return fail(error, TESRA_E_UNAVAILABLE, "this CPU or build has no %s kernels; leave TESRA_ISA unset",
                isa >= 0 && isa <= 4 ? names[isa] : "such");
  try {
    std::unique_ptr<tesra_device> d(new tesra_device);
    d->pool.reset(new ThreadPool(options->threads > 0 ? options->threads : available_threads()));
    d->context = {kernels, d->pool.get(), &d->workspace};
    *out = d.release();
  } catch (const std::exception& e) {
    return fail(error, TESRA_E_MEMORY, "the CPU device could not start its threads: %s", e.what());
  }
  return TESRA_OK;
}

void close(tesra_device* device) { delete device; }

void describe(tesra_device* device, tesra_device_info* out) {
  std::memset(out, 0, sizeof *out);
  std::snprintf(out->isa, sizeof out->isa, "%s", device->context.kernels->name);
  std::snprintf(out->name, sizeof out->name, "CPU");
  out->threads = device->pool->threads();
}

int alloc(tesra_device*, size_t size, void** out, tesra_error* error) {
  void* p = allocate_aligned(size);
  if (!p) return fail(error, TESRA_E_MEMORY, "no memory for %zu bytes", size);
  std::memset(p, 0, static_cast<size_t>(round_up(static_cast<int64_t>(size), 64)));
  *out = p;
  return TESRA_OK;
}
void release(tesra_device*, void* p) { std::free(p); }

int copy(tesra_device*, void* to, const void* from, size_t size, tesra_error*) {
  if (size) std::memcpy(to, from, size);
  return TESRA_OK;
}
int sync(tesra_device*, tesra_error*) { return TESRA_OK; }

int plan_create(tesra_device* device, const tesra_op* ops, size_t count, tesra_plan** out,
                tesra_error* error) {
  std::unique_ptr<tesra_plan> plan(new (std::nothrow) tesra_plan);
  if (!plan) return fail(error, TESRA_E_MEMORY, "no memory for a plan");
  size_t floats = 0;
  for (size_t i = 0; i < count; ++i) floats = larger(floats, scratch_of(device->context, ops[i]));
  try {
    plan->ops.assign(ops, ops + count);
  } catch (const std::bad_alloc&) {
    return fail(error, TESRA_E_MEMORY, "no memory for a plan of %zu operations", count);
  }
  plan->scratch = static_cast<float*>(allocate_aligned(floats * sizeof(float)));
  if (!plan->scratch)
    return fail(error, TESRA_E_MEMORY, "no memory for %zu bytes of scratch", floats * sizeof(float));
  *out = plan.release();
  return TESRA_OK;
}

int plan_run(tesra_device* device, tesra_plan* plan, tesra_error* error) {
  for (const tesra_op& op : plan->ops) {
    const int code = execute(device->context, op, plan->scratch, error);
    if (code != TESRA_OK) return code;
  }
  return TESRA_OK;
}

void plan_destroy(tesra_device*, tesra_plan* plan) {
  if (!plan) return;
  std::free(plan->scratch);
  delete plan;
}

int run_op(tesra_device* device, const tesra_op* op, tesra_error* error) {
  const size_t floats = scratch_of(device->context, *op);
  float* scratch = nullptr;
  if (floats) {
    scratch = static_cast<float*>(allocate_aligned(floats * sizeof(float)));
    if (!scratch)
      return fail(error, TESRA_E_MEMORY, "no memory for %zu bytes of scratch",
                  floats * sizeof(float));
  }
  const int code = execute(device->context, *op, scratch, error);
  std::free(scratch);
  return code;
}

// Allocation failures inside the host-pointer functions surface here.
template <class F>
int guarded(tesra_error* error, const F& f) {
  try {
    return f();
  } catch (const std::bad_alloc&) {
    return fail(error, TESRA_E_MEMORY, "no memory for the operation's working space");
  }
}

int hash(tesra_device* device, const tesra_blake3* args, tesra_error* error) {
  return guarded(error, [&] { return blake3(device->context, *args), TESRA_OK; });
}
int product(tesra_device* device, const tesra_int8_gemm* args, tesra_error* error) {
  return guarded(error, [&] { return int8_gemm(device->context, *args), TESRA_OK; });
}
int scan(tesra_device* device, tesra_crm_scan* args, tesra_error* error) {
  return guarded(error, [&] { return crm_scan(device->context, *args, error); });
}
int replay(tesra_device*, const tesra_crm_tile* args, tesra_error*) {
  crm_tile(*args);
  return TESRA_OK;
}
int slow_hash(tesra_device* device, const tesra_cn2* args, tesra_error* error) {
  return guarded(error, [&] {
    return cn2_hash(device->context, device->scratchpads, *args), TESRA_OK;
  });
}
int slow_scan(tesra_device* device, tesra_cn2_scan* args, tesra_error* error) {
  return guarded(error, [&] {
    return cn2_scan(device->context, device->scratchpads, *args), TESRA_OK;
  });
}
int pack(tesra_device* device, const tesra_compress* args, tesra_error* error) {
  return guarded(error, [&] { return compress(device->context, *args), TESRA_OK; });
}
int unpack(tesra_device* device, const tesra_decompress* args, tesra_error* error) {
  return guarded(error, [&] { return decompress(device->context, *args), TESRA_OK; });
}

const tesra_backend kBackend = {
    TESRA_ABI,    "cpu",    1,          probe,   open,      close, describe, alloc,
    release,      copy,     copy,       sync,    plan_create, plan_run, plan_destroy, run_op,
    hash,         product,  scan,       replay,  slow_hash, slow_scan, pack, unpack,
};

}  // namespace
}  // namespace tesra

extern "C" const tesra_backend* tesra_cpu_backend(void) { return &tesra::kBackend; }
