// Owns: what the operations of the CPU back end share: context, scratch, small arithmetic.
// Invariant: an operation allocates nothing; it is given the scratch that its *_scratch function
// asked for (floats, 64-byte aligned).
#pragma once
#include "kernels.h"
#include "thread-pool.h"

namespace tesra {

// Memory of a device that grows to the largest request and is kept, for the operations that own no
// scratch. Contents do not outlive a call.
class Workspace {
 public:
  Workspace() = default;
  ~Workspace();
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  void* take(size_t bytes);  // 64-byte aligned; throws std::bad_alloc

 private:
  void* memory_ = nullptr;
  size_t bytes_ = 0;
};

struct Context {
  const Kernels* kernels;
  ThreadPool* pool;
  Workspace* workspace;
};

// 64-byte aligned, to be freed by std::free; NULL when there is none. From 1 MiB on it lies on huge
// pages where the system gives them: packed operands are walked with large strides.
void* allocate_aligned(size_t bytes);

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }
template <class T>
inline T smaller(T a, T b) {
  return a < b ? a : b;
}
template <class T>
inline T larger(T a, T b) {
  return a > b ? a : b;
}

// body(begin, end) over [0, n) in ranges of at least `grain`, several a thread.
template <class F>
void parallel_ranges(const Context& cx, int64_t n, int64_t grain, const F& body) {
  if (n <= 0) return;
  int64_t tasks = smaller<int64_t>(ceil_div(n, grain), 4 * cx.pool->threads());
  const int64_t step = round_up(ceil_div(n, tasks), 64);
  tasks = ceil_div(n, step);
  cx.pool->run(tasks, [&](int64_t i, int) { body(i * step, smaller(n, (i + 1) * step)); });
}

size_t gemm_scratch(const Context& cx, const tesra_gemm& g);
void gemm(const Context& cx, const tesra_gemm& g, float* scratch);
size_t bf16_gemm_scratch(const Context& cx, const tesra_gemm& g);
void bf16_gemm(const Context& cx, const tesra_gemm& g, float* scratch);
size_t exact_gemm_scratch(const Context& cx, const tesra_exact_gemm& e);
void exact_gemm(const Context& cx, const tesra_exact_gemm& e, float* scratch);
size_t bias_grad_scratch(const tesra_bias_grad& b);
void bias_grad(const Context& cx, const tesra_bias_grad& b, float* scratch);

size_t conv_scratch(const Context& cx, const tesra_conv& c);
void conv_forward(const Context& cx, const tesra_conv& c, float* scratch);
size_t conv_dx_scratch(const Context& cx, const tesra_conv& c);
void conv_dx(const Context& cx, const tesra_conv& c, float* scratch);
size_t conv_dw_scratch(const Context& cx, const tesra_conv& c);
void conv_dw(const Context& cx, const tesra_conv& c, float* scratch);

void maxpool(const Context& cx, const tesra_pool& p);
void maxpool_grad(const Context& cx, const tesra_pool& p);
void avgpool(const Context& cx, const tesra_pool& p);
void avgpool_grad(const Context& cx, const tesra_pool& p);

size_t softmax_xent_scratch(const tesra_softmax_xent& s);
void softmax_xent(const Context& cx, const tesra_softmax_xent& s, float* scratch);
void count_correct(const Context& cx, const tesra_count_correct& c);

void norm(const Context& cx, const tesra_norm& o);
size_t norm_grad_scratch(const tesra_norm_grad& o);
void norm_grad(const Context& cx, const tesra_norm_grad& o, float* scratch);
void softmax(const Context& cx, const tesra_softmax& o);
void softmax_grad(const Context& cx, const tesra_softmax& o);

size_t rope_scratch(const tesra_rope& o);
void rope(const Context& cx, const tesra_rope& o, float* scratch);
void copy(const Context& cx, const tesra_copy& o);

void bias_add(const Context& cx, const tesra_bias_add& o);
void embedding(const Context& cx, const tesra_embedding& o);
void embedding_grad(const Context& cx, const tesra_embedding_grad& o);

void dropout(const Context& cx, const tesra_dropout& o);
void fill(const Context& cx, const tesra_fill& o);
size_t global_norm_scratch(const tesra_global_norm& o);
void global_norm(const Context& cx, const tesra_global_norm& o, float* scratch);
void clip(const Context& cx, const tesra_clip& o);

size_t attention_scratch(const Context& cx, const tesra_attention& o);
void attention(const Context& cx, const tesra_attention& o, float* scratch);
size_t attention_grad_scratch(const Context& cx, const tesra_attention_grad& o);
void attention_grad(const Context& cx, const tesra_attention_grad& o, float* scratch);

void blake3(const Context& cx, const tesra_blake3& args);
void int8_gemm(const Context& cx, const tesra_int8_gemm& g);
int crm_scan(const Context& cx, tesra_crm_scan& s, tesra_error* error);
void crm_tile(const tesra_crm_tile& t);
void compress(const Context& cx, const tesra_compress& c);
void decompress(const Context& cx, const tesra_decompress& d);

int fail(tesra_error* error, int code, const char* format, ...);

}  // namespace tesra
