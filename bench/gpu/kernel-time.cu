// Owns the timing of single CUDA kernels by device events: no addon, no transfers, random data,
// medians. Usage: kernel-time [FAMILY...]; prints one JSON object a line, so that what was timed
// survives what fails; exit 4 without a usable GPU.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "../../native/cuda/launch.h"
#include "../../native/cuda/probe.h"
#include "../../native/cuda/tensor-product.h"

namespace {

using namespace tesra::cuda;

constexpr int kWarmUps = 3;
constexpr int kRepeats = 15;  // odd: the median is one of them

#define MUST(call)                                                                               \
  do {                                                                                           \
    const cudaError_t status_ = (call);                                                          \
    if (status_ != cudaSuccess)                                                                  \
      throw std::runtime_error(std::string(cudaGetErrorName(status_)) + " at line " +            \
                               std::to_string(__LINE__) + ": " + cudaGetErrorString(status_));   \
  } while (0)

__global__ void randomise(uint32_t* words, int64_t count, uint32_t seed, bool floats) {
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < count;
       i += int64_t{gridDim.x} * blockDim.x) {
    uint64_t x = (static_cast<uint64_t>(seed) << 40) + i * 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    const uint32_t r = static_cast<uint32_t>(x >> 32);
    words[i] = floats ? __float_as_uint(static_cast<float>(r >> 8) * 0x1p-23f - 1.0f) : r;
  }
}

// Two bf16 a word, of either sign and between 1/2 and 1 in size.
__global__ void bound(uint32_t* words, int64_t count) {
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < count;
       i += int64_t{gridDim.x} * blockDim.x)
    words[i] = (words[i] & 0x807f807fu) | 0x3f003f00u;
}

cudaStream_t stream;
int sm, multiprocessors;

Launch launchWith(void* scratch) {
  return Launch{stream, sm, multiprocessors, scratch};
}

struct Memory {
  void* at = nullptr;
  explicit Memory(size_t bytes, bool floats = true) {
    static uint32_t seed = 0;
    MUST(cudaMalloc(&at, bytes));
    randomise<<<1024, 256, 0, stream>>>(static_cast<uint32_t*>(at), static_cast<int64_t>(bytes / 4),
                                        ++seed, floats);
    MUST(cudaGetLastError());
  }
  Memory(const Memory&) = delete;
  ~Memory() { cudaFree(at); }
  float* floats() const { return static_cast<float*>(at); }
  int8_t* bytes() const { return static_cast<int8_t*>(at); }
};

