// Owns: the JavaScript class NativePlan: one compiled list of operations over an arena that siblings share.
// Invariant: while a run of any sibling is under way, reads, writes and further runs are refused, not queued.
#pragma once
#include <napi.h>

#include <functional>
#include <memory>
#include <vector>

#include "device-core.h"
#include "arguments.h"
#include "plan-spec.h"

namespace tesra {

// The memory of a plan and its siblings.
struct Arena {
  std::shared_ptr<DeviceCore> device;
  void* base = nullptr;
  uint64_t bytes = 0;
  size_t mapped = 0;  // bytes of an arena whose head is shared; 0: the back end's own
  bool running = false;  // JavaScript thread only
  ~Arena();
};

// Arena and back-end plan; outlives the JavaScript object while a run or a view needs it.
struct PlanCore {
  std::shared_ptr<DeviceCore> device;
  std::shared_ptr<Arena> arena;
  tesra_plan* plan = nullptr;
  ~PlanCore();
};

class PlanObject : public Napi::ObjectWrap<PlanObject> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit PlanObject(const Napi::CallbackInfo& info);
  // Fills a fresh object; throws and returns false when the spec is bad. Its arena is `arena` where one is
  // given; else new, and `head`, where given, is the shared memory in which it begins (CPU back ends).
  bool build(Napi::Env env, std::shared_ptr<DeviceCore> device, Napi::Value spec, Napi::Value head,
             std::shared_ptr<Arena> arena = nullptr);
  ~PlanObject() override;

 private:
  Napi::Value write(const Napi::CallbackInfo& info);
  Napi::Value read(const Napi::CallbackInfo& info);
  Napi::Value arena(const Napi::CallbackInfo& info);
  Napi::Value sibling(const Napi::CallbackInfo& info);
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
  double multiply_adds_ = 0;
  std::vector<double> op_multiply_adds_;
  Napi::Reference<Napi::ArrayBuffer> buffer_;
};

}  // namespace tesra
