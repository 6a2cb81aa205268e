// Owns: one long-lived thread that runs a device's jobs in order. Knows nothing of JavaScript, so that
// ThreadSanitizer can watch it in a plain program (test/native/threads.cc).
// Invariant: every posted job is either run, or handed back by stop(); none is run after stop().
#pragma once
#include <atomic>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>

namespace tesra {

class Executor {
 public:
  class Job {
   public:
    virtual ~Job() = default;
    // On the executor's thread. The job is passed to itself, to be kept, handed on or dropped.
    virtual void run(std::unique_ptr<Job> self) = 0;
  };

  Executor() = default;
  ~Executor() { stop(); }
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  // Starts the thread with the first job. Not after stop().
  void post(std::unique_ptr<Job> job);
  // Waits for the running job; idempotent. @returns the jobs that never ran.
  std::deque<std::unique_ptr<Job>> stop();

 private:
  void loop();

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::unique_ptr<Job>> queue_;
  std::atomic<uint32_t> posted_{0};  // written under mutex_, watched outside of it
  std::thread thread_;
  bool stop_ = false;
};

}  // namespace tesra