// Median milliseconds of run(i), i = 0, 1, ... rotating sets.
double timeMs(const std::function<void(int)>& run) {
  cudaEvent_t begin, end;
  MUST(cudaEventCreate(&begin));
  MUST(cudaEventCreate(&end));
  std::vector<float> times;
  for (int i = 0; i < kWarmUps + kRepeats; i++) {
    MUST(cudaEventRecord(begin, stream));
    run(i);
    MUST(cudaEventRecord(end, stream));
    MUST(cudaEventSynchronize(end));
    float ms = 0;
    MUST(cudaEventElapsedTime(&ms, begin, end));
    if (i >= kWarmUps) times.push_back(ms);
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

void report(const std::string& name, double ms, double perSecond, const char* unit) {
  std::printf("{\"name\": \"%s\", \"ms\": %.4f, \"rate\": %.2f, \"unit\": \"%s\"}\n",
              name.c_str(), ms, perSecond, unit);
  std::fflush(stdout);
}
std::string named(const char* format, ...) {
  char text[96];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  return text;
}

struct Scratch {
  void* at = nullptr;
  explicit Scratch(const tesra_op& op) {
    const size_t size = scratchBytes(op, multiprocessors);
    if (size) MUST(cudaMalloc(&at, size));
    if (size) MUST(cudaMemset(at, 0, size));
  }
  ~Scratch() { cudaFree(at); }
};
double timeOp(const tesra_op& op) {
  Scratch scratch(op);
  return timeMs([&](int) { MUST(launchOp(launchWith(scratch.at), op)); });
}

void timeCopy() {
  constexpr size_t kBytes = size_t{2} << 30;
  Memory from(kBytes), to(kBytes);
  const double ms = timeMs([&](int) {
    MUST(cudaMemcpyAsync(to.at, from.at, kBytes, cudaMemcpyDeviceToDevice, stream));
  });
  report("device copy 2 GiB", ms, 2.0 * kBytes / ms / 1e6, "GB/s");
}

// The product of fp32 tensors by one of the three arithmetics; bf16 and exact-int include the
// rounding or cutting of both operands.
void timeGemm(const char* name, int kind, int slices, int m, int n, int k, int transA, int transB) {
  Memory a(size_t{4} * m * k), b(size_t{4} * k * n), c(size_t{4} * m * n);
  tesra_op op{};
  op.kind = kind;
  op.u.exact_gemm.gemm = {a.floats(),
                          b.floats(),
                          nullptr,
                          c.floats(),
                          m,
                          n,
                          k,
                          static_cast<uint8_t>(transA),
                          static_cast<uint8_t>(transB),
                          0,
                          0};
  op.u.exact_gemm.slices = slices;
  const double ms = timeOp(op);
  report(named("%s %c%c %dx%dx%d", name, transA ? 'T' : 'N', transB ? 'T' : 'N', m, n, k), ms,
         2.0 * m * n * k / ms / 1e9, "TFLOP/s");
}
void timeSgemm(int m, int n, int k, int transA, int transB) {
  timeGemm("sgemm", TESRA_OP_GEMM, 0, m, n, k, transA, transB);
}

// The bf16 product alone, of operands that are bf16 already and lie along k.
void timeBf16(int m, int n, int k) {
  Memory a(size_t{2} * m * k, false), b(size_t{2} * n * k, false), c(size_t{4} * m * n);
  // Random words as bf16 hold huge numbers and NaN; clearing the upper exponent bit bounds them.
  for (const auto& [at, count] : {std::pair{a.at, int64_t{m} * k / 2}, {b.at, int64_t{n} * k / 2}}) {
    bound<<<1024, 256, 0, stream>>>(static_cast<uint32_t*>(at), count);
    MUST(cudaGetLastError());
  }
  const TensorWork work = tensorWork(m, n, 2 * k, multiprocessors);
  Memory partial(work.splits > 1 ? size_t{4} * work.splits * m * n : 256);
  const Epilogue e{c.floats(), nullptr, work.splits > 1 ? partial.floats() : nullptr, m, n, k,
                   false, false};
  const double ms = timeMs([&](int) {
    MUST(launchTensorProduct(launchWith(nullptr), Operands{a.at, b.at, m, n, 2 * k, 2 * k}, work,
                             FloatCells{e, true}));
    if (e.partial) MUST(launchJoin(stream, e, work.splits));
  });
  report(named("bf16 gemm %dx%dx%d", m, n, k), ms, 2.0 * m * n * k / ms / 1e9, "TFLOP/s");
}

void timeConv(int n, int size, int c, int oc, int kernel) {
  const int pad = kernel / 2;
  const size_t pixels = static_cast<size_t>(n) * size * size;
  Memory x(pixels * c * 4), w(size_t{4} * kernel * kernel * c * oc), y(pixels * oc * 4);
  struct Kind {
    int kind;
    const char* name;
  };
  for (const Kind kind : {Kind{TESRA_OP_CONV2D, "fwd"}, Kind{TESRA_OP_CONV2D_DX, "dx"},
                          Kind{TESRA_OP_CONV2D_DW, "dw"}}) {
    tesra_op op{};
    op.kind = kind.kind;
    tesra_conv& o = op.u.conv;
    o.x = x.floats(), o.w = w.floats(), o.dy = y.floats();
    Memory out(std::max({pixels * c, pixels * oc, size_t{1} * kernel * kernel * c * oc}) * 4);
    o.out = out.floats();
    o.n = n, o.h = o.w_ = o.oh = o.ow = size, o.c = c, o.oc = oc, o.kh = o.kw = kernel;
    o.stride_h = o.stride_w = 1, o.pad_h = o.pad_w = pad;
    const double ms = timeOp(op);
    report(named("conv %s n%d %dx%d c%d oc%d k%d", kind.name, n, size, size, c, oc, kernel), ms,
           2.0 * pixels * kernel * kernel * c * oc / ms / 1e9, "TFLOP/s");
  }
}

void timeInt8(int m, int n, int k) {
  Memory a(static_cast<size_t>(m) * k, false), b(static_cast<size_t>(n) * k, false),
      c(size_t{4} * m * n);
  const double work = static_cast<double>(m) * n * k;
  double ms = timeMs([&](int) {
    MUST(launchInt8Gemm(launchWith(nullptr), a.bytes(), b.bytes(), static_cast<int32_t*>(c.at), m,
                        n, k, k));
  });
  report(named("int8 gemm %dx%dx%d", m, n, k), ms, work / ms / 1e9, "TMAC/s");
  // A target that one tile in 2^24 meets: the winners' path is there and costs nothing.
  uint8_t key[32] = {1}, target[32];
  for (int i = 0; i < 32; i++) target[i] = i < 29 ? 0xff : 0;
  uint32_t* const words = static_cast<uint32_t*>(c.at);
  const ScanOutput out{words, words + 64, words + 4096, 1024};
  ms = timeMs([&](int) {
    MUST(cudaMemsetAsync(words, 0, 4, stream));
    MUST(launchCrmScan(stream, sm, a.bytes(), b.bytes(), m, n, k, key, target, out));
  });
  report(named("crm scan %dx%dx%d", m, n, k), ms, work / ms / 1e9, "TMAC/s");
}

void timeAdam(int64_t n) {
  Memory p(n * 4), g(n * 4), m(n * 4), v(n * 4);
  tesra_op op{};
  op.kind = TESRA_OP_ADAM;
  op.u.adam = {p.floats(), g.floats(), m.floats(), v.floats(), nullptr, n,
               7,          1e-3,       0.9,        0.999,      1e-8,    0.01};
  // v may not be negative; the first warm-up fills it with squares.
  MUST(cudaMemset(v.at, 0, n * 4));
  const double ms = timeOp(op);
  report("adamw " + std::to_string(n), ms, 28.0 * n / ms / 1e6, "GB/s");
}

// GPT-2's shapes: rows = batch x length.
void timeNorm(int64_t rows, int n) {
  const size_t cells = static_cast<size_t>(rows) * n;
  Memory x(4 * cells), dy(4 * cells), y(4 * cells), gamma(4 * n), beta(4 * n), mean(4 * rows),
      rstd(4 * rows), dgamma(4 * n), dbeta(4 * n);
  tesra_op op{};
  op.kind = TESRA_OP_LAYER_NORM;
  op.u.norm = {};
  op.u.norm.x = x.floats(), op.u.norm.gamma = gamma.floats(), op.u.norm.beta = beta.floats();
  op.u.norm.y = y.floats(), op.u.norm.mean = mean.floats(), op.u.norm.rstd = rstd.floats();
  op.u.norm.rows = rows, op.u.norm.columns = n, op.u.norm.epsilon = 1e-5f;
  double ms = timeOp(op);
  report(named("layer_norm %lldx%d", static_cast<long long>(rows), n), ms, 8.0 * cells / ms / 1e6,
         "GB/s");
  op = {};
  op.kind = TESRA_OP_LAYER_NORM_GRAD;
  tesra_norm_grad& g = op.u.norm_grad;
  g.dy = dy.floats(), g.x = x.floats(), g.gamma = gamma.floats(), g.mean = mean.floats();
  g.rstd = rstd.floats(), g.dx = y.floats(), g.dgamma = dgamma.floats(), g.dbeta = dbeta.floats();
  g.rows = rows, g.columns = n;
  ms = timeOp(op);
  report(named("layer_norm_grad %lldx%d", static_cast<long long>(rows), n), ms,
         12.0 * cells / ms / 1e6, "GB/s");
}

void timeMaps(int64_t n) {
  Memory x(4 * n), y(4 * n), out(4 * n);
  struct Kind {
    int kind;
    const char* name;
    double bytes;
  };
  for (const Kind kind : {Kind{TESRA_OP_GELU_TANH, "gelu_tanh", 8}, Kind{TESRA_OP_ADD, "add", 12},
                          Kind{TESRA_OP_GELU_TANH_GRAD, "gelu_tanh_grad", 12}}) {
    tesra_op op{};
    op.kind = kind.kind;
    op.u.map = {x.floats(), y.floats(), out.floats(), n, 1.0f, 0.0f};
    const double ms = timeOp(op);
    report(named("%s %lld", kind.name, static_cast<long long>(n)), ms, kind.bytes * n / ms / 1e6,
           "GB/s");
  }
}

void timeLoss(int64_t rows, int classes) {
  const size_t cells = static_cast<size_t>(rows) * classes;
  Memory logits(4 * cells), labels(4 * rows), loss(4), gradient(4 * cells);
  MUST(cudaMemset(labels.at, 0, 4 * rows));
  tesra_op op{};
  op.kind = TESRA_OP_SOFTMAX_XENT;
  op.u.softmax_xent = {logits.floats(), static_cast<int32_t*>(labels.at), loss.floats(),
                       gradient.floats(), static_cast<int32_t>(rows), classes};
  const double ms = timeOp(op);
  report(named("softmax_xent %lldx%d", static_cast<long long>(rows), classes), ms,
         8.0 * cells / ms / 1e6, "GB/s");
}

void timeAttention(int batch, int length, int heads, int size) {
  const size_t rows = static_cast<size_t>(batch) * length, width = static_cast<size_t>(heads) * size;
  Memory qkv(12 * rows * width), out(4 * rows * width), lse(4 * rows * heads),
      dout(4 * rows * width), dqkv(12 * rows * width);
  // Causal: half of the 4 T^2 d multiply-adds' two operations, as the peers are counted.
  const double forward = 2.0 * batch * heads * double(length) * length * size;
  tesra_op op{};
  op.kind = TESRA_OP_ATTENTION;
  op.u.attention = {qkv.floats(), out.floats(), lse.floats(), batch, length, heads, size, 1};
  double ms = timeOp(op);
  report(named("attention fwd b%d t%d h%d hd%d", batch, length, heads, size), ms,
         forward / ms / 1e9, "TFLOP/s");
  op = {};
  op.kind = TESRA_OP_ATTENTION_GRAD;
  op.u.attention_grad = {dout.floats(), qkv.floats(), out.floats(), lse.floats(), dqkv.floats(),
                         batch,         length,       heads,        size,         1};
  ms = timeOp(op);
  report(named("attention bwd b%d t%d h%d hd%d", batch, length, heads, size), ms,
         2.5 * forward / ms / 1e9, "TFLOP/s");
}

void timeCompression(int64_t n) {
  Memory x(4 * n), residual(4 * n), out(4 * n);
  for (const int kind : {TESRA_TOPK, TESRA_INT8, TESRA_SIGN}) {
    tesra_compress c{};
    c.kind = kind, c.parameter = kind == TESRA_TOPK ? static_cast<uint32_t>(n / 100) : 1024;
    c.x = x.floats(), c.residual = residual.floats(), c.n = n;
    Memory message(tesra_packed_size(kind, c.parameter, n), false);
    c.out = static_cast<uint8_t*>(message.at);
    tesra_op op{};
    op.kind = TESRA_OP_COMPRESS;
    op.u.compress = c;
    static const char* const names[] = {"", "topk 1%", "int8", "sign"};
    report(named("compress %s %lld", names[kind], static_cast<long long>(n)), timeOp(op), 0, "");
  }
}

void timeBlake3(size_t bytes) {
  Memory data(bytes, false), work(blake3Scratch(bytes));
  const uint32_t key[8] = TESRA_BLAKE3_IV;
  uint32_t* result;
  const double ms = timeMs([&](int) {
    MUST(launchBlake3(stream, static_cast<const uint8_t*>(data.at), bytes, key, false,
                      static_cast<uint32_t*>(work.at), &result));
  });
  report("blake3 " + std::to_string(bytes >> 20) + " MiB", ms, bytes / ms / 1e6, "GB/s");
}

struct Family {
  const char* name;
  std::vector<std::function<void()>> cases;
};

const std::vector<Family>& families() {
  static const std::vector<Family> all = {
      {"memory",
       {timeCopy, [] { timeAdam(int64_t{1} << 26); }, [] { timeNorm(65536, 768); },
        [] { timeMaps(int64_t{1} << 28); }, [] { timeLoss(8192, 50257); },
        [] { timeCompression(int64_t{1} << 27); }, [] { timeBlake3(size_t{256} << 20); }}},
      // All that has a form for Hopper.
      {"tensor",
       {[] { timeBf16(4096, 4096, 4096); }, [] { timeBf16(8192, 8192, 8192); },
        [] { timeBf16(768, 3072, 65536); },  // a weight's gradient: few cells, deep
        [] { timeInt8(4096, 4096, 4096); }, [] { timeInt8(8192, 8192, 4096); },
        [] { timeInt8(8192, 8192, 8192); },
        [] { timeGemm("bf16 rounded", TESRA_OP_BF16_GEMM, 0, 8192, 8192, 8192, 0, 0); },
        [] { timeGemm("exact 2 slices", TESRA_OP_EXACT_GEMM, 2, 8192, 8192, 8192, 0, 0); },
        [] { timeGemm("exact 3 slices", TESRA_OP_EXACT_GEMM, 3, 8192, 8192, 8192, 0, 0); }}},
      {"float",
       {[] { timeSgemm(1024, 1024, 1024, 0, 0); }, [] { timeSgemm(4096, 4096, 4096, 0, 0); },
        [] { timeSgemm(8192, 8192, 8192, 0, 0); }, [] { timeSgemm(4096, 4096, 4096, 0, 1); },
        [] { timeSgemm(4096, 4096, 4096, 1, 0); },
        [] { timeSgemm(128, 512, 784, 0, 0); },  // the MLP's first layer: launch and fill dominate
        [] { timeSgemm(784, 512, 128, 1, 0); }, [] { timeAttention(8, 1024, 12, 64); },
        [] { timeConv(128, 28, 1, 16, 5); },  // the LeNet-like network
        [] { timeConv(128, 14, 16, 32, 5); }, [] { timeConv(64, 56, 64, 64, 3); }}},
  };
  return all;
}

int run(const std::vector<std::string>& wanted) {
  cudaDeviceProp properties;
  tesra_error error;
  const int gpu = selectGpu(nullptr, &error);
  if (gpu < 0) {
    std::fprintf(stderr, "%s\n", error.message);
    return 4;
  }
  MUST(cudaSetDevice(gpu));
  MUST(cudaGetDeviceProperties(&properties, gpu));
  MUST(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  multiprocessors = properties.multiProcessorCount;
  sm = properties.major * 10 + properties.minor;
  int driver = 0, runtime = 0;
  MUST(cudaDriverGetVersion(&driver));
  MUST(cudaRuntimeGetVersion(&runtime));
  std::printf(
      "{\"gpu\": \"%s\", \"sm\": %d, \"multiprocessors\": %d, \"l2_bytes\": %d, "
      "\"driver\": %d, \"runtime\": %d, \"repeats\": %d, \"statistic\": \"median\", "
      "\"hopper\": %s}\n",
      properties.name, sm, multiprocessors, properties.l2CacheSize, driver, runtime, kRepeats,
      onHopper(sm) ? "true" : "false");
  int failures = 0;
  for (const Family& family : families()) {
    if (!wanted.empty() && std::find(wanted.begin(), wanted.end(), family.name) == wanted.end())
      continue;
    for (size_t i = 0; i < family.cases.size(); i++) try {
        family.cases[i]();
      } catch (const std::exception& failure) {
        std::printf("{\"name\": \"%s case %zu\", \"error\": \"%s\"}\n", family.name, i,
                    failure.what());
        std::fflush(stdout);
        failures++;
      }
  }
  return failures ? 1 : 0;
}

}  // namespace

int main(int count, char** arguments) {
  try {
    return run(std::vector<std::string>(arguments + 1, arguments + count));
  } catch (const std::exception& failure) {
    std::fprintf(stderr, "%s\n", failure.what());
    return 1;
  }
}
