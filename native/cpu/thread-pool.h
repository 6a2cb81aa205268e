// Owns: the persistent threads of one CPU device and the parallel loop inside an operation.
// Invariant: one loop at a time; the caller takes part; results never depend on who ran what.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace tesra {

class ThreadPool {
 public:
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return threads_; }

  // body(task, thread) for every task in [0, tasks); returns when all are done.
  template <class F>
  void run(int64_t tasks, const F& body) {
    if (threads_ == 1 || tasks <= 1) {
      for (int64_t i = 0; i < tasks; ++i) body(i, 0);
      return;
    }
    start(tasks, [](const void* f, int64_t i, int t) { (*static_cast<const F*>(f))(i, t); }, &body);
  }

 private:
  using Call = void (*)(const void*, int64_t, int);
  void start(int64_t tasks, Call call, const void* body);
  void work(int thread);
  void drain(int thread);

  int threads_;
  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<uint32_t> generation_{0};
  std::atomic<int> sleeping_{0};
  std::atomic<bool> stop_{false};
  std::atomic<bool> open_{false};
  alignas(64) std::atomic<int64_t> next_{0};
  alignas(64) std::atomic<int> active_{0};
  int64_t tasks_ = 0;
  Call call_ = nullptr;
  const void* body_ = nullptr;
};

// CPUs this process may run on (sched_getaffinity), at least 1.
int available_threads();

}  // namespace tesra
