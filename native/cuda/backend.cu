// Owns the CUDA device object and the table of functions that the addon calls.
// Invariant: one device = one GPU and one stream; every entry sets the GPU first, every exit that
// promises results has synchronised the stream. Grown work buffers are kept until close and hold no
// state between calls.
#include "../kernels/profile.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <new>
#include <vector>

#include "launch.h"
#include "mma-geometry.h"
#include "probe.h"

namespace tesra::cuda {
namespace {

// Device memory that grows to the largest request.
class WorkBuffer {
 public:
  cudaError_t reserve(size_t size) {
    if (size <= size_) return cudaSuccess;
    release();
    const cudaError_t status = cudaMalloc(&pointer_, size);
    if (status == cudaSuccess)
      size_ = size;
    else
      pointer_ = nullptr;
    return status;
  }
  void release() {
    if (pointer_) cudaFree(pointer_);
    pointer_ = nullptr;
    size_ = 0;
  }
  template <class T>
  T* as() const {
    return static_cast<T*>(pointer_);
  }

 private:
  void* pointer_ = nullptr;
  size_t size_ = 0;
};

constexpr size_t kScratchAlignment =
    256;  // what cudaMalloc gives, kept for every operation of a plan
size_t alignUp(size_t size, size_t to) {
  return (size + to - 1) / to * to;
}

}  // namespace
}  // namespace tesra::cuda

struct tesra_device {
  int index = 0, sm = 0, multiprocessors = 0;
  char name[128] = {};
  cudaStream_t stream = nullptr;
  tesra::cuda::WorkBuffer a, b, c, scratch;
};

struct tesra_plan {
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  void* scratch = nullptr;
  std::vector<tesra_op> ops;            // for profiles, as the graph has them
  std::vector<size_t> scratch_offsets;  // of each operation
};

