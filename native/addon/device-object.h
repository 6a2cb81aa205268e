// Owns: the JavaScript class NativeDevice: argument checks of the flat kernels, hashing and the
// proof of work, in a synchronous form and one that runs on the device's executor.
#pragma once
#include <napi.h>

#include <memory>

#include "device-core.h"

namespace tesra {

struct InstanceData {
  Napi::FunctionReference plan_constructor;
};

// (name, data): one of CN2's final hashes, 32 bytes.
Napi::Value digest(const Napi::CallbackInfo& info);

// An optimizer's constants into op->kind and op->u.sgd or op->u.adam: "sgd", "momentum" or "adam".
bool read_optimizer(Napi::Env env, Napi::Value kind, Napi::Value options, tesra_op* op);

class DeviceObject : public Napi::ObjectWrap<DeviceObject> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit DeviceObject(const Napi::CallbackInfo& info);

 private:
  Napi::Value describe(const Napi::CallbackInfo& info);
  Napi::Value create_plan(const Napi::CallbackInfo& info);
  Napi::Value apply(const Napi::CallbackInfo& info);
  Napi::Value apply_async(const Napi::CallbackInfo& info);
  Napi::Value delay_compensate(const Napi::CallbackInfo& info);
  Napi::Value is_finite(const Napi::CallbackInfo& info);
  Napi::Value blake3(const Napi::CallbackInfo& info);
  Napi::Value crm_scan(const Napi::CallbackInfo& info);
  Napi::Value crm_scan_async(const Napi::CallbackInfo& info);
  Napi::Value crm_challenge_async(const Napi::CallbackInfo& info);
  Napi::Value crm_tile(const Napi::CallbackInfo& info);
  Napi::Value compress(const Napi::CallbackInfo& info);
  Napi::Value decompress(const Napi::CallbackInfo& info);
  Napi::Value update_async(const Napi::CallbackInfo& info);
  Napi::Value mean_async(const Napi::CallbackInfo& info);
  Napi::Value largest_async(const Napi::CallbackInfo& info);
  Napi::Value delay_compensate_async(const Napi::CallbackInfo& info);
  Napi::Value compress_async(const Napi::CallbackInfo& info);
  Napi::Value decompress_async(const Napi::CallbackInfo& info);
  Napi::Value blake3_async(const Napi::CallbackInfo& info);
  Napi::Value cn2_hash(const Napi::CallbackInfo& info);
  Napi::Value cn2_scan_async(const Napi::CallbackInfo& info);
  Napi::Value int8_gemm(const Napi::CallbackInfo& info);
  Napi::Value sgemm(const Napi::CallbackInfo& info);
  void close(const Napi::CallbackInfo& info);

  bool usable(Napi::Env env);
  // The pending exception as the job's rejection.
  static Napi::Value refuse(Napi::Env env, Job& job);
  // Work on host memory on the executor; `arrays` stay alive until it is settled.
  using HostWork = std::function<int(const tesra_backend*, tesra_device*, tesra_error*)>;
  Napi::Value in_background(std::unique_ptr<Job> job, const std::vector<Napi::Object>& arrays,
                            HostWork work);
  std::shared_ptr<DeviceCore> core_;
};

}  // namespace tesra
