#include "device-core.h"

#include <cstring>
#include <utility>

#include "arguments.h"

namespace tesra {
namespace {

struct Delivery {
  std::unique_ptr<Job> job;
  size_t* pending;
  napi_threadsafe_function function;
};

}  // namespace

DeviceCore::DeviceCore(const tesra_backend* b, tesra_device* d, tesra_device* s)
    : backend(b), device(d), side(s) {}

DeviceCore::~DeviceCore() {
  close();
  if (side) tesra_cpu_backend()->close(side);
  if (host_) tesra_cpu_backend()->close(host_);
  backend->close(device);
}

bool DeviceCore::start(Napi::Env env) {
  env_ = env;
  napi_value name;
  if (napi_create_string_utf8(env, "tesra device", NAPI_AUTO_LENGTH, &name) != napi_ok ||
      napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, nullptr, nullptr, this,
                                      deliver, &finished_) != napi_ok)
    return false;
  napi_unref_threadsafe_function(env, finished_);
  // Registered after the function, hence run before its own hook: the executor is gone by then.
  napi_add_env_cleanup_hook(env, at_exit, this);
  return true;
}

Napi::Promise DeviceCore::submit(Napi::Env env, std::unique_ptr<Job> job) {
  Napi::Promise promise = job->deferred.Promise();
  const char* refusal = closed_ ? "closed" : pending_ >= kJobsMax ? "busy" : nullptr;
  if (refusal) {
    const std::string message =
        closed_ ? "the device is closed"
                : std::to_string(kJobsMax) + " operations already wait on this device";
    if (job->settled) job->settled();
    job->deferred.Reject(make_error(env, refusal, message).Value());
    return promise;
  }
  if (pending_++ == 0) napi_ref_threadsafe_function(env, finished_);
  job->core = this;
  executor_.post(std::move(job));
  return promise;
}

// On the executor's thread.
void Job::run(std::unique_ptr<Executor::Job> self) {
  {
    std::lock_guard<std::mutex> lock(core->mutex);
    work(&error);
  }
  self.release();
  Delivery* d = new Delivery{std::unique_ptr<Job>(this), &core->pending_, core->finished_};
  napi_call_threadsafe_function(core->finished_, d, napi_tsfn_nonblocking);
}

void DeviceCore::deliver(napi_env env, napi_value, void*, void* data) {
  std::unique_ptr<Delivery> d(static_cast<Delivery*>(data));
  Job& job = *d->job;
  if (env == nullptr) {
    // The environment is going: its references die with it.
    for (auto& k : job.kept) k.SuppressDestruct();
    return;
  }
  Napi::Env e(env);
  Napi::HandleScope scope(e);
  if (--*d->pending == 0) napi_unref_threadsafe_function(env, d->function);
  if (job.settled) job.settled();
  if (job.error.code != TESRA_OK) {
    job.deferred.Reject(make_error(e, code_name(job.error.code), job.error.message).Value());
    return;
  }
  Napi::Value value = job.result ? job.result(e) : e.Undefined();
  if (e.IsExceptionPending()) job.deferred.Reject(e.GetAndClearPendingException().Value());
  else job.deferred.Resolve(value);
}

std::deque<std::unique_ptr<Executor::Job>> DeviceCore::stop() {
  stopping.store(true);
  return executor_.stop();
}

void DeviceCore::close() {
  if (closed_) return;
  closed_ = true;
  auto left = stop();
  if (!finished_) return;
  for (auto& each : left) {
    std::unique_ptr<Job> job(static_cast<Job*>(each.release()));
    job->error.code = TESRA_E_UNAVAILABLE;
    std::strcpy(job->error.message, "the device was closed before the operation ran");
    napi_call_threadsafe_function(finished_, new Delivery{std::move(job), &pending_, finished_},
                                  napi_tsfn_nonblocking);
  }
  napi_remove_env_cleanup_hook(env_, at_exit, this);
  // The queued deliveries still need `pending_`: they hold the object alive through Job::kept.
  napi_release_threadsafe_function(finished_, napi_tsfn_release);
  finished_ = nullptr;
}

void DeviceCore::at_exit(void* self) {
  DeviceCore* core = static_cast<DeviceCore*>(self);
  core->closed_ = true;
  for (auto& job : core->stop())
    for (auto& k : static_cast<Job*>(job.get())->kept) k.SuppressDestruct();
}

}  // namespace tesra