namespace tesra::cuda {
namespace {

// Runs a CUDA call; on failure returns from the enclosing function with the error filled in.
#define TESRA_TRY(doing, call)                                      \
  do {                                                              \
    const cudaError_t status_ = (call);                             \
    if (status_ != cudaSuccess) return fail(error, status_, doing); \
  } while (0)

int enter(tesra_device* device, tesra_error* error) {
  TESRA_TRY("selecting the GPU", cudaSetDevice(device->index));
  return TESRA_OK;
}
#define TESRA_ENTER(device)                                   \
  do {                                                        \
    if (const int code_ = enter(device, error)) return code_; \
  } while (0)

Launch launchOn(const tesra_device* device, void* scratch) {
  return Launch{device->stream, device->sm, device->multiprocessors, scratch};
}

void closeDevice(tesra_device* device) {
  if (!device) return;
  cudaSetDevice(device->index);
  if (device->stream) {
    cudaStreamSynchronize(device->stream);
    cudaStreamDestroy(device->stream);
  }
  for (WorkBuffer* buffer : {&device->a, &device->b, &device->c, &device->scratch})
    buffer->release();
  delete device;
}

int prepare(tesra_device* device, tesra_error* error) {
  TESRA_ENTER(device);
  cudaDeviceProp properties;
  TESRA_TRY("reading the GPU's properties", cudaGetDeviceProperties(&properties, device->index));
  device->sm = properties.major * 10 + properties.minor;
  device->multiprocessors = properties.multiProcessorCount;
  std::snprintf(device->name, sizeof device->name, "%.127s", properties.name);
  TESRA_TRY("creating a stream", cudaStreamCreateWithFlags(&device->stream, cudaStreamNonBlocking));
  return TESRA_OK;
}

int openDevice(const tesra_open* options, tesra_device** out, tesra_error* error) {
  const int index = selectGpu(options->gpu, error);
  if (index < 0) return error->code;
  auto* device = new (std::nothrow) tesra_device;
  if (!device) return failWith(error, TESRA_E_MEMORY, "no host memory for a device");
  device->index = index;
  const int code = prepare(device, error);
  if (code != TESRA_OK) {
    closeDevice(device);
    return code;
  }
  *out = device;
  return TESRA_OK;
}

void describe(tesra_device* device, tesra_device_info* out) {
  std::memset(out, 0, sizeof *out);
  std::snprintf(out->isa, sizeof out->isa, "sm_%d", device->sm);
  std::snprintf(out->name, sizeof out->name, "%s", device->name);
  out->threads = 1;
}

int synchronise(tesra_device* device, tesra_error* error) {
  TESRA_TRY("running", cudaStreamSynchronize(device->stream));
  return TESRA_OK;
}

int allocate(tesra_device* device, size_t size, void** out, tesra_error* error) {
  TESRA_ENTER(device);
  void* pointer = nullptr;
  const size_t bytes = size ? size : 1;
  const cudaError_t status = cudaMalloc(&pointer, bytes);
  if (status == cudaErrorMemoryAllocation) {
    (void)cudaGetLastError();
    return failWith(error, TESRA_E_MEMORY, "the GPU has no %zu bytes left to allocate", bytes);
  }
  TESRA_TRY("allocating", status);
  cudaError_t cleared = cudaMemsetAsync(pointer, 0, bytes, device->stream);
  if (cleared == cudaSuccess) cleared = cudaStreamSynchronize(device->stream);
  if (cleared != cudaSuccess) {
    cudaFree(pointer);
    return fail(error, cleared, "clearing memory");
  }
  *out = pointer;
  return TESRA_OK;
}

void release(tesra_device* device, void* pointer) {
  if (!pointer) return;
  cudaSetDevice(device->index);
  cudaFree(pointer);
}

int upload(tesra_device* device, void* to, const void* from, size_t size, tesra_error* error) {
  TESRA_ENTER(device);
  if (size == 0) return TESRA_OK;
  TESRA_TRY("copying to the GPU",
            cudaMemcpyAsync(to, from, size, cudaMemcpyHostToDevice, device->stream));
  return synchronise(device, error);
}

int download(tesra_device* device, void* to, const void* from, size_t size, tesra_error* error) {
  TESRA_ENTER(device);
  if (size == 0) return TESRA_OK;
  TESRA_TRY("copying from the GPU",
            cudaMemcpyAsync(to, from, size, cudaMemcpyDeviceToHost, device->stream));
  return synchronise(device, error);
}

int sync(tesra_device* device, tesra_error* error) {
  TESRA_ENTER(device);
  return synchronise(device, error);
}

void destroyPlan(tesra_device* device, tesra_plan* plan) {
  if (!plan) return;
  cudaSetDevice(device->index);
  if (plan->executable) cudaGraphExecDestroy(plan->executable);
  if (plan->graph) cudaGraphDestroy(plan->graph);
  if (plan->scratch) cudaFree(plan->scratch);
  delete plan;
}

cudaError_t launchPlanOp(tesra_device* device, const tesra_plan* plan, size_t i) {
  return launchOp(launchOn(device, static_cast<char*>(plan->scratch) + plan->scratch_offsets[i]),
                  plan->ops[i]);
}

// Captures the operations into a graph. Every operation has scratch of its own.
int record(tesra_device* device, tesra_plan* plan, const tesra_op* ops, size_t count,
           tesra_error* error) {
  TESRA_ENTER(device);
  plan->ops.assign(ops, ops + count);
  plan->scratch_offsets.resize(count);
  size_t total = 0;
  for (size_t i = 0; i < count; i++) {
    plan->scratch_offsets[i] = total;
    total += alignUp(scratchBytes(ops[i], device->multiprocessors), kScratchAlignment);
  }
  if (total) {
    TESRA_TRY("allocating a plan's scratch", cudaMalloc(&plan->scratch, total));
    TESRA_TRY("clearing a plan's scratch",
              cudaMemsetAsync(plan->scratch, 0, total, device->stream));
  }
  TESRA_TRY("recording a plan",
            cudaStreamBeginCapture(device->stream, cudaStreamCaptureModeThreadLocal));
  cudaError_t status = cudaSuccess;
  size_t at = 0;
  for (; at < count && status == cudaSuccess; at++) status = launchPlanOp(device, plan, at);
  const cudaError_t ended = cudaStreamEndCapture(device->stream, &plan->graph);
  if (status != cudaSuccess) {
    char doing[64];
    std::snprintf(doing, sizeof doing, "recording operation %zu (kind %d)", at - 1,
                  ops[at - 1].kind);
    return fail(error, status, doing);
  }
  TESRA_TRY("recording a plan", ended);
  TESRA_TRY("building a plan", cudaGraphInstantiate(&plan->executable, plan->graph, 0));
  TESRA_TRY("loading a plan", cudaGraphUpload(plan->executable, device->stream));
  return synchronise(device, error);
}

int createPlan(tesra_device* device, const tesra_op* ops, size_t count, tesra_plan** out,
               tesra_error* error) {
  auto* plan = new (std::nothrow) tesra_plan;
  if (!plan) return failWith(error, TESRA_E_MEMORY, "no host memory for a plan");
  const int code = record(device, plan, ops, count, error);
  if (code != TESRA_OK) {
    destroyPlan(device, plan);
    return code;
  }
  *out = plan;
  return TESRA_OK;
}

int runPlan(tesra_device* device, tesra_plan* plan, tesra_error* error) {
  TESRA_ENTER(device);
  TESRA_TRY("starting a plan", cudaGraphLaunch(plan->executable, device->stream));
  return synchronise(device, error);
}

// Two events an operation: what lies between one operation's end and the next one's start is the time
// in which the stream waits for the host.
class Timeline {
 public:
  ~Timeline() {
    for (const cudaEvent_t event : events_) cudaEventDestroy(event);
  }
  cudaError_t mark(cudaStream_t stream) {
    cudaEvent_t event = nullptr;
    const cudaError_t created = cudaEventCreate(&event);
    if (created != cudaSuccess) return created;
    events_.push_back(event);
    return cudaEventRecord(event, stream);
  }
  // Nanoseconds from the first mark to mark `i`; after the stream was synchronised.
  cudaError_t since(size_t i, uint64_t* ns) const {
    float ms = 0;
    const cudaError_t status = cudaEventElapsedTime(&ms, events_[0], events_[i]);
    *ns = static_cast<uint64_t>(static_cast<double>(ms) * 1e6);
    return status;
  }

