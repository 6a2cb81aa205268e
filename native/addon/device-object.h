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
  Napi::Value cn2_hash(const Napi::CallbackInfo& info);
  Napi::Value cn2_scan_async(const Napi::CallbackInfo& info);
  Napi::Value int8_gemm(const Napi::CallbackInfo& info);
  Napi::Value sgemm(const Napi::CallbackInfo& info);
  void close(const Napi::CallbackInfo& info);

  bool usable(Napi::Env env);
  std::shared_ptr<DeviceCore> core_;
};

}  // namespace tesra
