// Owns: the module's exports: NativeDevice, NativePlan's constructor, NativeSharedSegment, NativeTaskMemory, sandbox, probe() and digest().
#include <napi.h>

#include "device-object.h"
#include "plan-object.h"
#include "sandbox.h"
#include "shared-memory.h"
#include "task-memory.h"

namespace tesra {
namespace {

Napi::Value probe_cuda(Napi::Env env) {
  auto p = std::make_unique<tesra_probe>();
  tesra_cuda_backend()->probe(p.get());
  Napi::Object o = Napi::Object::New(env);
  o.Set("compiled", Napi::Boolean::New(env, p->compiled != 0));
  o.Set("available", Napi::Boolean::New(env, p->available != 0));
  o.Set("reason", Napi::String::New(env, p->reason));
  o.Set("driverVersion", Napi::Number::New(env, p->driver_version));
  o.Set("runtimeVersion", Napi::Number::New(env, p->runtime_version));
  Napi::Array list = Napi::Array::New(env);
  for (int i = 0; i < p->count && i < TESRA_DEVICES_MAX; ++i) {
    const tesra_gpu& g = p->devices[i];
    Napi::Object d = Napi::Object::New(env);
    d.Set("id", Napi::String::New(env, g.id));
    d.Set("name", Napi::String::New(env, g.name));
    d.Set("index", Napi::Number::New(env, g.index));
    d.Set("sm", Napi::Number::New(env, g.sm));
    d.Set("memoryBytes", Napi::Number::New(env, static_cast<double>(g.memory_bytes)));
    list.Set(static_cast<uint32_t>(i), d);
  }
  o.Set("devices", list);
  return o;
}

Napi::Value cpu_flags(Napi::Env env) {
  Napi::Array list = Napi::Array::New(env);
  uint32_t n = 0;
  auto add = [&](const char* name, bool has) {
    if (has) list.Set(n++, Napi::String::New(env, name));
  };
  (void)add;
#if defined(__x86_64__) && defined(__GNUC__)
  __builtin_cpu_init();
  add("avx2", __builtin_cpu_supports("avx2"));
  add("fma", __builtin_cpu_supports("fma"));
  add("avx512f", __builtin_cpu_supports("avx512f"));
  add("avx512bw", __builtin_cpu_supports("avx512bw"));
  add("avx512vl", __builtin_cpu_supports("avx512vl"));
  add("avx512vnni", __builtin_cpu_supports("avx512vnni"));
#endif
  return list;
}

// { flags, cuda }: what the machine has, opened or not.
Napi::Value probe(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  Napi::Object o = Napi::Object::New(env);
  o.Set("flags", cpu_flags(env));
  o.Set("cuda", probe_cuda(env));
  return o;
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  auto* data = new InstanceData;
  data->plan_constructor = Napi::Persistent(PlanObject::define(env));
  env.SetInstanceData(data);
  exports.Set("NativeDevice", DeviceObject::define(env));
  exports.Set("digest", Napi::Function::New(env, digest, "digest"));
  exports.Set("probe", Napi::Function::New(env, probe, "probe"));
  export_shared_memory(env, exports);
  export_task_memory(env, exports);
  export_sandbox(env, exports);
  exports.Set("abi", Napi::Number::New(env, TESRA_ABI));
  return exports;
}

}  // namespace
}  // namespace tesra

static Napi::Object Init(Napi::Env env, Napi::Object exports) { return tesra::init(env, exports); }
NODE_API_MODULE(tesra_native, Init)