 private:
  std::vector<cudaEvent_t> events_;
};

int profilePlan(tesra_device* device, tesra_plan* plan, tesra_span* spans, tesra_error* error) {
  TESRA_ENTER(device);
  Timeline timeline;
  for (size_t i = 0; i < plan->ops.size(); i++) {
    TESRA_TRY("timing a plan", timeline.mark(device->stream));
    TESRA_TRY("starting an operation", launchPlanOp(device, plan, i));
    TESRA_TRY("timing a plan", timeline.mark(device->stream));
  }
  if (const int code = synchronise(device, error)) return code;
  for (size_t i = 0; i < plan->ops.size(); i++) {
    TESRA_TRY("timing a plan", timeline.since(2 * i, &spans[i].start_ns));
    TESRA_TRY("timing a plan", timeline.since(2 * i + 1, &spans[i].end_ns));
  }
  return TESRA_OK;
}

int runOp(tesra_device* device, const tesra_op* op, tesra_error* error) {
  TESRA_ENTER(device);
  const size_t size = scratchBytes(*op, device->multiprocessors);
  TESRA_TRY("allocating scratch", device->scratch.reserve(size));
  if (size)
    TESRA_TRY("clearing scratch",
              cudaMemsetAsync(device->scratch.as<void>(), 0, size, device->stream));
  TESRA_TRY("starting an operation",
            launchOp(launchOn(device, device->scratch.as<void>()), *op));
  return synchronise(device, error);
}

int blake3(tesra_device* device, const tesra_blake3* args, tesra_error* error) {
  TESRA_ENTER(device);
  TESRA_TRY("allocating for BLAKE3", device->a.reserve(std::max<size_t>(args->size, 1)));
  TESRA_TRY("allocating for BLAKE3", device->scratch.reserve(blake3Scratch(args->size)));
  if (args->size)
    TESRA_TRY("copying to the GPU", cudaMemcpyAsync(device->a.as<void>(), args->data, args->size,
                                                    cudaMemcpyHostToDevice, device->stream));
  uint32_t key[8] = TESRA_BLAKE3_IV;
  if (args->key)
    std::memcpy(key, args->key, sizeof key);  // little-endian hosts only, like CUDA itself
  uint32_t* result = nullptr;
  TESRA_TRY("hashing", launchBlake3(device->stream, device->a.as<uint8_t>(), args->size, key,
                                    args->key != nullptr, device->scratch.as<uint32_t>(), &result));
  TESRA_TRY("copying from the GPU",
            cudaMemcpyAsync(args->out, result, 32, cudaMemcpyDeviceToHost, device->stream));
  return synchronise(device, error);
}

// Copies rows x k bytes to `to` with `pitch` bytes between rows, zero beyond k.
cudaError_t copyRows(cudaStream_t stream, WorkBuffer& to, const int8_t* from, int rows, int k,
                     size_t pitch) {
  const size_t size = pitch * rows;
  cudaError_t status = to.reserve(std::max<size_t>(size, 1));
  if (status != cudaSuccess || size == 0) return status;
  if (pitch == static_cast<size_t>(k))
    return cudaMemcpyAsync(to.as<void>(), from, size, cudaMemcpyHostToDevice, stream);
  status = cudaMemsetAsync(to.as<void>(), 0, size, stream);
  if (status != cudaSuccess || k == 0) return status;
  return cudaMemcpy2DAsync(to.as<void>(), pitch, from, k, k, rows, cudaMemcpyHostToDevice, stream);
}

int int8Gemm(tesra_device* device, const tesra_int8_gemm* args, tesra_error* error) {
  TESRA_ENTER(device);
  const size_t size = static_cast<size_t>(args->m) * args->n * sizeof(int32_t);
  if (size == 0) return TESRA_OK;
  const size_t pitch = alignUp(args->k, mma::kStageK);
  TESRA_TRY("copying A", copyRows(device->stream, device->a, args->a, args->m, args->k, pitch));
  TESRA_TRY("copying B", copyRows(device->stream, device->b, args->bt, args->n, args->k, pitch));
  TESRA_TRY("allocating C", device->c.reserve(size));
  TESRA_TRY("multiplying",
            launchInt8Gemm(launchOn(device, nullptr), device->a.as<int8_t>(), device->b.as<int8_t>(),
                           device->c.as<int32_t>(), args->m, args->n,
                           static_cast<int>(pitch), static_cast<int>(pitch)));
  TESRA_TRY("copying from the GPU", cudaMemcpyAsync(args->c, device->c.as<void>(), size,
                                                    cudaMemcpyDeviceToHost, device->stream));
  return synchronise(device, error);
}

// Winners arrive in the order in which threads finish; the contract is ascending tiles.
void sortWinners(tesra_crm_scan* args) {
  struct Winner {
    uint32_t tile;
    uint8_t ticket[32];
  };
  std::vector<Winner> winners(args->count);
  for (uint32_t i = 0; i < args->count; i++) {
    winners[i].tile = args->tiles[i];
    std::memcpy(winners[i].ticket, args->tickets + size_t{32} * i, 32);
  }
  std::sort(winners.begin(), winners.end(),
            [](const Winner& x, const Winner& y) { return x.tile < y.tile; });
  for (uint32_t i = 0; i < args->count; i++) {
    args->tiles[i] = winners[i].tile;
    std::memcpy(args->tickets + size_t{32} * i, winners[i].ticket, 32);
  }
}

int crmScan(tesra_device* device, tesra_crm_scan* args, tesra_error* error) {
  TESRA_ENTER(device);
  args->count = 0;
  if (args->m == 0 || args->n == 0) return TESRA_OK;
  const cudaStream_t stream = device->stream;
  if (args->seed) {
    const size_t k = static_cast<size_t>(args->k);
    TESRA_TRY("allocating A", device->a.reserve(k * args->m));
    TESRA_TRY("allocating B", device->b.reserve(k * args->n));
    TESRA_TRY("making A", launchChallengeRows(stream, args->seed, 0, args->m, args->k,
                                              device->a.as<int8_t>()));
    TESRA_TRY("making B", launchChallengeRows(stream, args->seed, 1, args->n, args->k,
                                              device->b.as<int8_t>()));
  } else {
    TESRA_TRY("copying A", copyRows(stream, device->a, args->a, args->m, args->k, args->k));
    TESRA_TRY("copying B", copyRows(stream, device->b, args->bt, args->n, args->k, args->k));
  }
  // Layout of c: the count alone in its first 256 bytes, then tickets, then tile numbers.
  const uint64_t tiles = static_cast<uint64_t>(args->m) * args->n / 128;
  const uint32_t capacity = static_cast<uint32_t>(std::min<uint64_t>(args->capacity, tiles));
  TESRA_TRY("allocating for winners", device->c.reserve(256 + size_t{36} * capacity));
  uint32_t* const words = device->c.as<uint32_t>();
  const ScanOutput out{words, words + 64 + size_t{8} * capacity, words + 64, capacity};
  TESRA_TRY("clearing", cudaMemsetAsync(out.count, 0, sizeof(uint32_t), stream));
  TESRA_TRY("scanning",
            launchCrmScan(stream, device->sm, device->a.as<int8_t>(), device->b.as<int8_t>(), args->m, args->n,
                          args->k, args->ticket_key, args->target, out));
  uint32_t count = 0;
  TESRA_TRY("copying from the GPU",
            cudaMemcpyAsync(&count, out.count, 4, cudaMemcpyDeviceToHost, stream));
  TESRA_TRY("scanning", cudaStreamSynchronize(stream));
  args->count = count;
  if (count > capacity)
    return failWith(error, TESRA_E_CAPACITY, "%u tiles win, and there is room for %u", count,
                    args->capacity);
  if (count == 0) return TESRA_OK;
  TESRA_TRY("copying from the GPU", cudaMemcpyAsync(args->tiles, out.tiles, size_t{4} * count,
                                                    cudaMemcpyDeviceToHost, stream));
  TESRA_TRY("copying from the GPU", cudaMemcpyAsync(args->tickets, out.tickets, size_t{32} * count,
                                                    cudaMemcpyDeviceToHost, stream));
  TESRA_TRY("copying from the GPU", cudaStreamSynchronize(stream));
  sortWinners(args);
  return TESRA_OK;
}

int crmTile(tesra_device* device, const tesra_crm_tile* args, tesra_error* error) {
  TESRA_ENTER(device);
  const cudaStream_t stream = device->stream;
  TESRA_TRY("copying A", copyRows(stream, device->a, args->a_rows, 8, args->k, args->k));
  TESRA_TRY("copying B", copyRows(stream, device->b, args->b_cols, 16, args->k, args->k));
  TESRA_TRY("allocating", device->c.reserve(64));
  TESRA_TRY("replaying a tile",
            launchCrmTile(stream, device->a.as<int8_t>(), device->b.as<int8_t>(), args->k,
                          device->c.as<uint32_t>()));
  TESRA_TRY("copying from the GPU",
            cudaMemcpyAsync(args->j_out, device->c.as<void>(), 64, cudaMemcpyDeviceToHost, stream));
  return synchronise(device, error);
}

int cn2Scan(tesra_device* device, tesra_cn2_scan* args, tesra_error* error) {
  TESRA_ENTER(device);
  return runCn2Scan(device->stream, device->multiprocessors, *args, error);
}

int cn2Hash(tesra_device* device, const tesra_cn2* args, tesra_error* error) {
  TESRA_ENTER(device);
  return runCn2Hash(device->stream, *args, error);
}

}  // namespace
}  // namespace tesra::cuda

const tesra_backend* tesra_cuda_backend(void) {
  using namespace tesra::cuda;
  static const tesra_backend backend = {
      TESRA_ABI,   "cuda",  0,      probe,    openDevice, closeDevice, describe,
      allocate,    release, upload, download, sync,       createPlan,  runPlan,
      destroyPlan, runOp,   blake3, int8Gemm, crmScan,    crmTile,
      cn2Hash,     cn2Scan,
  };
  return &backend;
}

extern "C" int tesra_cuda_plan_profile(tesra_device* device, tesra_plan* plan, tesra_span* spans,
                                       tesra_error* error) {
  return tesra::cuda::profilePlan(device, plan, spans, error);
}
