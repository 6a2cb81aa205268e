// Owns the timing of single CUDA kernels by device events: no addon, no transfers, random data,
// medians. Prints one JSON object; exit 4 without a usable GPU. Where the working set could sit in
// L2, several sets rotate.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "../../native/cuda/launch.h"
#include "../../native/cuda/probe.h"

namespace {

using namespace tesra::cuda;

constexpr int kWarmUps = 3;
constexpr int kRepeats = 15;  // odd: the median is one of them

#define MUST(call)                                                                          \
  do {                                                                                      \
    const cudaError_t status_ = (call);                                                     \
    if (status_ != cudaSuccess) {                                                           \
      std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, cudaGetErrorString(status_)); \
      std::exit(1);                                                                         \
    }                                                                                       \
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

cudaStream_t stream;
int multiprocessors;

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

bool first = true;
void report(const std::string& name, double ms, double perSecond, const char* unit) {
  std::printf("%s\n    {\"name\": \"%s\", \"ms\": %.4f, \"rate\": %.2f, \"unit\": \"%s\"}",
              first ? "" : ",", name.c_str(), ms, perSecond, unit);
  std::fflush(stdout);
  first = false;
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
  return timeMs([&](int) { MUST(launchOp(Launch{stream, multiprocessors, scratch.at}, op)); });
}

void timeCopy() {
  constexpr size_t kBytes = size_t{2} << 30;
  Memory from(kBytes), to(kBytes);
  const double ms = timeMs([&](int) {
    MUST(cudaMemcpyAsync(to.at, from.at, kBytes, cudaMemcpyDeviceToDevice, stream));
  });
  report("device copy 2 GiB", ms, 2.0 * kBytes / ms / 1e6, "GB/s");
}

void timeGemm(int m, int n, int k, int transA, int transB) {
  Memory a(size_t{4} * m * k), b(size_t{4} * k * n), c(size_t{4} * m * n);
  tesra_op op{};
  op.kind = TESRA_OP_GEMM;
  op.u.gemm = {a.floats(),
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
  const double ms = timeOp(op);
  char name[96];
  std::snprintf(name, sizeof name, "sgemm %c%c %dx%dx%d", transA ? 'T' : 'N', transB ? 'T' : 'N', m,
                n, k);
  report(name, ms, 2.0 * m * n * k / ms / 1e9, "TFLOP/s");
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
    char name[96];
    std::snprintf(name, sizeof name, "conv %s n%d %dx%d c%d oc%d k%d", kind.name, n, size, size, c,
                  oc, kernel);
    report(name, ms, 2.0 * pixels * kernel * kernel * c * oc / ms / 1e9, "TFLOP/s");
  }
}

int computeCapability() {
  cudaDeviceProp properties;
  MUST(cudaGetDeviceProperties(&properties, 0));
  return properties.major * 10 + properties.minor;
}

void timeInt8(int m, int n, int k) {
  Memory a(static_cast<size_t>(m) * k, false), b(static_cast<size_t>(n) * k, false),
      c(size_t{4} * m * n);
  const double work = static_cast<double>(m) * n * k;
  char name[96];
  double ms = timeMs([&](int) {
    MUST(launchInt8Gemm(stream, a.bytes(), b.bytes(), static_cast<int32_t*>(c.at), m, n, k, k));
  });
  std::snprintf(name, sizeof name, "int8 gemm %dx%dx%d", m, n, k);
  report(name, ms, work / ms / 1e9, "TMAC/s");
  // A target that one tile in 2^24 meets: the winners' path is there and costs nothing.
  uint8_t key[32] = {1}, target[32];
  for (int i = 0; i < 32; i++) target[i] = i < 29 ? 0xff : 0;
  uint32_t* const words = static_cast<uint32_t*>(c.at);
  const ScanOutput out{words, words + 64, words + 4096, 1024};
  ms = timeMs([&](int) {
    MUST(cudaMemsetAsync(words, 0, 4, stream));
    MUST(launchCrmScan(stream, computeCapability(), a.bytes(), b.bytes(), m, n, k, key, target, out));
  });
  std::snprintf(name, sizeof name, "crm scan %dx%dx%d", m, n, k);
  report(name, ms, work / ms / 1e9, "TMAC/s");
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

}  // namespace

int main() {
  tesra_error error;
  const int gpu = selectGpu(nullptr, &error);
  if (gpu < 0) {
    std::fprintf(stderr, "%s\n", error.message);
    return 4;
  }
  cudaDeviceProp properties;
  MUST(cudaSetDevice(gpu));
  MUST(cudaGetDeviceProperties(&properties, gpu));
  MUST(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  multiprocessors = properties.multiProcessorCount;
  int driver = 0, runtime = 0;
  MUST(cudaDriverGetVersion(&driver));
  MUST(cudaRuntimeGetVersion(&runtime));
  std::printf(
      "{\"gpu\": \"%s\", \"sm\": %d, \"multiprocessors\": %d, \"l2_bytes\": %d, \"driver\": %d, "
      "\"runtime\": %d, "
      "\"repeats\": %d, \"statistic\": \"median\", \"times\": [",
      properties.name, properties.major * 10 + properties.minor, multiprocessors,
      properties.l2CacheSize, driver, runtime, kRepeats);
  timeCopy();
  for (const int size : {1024, 4096, 8192}) timeGemm(size, size, size, 0, 0);
  timeGemm(4096, 4096, 4096, 0, 1);
  timeGemm(4096, 4096, 4096, 1, 0);
  timeGemm(128, 512, 784, 0, 0);  // the MLP's first layer, batch 128: launch and fill dominate
  timeGemm(784, 512, 128, 1, 0);
  timeConv(128, 28, 1, 16, 5);  // the LeNet-like network
  timeConv(128, 14, 16, 32, 5);
  timeConv(64, 56, 64, 64, 3);
  timeInt8(4096, 4096, 4096);
  timeInt8(8192, 8192, 4096);
  timeInt8(8192, 8192, 8192);
  timeAdam(int64_t{1} << 26);
  timeBlake3(size_t{256} << 20);
  std::printf("\n]}\n");
  return 0;
}
