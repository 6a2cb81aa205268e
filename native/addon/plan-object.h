// Owns: the JavaScript class NativePlan: one arena, one compiled list of operations.
// Invariant: while a run is under way, reads, writes and further runs are refused, not queued.
#pragma once
#include <napi.h>

#include <functional>
#include <memory>
#include <vector>

#include "device-core.h"
#include "arguments.h"
#include "plan-spec.h"

namespace tesra {

// Arena and back-end plan; outlives the JavaScript object while a run or a view needs it.
struct PlanCore {
  std::shared_ptr<DeviceCore> device;
  void* arena = nullptr;
  tesra_plan* plan = nullptr;
  bool running = false;  // JavaScript thread only
  ~PlanCore();
};

class PlanObject : public Napi::ObjectWrap<PlanObject> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit PlanObject(const Napi::CallbackInfo& info);
  // Fills a fresh object; throws and returns false when the spec is bad.
  bool build(Napi::Env env, std::shared_ptr<DeviceCore> device, Napi::Value spec);
  ~PlanObject() override;

 private:
  Napi::Value write(const Napi::CallbackInfo& info);
  Napi::Value read(const Napi::CallbackInfo& info);
  Napi::Value arena(const Napi::CallbackInfo& info);
  Napi::Value run(const Napi::CallbackInfo& info);
  Napi::Value profile(const Napi::CallbackInfo& info);
  Napi::Value run_sync(const Napi::CallbackInfo& info);
  Napi::Value multiply_adds(const Napi::CallbackInfo& info);
  void close(const Napi::CallbackInfo& info);

  bool usable(Napi::Env env);
  // Posts work that has the plan to itself; rejects at once when it is closed or busy.
  Napi::Promise submit(Napi::Env env, std::function<int(tesra_error*)> work,
                       std::function<Napi::Value(Napi::Env)> result);
  const Tensor* tensor(const Napi::CallbackInfo& info, View* view);
  std::shared_ptr<PlanCore> core_;
  std::vector<Tensor> tensors_;
  uint64_t arena_bytes_ = 0;
  double multiply_adds_ = 0;
  std::vector<double> op_multiply_adds_;
  Napi::Reference<Napi::ArrayBuffer> buffer_;
};

}  // namespace tesra
