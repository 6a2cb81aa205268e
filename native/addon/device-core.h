// Owns: one opened device and its long-lived executor thread.
// Invariant: `device` is entered only under `mutex`; jobs run in order on the executor; a job's
// JavaScript references are made and freed on the JavaScript thread only.
#pragma once
#include <napi.h>

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "../kernels/backend.h"
#include "executor.h"

namespace tesra {

// Jobs waiting on one device: beyond it the caller is outrunning the machine, so it is told.
constexpr size_t kJobsMax = 256;

class DeviceCore;

struct Job : Executor::Job {
  explicit Job(Napi::Env env) : deferred(Napi::Promise::Deferred::New(env)) {}
  void run(std::unique_ptr<Executor::Job> self) override;
  Napi::Promise::Deferred deferred;
  std::vector<Napi::ObjectReference> kept;  // receivers and buffers, alive until settled
  std::function<int(tesra_error*)> work;    // executor thread
  std::function<Napi::Value(Napi::Env)> result;  // JavaScript thread, after success
  std::function<void()> settled;                 // JavaScript thread, in any case
  tesra_error error{};
  DeviceCore* core = nullptr;  // alive as long as the job: `work` or `kept` holds it
};

class DeviceCore {
 public:
  DeviceCore(const tesra_backend* backend, tesra_device* device, tesra_device* side);
  ~DeviceCore();
  DeviceCore(const DeviceCore&) = delete;
  DeviceCore& operator=(const DeviceCore&) = delete;

  bool start(Napi::Env env);
  // Rejects at once (never throws) when closed or full.
  Napi::Promise submit(Napi::Env env, std::unique_ptr<Job> job);
  // Waits for the running job; waiting ones are rejected. Idempotent. JavaScript thread.
  void close();
  bool closed() const { return closed_; }

  // Runs on the device, or, when the executor holds it and the work is plain CPU work, on a
  // single-threaded side device, so that the event loop is not held up by a plan.
  template <class F>
  int with_any(const F& f) {
    std::unique_lock<std::mutex> lock(mutex, std::try_to_lock);
    if (lock.owns_lock()) return f(backend, device);
    if (!side) {
      lock.lock();
      return f(backend, device);
    }
    std::lock_guard<std::mutex> side_lock(side_mutex_);
    return f(tesra_cpu_backend(), side);
  }

  // As with_any for work that this back end leaves to the CPU: a CPU device is opened for it then.
  template <class F>
  int with_host(const F& f, tesra_error* error) {
    return backend->compress ? with_any(f) : on_host(f, error);
  }

  // The same inside a job, which holds the device.
  template <class F>
  int with_host_in_job(const F& f, tesra_error* error) {
    return backend->compress ? f(backend, device) : on_host(f, error);
  }

  const tesra_backend* backend;
  tesra_device* device;
  tesra_device* side;  // CPU, one thread; NULL on CUDA devices
  std::mutex mutex;
  std::atomic<bool> stopping{false};  // the device is closing: a long job ends early

 private:
  friend struct Job;
  template <class F>
  int on_host(const F& f, tesra_error* error) {
    std::lock_guard<std::mutex> lock(side_mutex_);
    const tesra_open all{0, 0, nullptr};
    if (!host_ && tesra_cpu_backend()->open(&all, &host_, error) != TESRA_OK) return error->code;
    return f(tesra_cpu_backend(), host_);
  }
  static void deliver(napi_env env, napi_value, void*, void* data);
  static void at_exit(void* self);
  // @returns what never ran.
  std::deque<std::unique_ptr<Executor::Job>> stop();

  std::mutex side_mutex_;
  tesra_device* host_ = nullptr;  // of with_host
  Executor executor_;
  napi_threadsafe_function finished_ = nullptr;
  napi_env env_ = nullptr;
  size_t pending_ = 0;  // JavaScript thread only
  bool closed_ = false;
};

}  // namespace tesra
