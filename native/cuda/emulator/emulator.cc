// Owns the emulated device: fibres for threads, barriers, deferred copies, guarded memory, recorded
// graphs.
#include <cuda_runtime.h>
#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <utility>
#include <vector>

#include "intrinsics.h"

dim3 threadIdx, blockIdx, blockDim, gridDim;

struct EmulatedEvent {
  std::chrono::steady_clock::time_point at;
};
struct EmulatedGraph {
  std::vector<std::function<void()>> nodes;
};

namespace emulator {
int multiprocessors = 2;
int deviceError = 0;

namespace {

constexpr size_t kStackBytes = 256 * 1024;
constexpr int kThreadsMax = 1024;
// Hopper's; kernels for all capabilities assert their own, smaller limit.
constexpr size_t kSharedBytes = 227 * 1024;

enum class State { runnable, atWarp, atBlock, done };
struct Copy {
  void* to;
  const void* from;
  int size;
  bool valid;
};
struct Fibre {
  ucontext_t context;
  jmp_buf resume;
  bool started;
  State state;
  int index;
  std::vector<std::vector<Copy>> copies;  // the last group is open
  unsigned exchanges;
};

uint64_t randomState = 1;
uint64_t random() {
  randomState ^= randomState << 13;
  randomState ^= randomState >> 7;
  randomState ^= randomState << 17;
  return randomState;
}

std::vector<Fibre> fibres(kThreadsMax);
char* stacks = nullptr;
Fibre* current = nullptr;
jmp_buf scheduler;
const std::function<void()>* body = nullptr;
alignas(128) unsigned char sharedMemory[kSharedBytes];
Exchange slots[kThreadsMax / 32][2][32];
EmulatedGraph* recording = nullptr;

void pause(State state) {
  Fibre* const self = current;
  self->state = state;
  if (_setjmp(self->resume) == 0) _longjmp(scheduler, 1);
}

void entry() {
  (*body)();
  current->state = State::done;
  _longjmp(scheduler, 1);
}

void resume(Fibre& fibre) {
  current = &fibre;
  threadIdx = dim3(fibre.index, 0, 0);
  if (_setjmp(scheduler) == 0) {
    if (fibre.started) _longjmp(fibre.resume, 1);
    fibre.started = true;
    setcontext(&fibre.context);
  }
}

// A warp can go on unless a lane of it waits for the block.
enum class WarpState { able, waiting, done };
WarpState warpState(int warp, int threads) {
  bool alive = false, able = true;
  for (int i = warp * 32; i < std::min(threads, warp * 32 + 32); i++) {
    if (fibres[i].state == State::done) continue;
    alive = true;
    able = able && fibres[i].state != State::atBlock;
  }
  return !alive ? WarpState::done : able ? WarpState::able : WarpState::waiting;
}

void runBlock(int threads) {
  if (!stacks)
    stacks = static_cast<char*>(mmap(nullptr, kStackBytes * kThreadsMax, PROT_READ | PROT_WRITE,
                                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  memset(sharedMemory, 0xcd, sizeof sharedMemory);
  for (int i = 0; i < threads; i++) {
    Fibre& fibre = fibres[i];
    getcontext(&fibre.context);
    fibre.context.uc_stack = {stacks + kStackBytes * i, 0, kStackBytes};
    fibre.context.uc_link = nullptr;
    makecontext(&fibre.context, entry, 0);
    fibre.started = false;
    fibre.state = State::runnable;
    fibre.index = i;
    fibre.copies.assign(1, {});
    fibre.exchanges = 0;
  }
  // One warp at a time, often the same again, so that warps drift as far apart as barriers let
  // them. Only the warp that ran can have changed: the others' states are remembered.
  const int count = (threads + 31) / 32;
  WarpState warps[kThreadsMax / 32];
  for (int warp = 0; warp < count; warp++) warps[warp] = warpState(warp, threads);
  int last = 0;
  while (true) {
    int able[kThreadsMax / 32], ables = 0;
    bool alive = false;
    for (int warp = 0; warp < count; warp++) {
      alive = alive || warps[warp] != WarpState::done;
      if (warps[warp] == WarpState::able) able[ables++] = warp;
    }
    if (!alive) return;
    if (ables == 0) {
      for (int i = 0; i < threads; i++) {
        if (fibres[i].state == State::atWarp) die("threads of a block wait at different barriers");
        if (fibres[i].state == State::atBlock) fibres[i].state = State::runnable;
      }
      for (int warp = 0; warp < count; warp++) warps[warp] = warpState(warp, threads);
      continue;
    }
    const bool again = random() % 16 != 0 && warps[last] == WarpState::able;
    last = again ? last : able[random() % ables];
    int lanes[32], alives = 0;
    for (int i = last * 32; i < std::min(threads, last * 32 + 32); i++)
      if (fibres[i].state != State::done) lanes[alives++] = i;
    for (int i = alives; i > 1; i--) std::swap(lanes[i - 1], lanes[random() % i]);
    for (int i = 0; i < alives; i++) resume(fibres[lanes[i]]);
    warps[last] = warpState(last, threads);
  }
}

}  // namespace

void seed(uint64_t value) {
  randomState = value * 2 + 1;
}
unsigned char* dynamicShared() {
  return sharedMemory;
}
int lane() {
  return current->index % 32;
}
void blockBarrier() {
  pause(State::atBlock);
}
void warpBarrier() {
  pause(State::atWarp);
}
// Not between the exchanges of a warp: its lanes would drift apart.
void yield() {
  pause(State::runnable);
}
bool coin() {
  return random() % 2 == 0;
}

// Two sets of slots: a lane reaches the next exchange only after all lanes have passed this one.
const Exchange* exchange(const Exchange& mine) {
  Fibre* const self = current;
  Exchange* const row = slots[self->index / 32][self->exchanges++ % 2];
  row[self->index % 32] = mine;
  warpBarrier();
  return row;
}

void copyLater(void* to, const void* from, int size, bool valid) {
  memset(to, 0xcd, size);  // undefined until waited for
  current->copies.back().push_back({to, from, size, valid});
}
void commitCopies() {
  current->copies.emplace_back();
}
void waitCopies(int pending) {
  auto& groups = current->copies;
  const int land = static_cast<int>(groups.size()) - 1 - pending;
  for (int i = 0; i < land; i++)
    for (const Copy& copy : groups[i])
      copy.valid ? memcpy(copy.to, copy.from, copy.size) : memset(copy.to, 0, copy.size);
  if (land > 0) groups.erase(groups.begin(), groups.begin() + land);
}

void launch(dim3 grid, dim3 block, size_t shared, void*, std::function<void()> kernel) {
  if (shared > kSharedBytes || block.x > kThreadsMax || block.y != 1 || grid.y > 65535)
    die("launch out of limits");
  auto run = [=] {
    gridDim = grid;
    blockDim = block;
    body = &kernel;
    for (unsigned y = 0; y < grid.y; y++)
      for (unsigned x = 0; x < grid.x; x++) {
        blockIdx = dim3(x, y, 0);
        runBlock(static_cast<int>(block.x));
      }
    body = nullptr;
  };
  if (recording)
    recording->nodes.push_back(run);
  else
    run();
}

}  // namespace emulator

using emulator::recording;

namespace {
std::map<void*, std::pair<void*, size_t>> mappings;
// What no stream under capture allows.
void outsideCapture(const char* call) {
  if (recording) emulator::die(call);
}
cudaError_t enqueue(std::function<void()> work) {
  if (recording)
    recording->nodes.push_back(std::move(work));
  else
    work();
  return cudaSuccess;
}
}  // namespace

const char* cudaGetErrorString(cudaError_t) {
  return "emulated error";
}
const char* cudaGetErrorName(cudaError_t e) {
  return e == cudaErrorNoDevice ? "cudaErrorNoDevice" : "cudaError";
}
cudaError_t cudaGetLastError() {
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* v) {
  *v = 13000;
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* v) {
  *v = 13000;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return static_cast<cudaError_t>(emulator::deviceError);
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int) {
  memset(p, 0, sizeof *p);
  strcpy(p->name, "emulated");
  p->major = 9;
  p->multiProcessorCount = emulator::multiprocessors;
  p->totalGlobalMem = size_t{1} << 30;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int) {
  return cudaSuccess;
}
cudaError_t cudaMalloc(void** out, size_t size) {
  outsideCapture("cudaMalloc while a plan is captured");
  const size_t page = static_cast<size_t>(getpagesize()), rounded = (size + 15) / 16 * 16;
  const size_t body = (rounded + page - 1) / page * page;
  char* base = static_cast<char*>(
      mmap(nullptr, body + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  if (base == MAP_FAILED) return cudaErrorMemoryAllocation;
  mprotect(base + body, page, PROT_NONE);
  memset(base, 0xff, body);
  *out = base + body - rounded;
  mappings[*out] = {base, body + page};
  return cudaSuccess;
}
cudaError_t cudaFree(void* pointer) {
  outsideCapture("cudaFree while a plan is captured");
  const auto found = mappings.find(pointer);
  if (found == mappings.end()) emulator::die("free of an unknown pointer");
  munmap(found->second.first, found->second.second);
  mappings.erase(found);
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t size, cudaStream_t) {
  return enqueue([=] { memset(to, value, size); });
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t size, cudaMemcpyKind, cudaStream_t) {
  return enqueue([=] { memcpy(to, from, size); });
}
cudaError_t cudaMemcpy2DAsync(void* to, size_t toPitch, const void* from, size_t fromPitch,
                              size_t width, size_t height, cudaMemcpyKind, cudaStream_t) {
  return enqueue([=] {
    for (size_t i = 0; i < height; i++)
      memcpy(static_cast<char*>(to) + i * toPitch, static_cast<const char*>(from) + i * fromPitch,
             width);
  });
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  static int one;
  *stream = &one;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t) {
  outsideCapture("cudaStreamSynchronize while a plan is captured");
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t) {
  return cudaSuccess;
}
cudaError_t cudaStreamBeginCapture(cudaStream_t, int) {
  recording = new EmulatedGraph;
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t* graph) {
  *graph = std::exchange(recording, nullptr);
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* out, cudaGraph_t graph, unsigned) {
  *out = new EmulatedGraph(*graph);
  return cudaSuccess;
}
cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) {
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t) {
  for (const auto& node : graph->nodes) node();
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* event) {
  *event = new EmulatedEvent;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t) {
  return enqueue([=] { event->at = std::chrono::steady_clock::now(); });
}
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t from, cudaEvent_t to) {
  *ms = std::chrono::duration<float, std::milli>(to->at - from->at).count();
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
