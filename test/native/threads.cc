// Owns: the plain program in which ThreadSanitizer watches the executor, the thread pool and the products that run on
// it: several devices at once, each with a thread of its own and a pool, stopped idle, busy and with jobs waiting.
// Built and run by test/native/threads.sh; any report or wrong sum ends it with an error.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <future>
#include <vector>

#include "../../native/addon/executor.h"
#include "../../native/cpu/cpu.h"

namespace {

using tesra::Executor;

void check(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "threads: %s\n", what);
  std::exit(1);
}

template <class F>
struct Work : Executor::Job {
  explicit Work(F f) : f_(std::move(f)) {}
  void run(std::unique_ptr<Executor::Job>) override { f_(); }
  F f_;
};
template <class F>
std::unique_ptr<Executor::Job> work(F f) {
  return std::make_unique<Work<F>>(std::move(f));
}

// One device as the addon has it: an executor, a pool, a workspace.
struct Device {
  explicit Device(int threads) : pool(threads) {}
  tesra::ThreadPool pool;
  tesra::Workspace workspace;
  Executor executor;
  tesra::Context context() { return {tesra::scalar_kernels(), &pool, &workspace}; }
};

// Loops far shorter than a thread's wake-up: a worker that comes late must find nothing to do.
void short_loops() {
  tesra::ThreadPool pool(4);
  for (int round = 0; round < 3000; ++round) {
    const int64_t tasks = round % 7;
    std::vector<int> done(7, 0);
    pool.run(tasks, [&](int64_t i, int) { ++done[static_cast<size_t>(i)]; });
    for (int64_t i = 0; i < 7; ++i) check(done[static_cast<size_t>(i)] == (i < tasks), "a task ran not once");
  }
}

// Each device computes the same products; results must not depend on threads or on neighbours.
void products_on_several_devices() {
  constexpr int m = 70, n = 90, k = 600;
  std::vector<float> a(m * k), b(k * n);
  std::vector<int8_t> a8(m * k), b8(k * n);
  uint32_t state = 7;
  const auto next = [&] { return static_cast<int32_t>(state = state * 1664525u + 1013904223u) >> 24; };
  for (auto& x : a) x = static_cast<float>(next());
  for (auto& x : b) x = static_cast<float>(next()) / 128.0f;
  for (auto& x : a8) x = static_cast<int8_t>(next());
  for (auto& x : b8) x = static_cast<int8_t>(next());
  struct Result {
    std::vector<float> c = std::vector<float>(m * n), exact = c;
    std::vector<int32_t> c8 = std::vector<int32_t>(m * n);
  };
  const auto compute = [&](Device& device, Result& out) {
    const tesra::Context cx = device.context();
    tesra_gemm g{};
    g.a = a.data(), g.b = b.data(), g.c = out.c.data();
    g.m = m, g.n = n, g.k = k;
    std::vector<float> scratch(tesra::gemm_scratch(cx, g) + 16);
    tesra::gemm(cx, g, scratch.data());
    g.c = out.exact.data();
    const tesra_exact_gemm e{g, 2};
    scratch.resize(tesra::exact_gemm_scratch(cx, e) + 16);
    tesra::exact_gemm(cx, e, scratch.data());
    tesra::int8_gemm(cx, {a8.data(), b8.data(), out.c8.data(), m, n, k});
  };
  Device alone(1);
  Result want;
  compute(alone, want);
  std::vector<std::unique_ptr<Device>> devices;
  for (int threads = 1; threads <= 3; ++threads) devices.push_back(std::make_unique<Device>(threads));
  std::vector<Result> got(devices.size() * 4);
  std::vector<std::promise<void>> ended(got.size());
  for (size_t i = 0; i < got.size(); ++i) {
    Device& device = *devices[i % devices.size()];
    device.executor.post(work([&, i] {
      compute(device, got[i]);
      ended[i].set_value();
    }));
  }
  for (auto& each : ended) each.get_future().wait();
  for (auto& each : got) {
    check(std::memcmp(each.c.data(), want.c.data(), sizeof(float) * m * n) == 0, "a float product differs");
    check(std::memcmp(each.exact.data(), want.exact.data(), sizeof(float) * m * n) == 0, "an exact product differs");
    check(each.c8 == want.c8, "an int8 product differs");
  }
}

// stop() against every state: what was posted has run, or comes back.
void stopping() {
  for (int round = 0; round < 300; ++round) {
    Executor executor;
    std::atomic<int> ran{0};
    const int posts = round % 5;
    for (int i = 0; i < posts; ++i) executor.post(work([&] { ran.fetch_add(1); }));
    if (round % 3 == 0)
      while (ran.load() < posts) std::this_thread::yield();
    const auto left = executor.stop();
    check(ran.load() + static_cast<int>(left.size()) == posts, "a job was lost");
    check(executor.stop().empty(), "a second stop found jobs");
  }
}

}  // namespace

int main() {
  short_loops();
  products_on_several_devices();
  stopping();
  std::puts("threads: no race, no lost job, no differing sum");
}
