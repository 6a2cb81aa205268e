#include "executor.h"

#include <chrono>
#include <utility>

#include "../cpu/relax.h"

namespace tesra {
namespace {

// A training loop posts its next step some 20 us after the last one ended. To wait awake for that
// long spares the 5 to 50 us that the kernel takes to wake a thread; then the thread sleeps.
constexpr auto kAwake = std::chrono::microseconds(40);

}  // namespace

void Executor::post(std::unique_ptr<Job> job) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    queue_.push_back(std::move(job));
    posted_.fetch_add(1, std::memory_order_release);
    if (!thread_.joinable()) thread_ = std::thread([this] { loop(); });
  }
  wake_.notify_one();
}

std::deque<std::unique_ptr<Executor::Job>> Executor::stop() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
    posted_.fetch_add(1, std::memory_order_release);
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
  return std::exchange(queue_, {});
}

void Executor::loop() {
  for (;;) {
    std::unique_ptr<Job> job;
    uint32_t seen;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait(lock, [&] { return stop_ || !queue_.empty(); });
      if (stop_) return;
      job = std::move(queue_.front());
      queue_.pop_front();
      seen = posted_.load(std::memory_order_relaxed);
    }
    Job& self = *job;
    self.run(std::move(job));
    const auto until = std::chrono::steady_clock::now() + kAwake;
    while (posted_.load(std::memory_order_acquire) == seen &&
           std::chrono::steady_clock::now() < until)
      relax();
  }
}

}  // namespace tesra
