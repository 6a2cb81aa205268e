#include "plan-object.h"

#include <cstring>
#include <utility>

#include "../kernels/profile.h"

#include "device-object.h"
#include "task-memory.h"

namespace tesra {
namespace {

struct Allocation {
  Napi::Env env;
  PlanCore* core;
  const ArenaHead* head;
};

bool allocate_arena(void* context, uint64_t bytes, uint8_t** base) {
  Allocation& a = *static_cast<Allocation*>(context);
  if (a.core->arena) {
    if (bytes != a.core->arena->bytes)
      return throw_error(a.env, "argument", "a sibling has the arenaBytes of the plan it is made from"), false;
    *base = static_cast<uint8_t*>(a.core->arena->base);
    return true;
  }
  auto arena = std::make_shared<Arena>();
  arena->device = a.core->device;
  arena->bytes = bytes;
  if (a.head) {
    std::string reason;
    arena->base = map_arena(*a.head, bytes, &arena->mapped, &reason);
    if (!arena->base) return throw_error(a.env, "memory", reason), false;
  } else {
    tesra_error error{};
    DeviceCore& d = *arena->device;
    std::lock_guard<std::mutex> lock(d.mutex);
    if (d.backend->alloc(d.device, bytes ? bytes : 64, &arena->base, &error) != TESRA_OK)
      return throw_error(a.env, error), false;
  }
  a.core->arena = std::move(arena);
  *base = static_cast<uint8_t*>(a.core->arena->base);
  return true;
}

napi_typedarray_type array_type(Dtype d) {
  return d == Dtype::f32 ? napi_float32_array : d == Dtype::i32 ? napi_int32_array : napi_uint8_array;
}

}  // namespace

Arena::~Arena() {
  std::lock_guard<std::mutex> lock(device->mutex);
  if (mapped) unmap_arena(base, mapped);
  else if (base) device->backend->free(device->device, base);
}

PlanCore::~PlanCore() {
  std::lock_guard<std::mutex> lock(device->mutex);
  if (plan) device->backend->plan_destroy(device->device, plan);
}

Napi::Function PlanObject::define(Napi::Env env) {
  return DefineClass(env, "NativePlan",
                     {InstanceMethod<&PlanObject::write>("write"),
                      InstanceMethod<&PlanObject::read>("read"),
                      InstanceMethod<&PlanObject::arena>("arena"),
                      InstanceMethod<&PlanObject::sibling>("sibling"),
                      InstanceMethod<&PlanObject::run>("run"),
                      InstanceMethod<&PlanObject::profile>("profile"),
                      InstanceMethod<&PlanObject::run_sync>("runSync"),
                      InstanceAccessor<&PlanObject::multiply_adds>("multiplyAdds"),
                      InstanceMethod<&PlanObject::close>("close")});
}

PlanObject::PlanObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<PlanObject>(info) {}

PlanObject::~PlanObject() = default;

bool PlanObject::build(Napi::Env env, std::shared_ptr<DeviceCore> device, Napi::Value spec, Napi::Value head,
                       std::shared_ptr<Arena> arena) {
  auto core = std::make_shared<PlanCore>();
  core->device = std::move(device);
  core->arena = std::move(arena);
  ParsedPlan parsed;
  ArenaHead shared;
  const bool has_head = !head.IsUndefined();
  if (has_head && !core->device->backend->host_memory)
    return throw_error(env, "unsupported", "an arena on a GPU has no head in shared memory"), false;
  if (has_head && !read_arena_head(env, head, &shared)) return false;
  Allocation allocation{env, core.get(), has_head ? &shared : nullptr};
  if (!parse_plan(env, spec, allocate_arena, &allocation, &parsed)) return false;
  DeviceCore& d = *core->device;
  tesra_error error{};
  {
    std::lock_guard<std::mutex> lock(d.mutex);
    d.backend->plan_create(d.device, parsed.ops.data(), parsed.ops.size(), &core->plan, &error);
  }
  if (error.code != TESRA_OK) return throw_error(env, error), false;
  core_ = std::move(core);
  tensors_ = std::move(parsed.tensors);
  multiply_adds_ = parsed.multiply_adds;
  op_multiply_adds_ = std::move(parsed.op_multiply_adds);
  return true;
}

bool PlanObject::usable(Napi::Env env) {
  if (!core_ || core_->device->closed())
    return throw_error(env, "closed", "the plan or its device is closed"), false;
  if (core_->arena->running)
    return throw_error(env, "busy", "a run of this plan is under way; await it first"), false;
  return true;
}

const Tensor* PlanObject::tensor(const Napi::CallbackInfo& info, View* view) {
  Napi::Env env = info.Env();
  double id = 0;
  if (!usable(env) ||
      !read_integer(env, info[0], "tensor", 0, static_cast<double>(tensors_.size()) - 1, &id))
    return nullptr;
  const Tensor& t = tensors_[static_cast<size_t>(id)];
  if (!read_any_view(env, info[1], t.name.c_str(), view)) return nullptr;
  if (view->type != array_type(t.dtype)) {
    throw_error(env, "argument",
                t.name + " is " +
                    (t.dtype == Dtype::f32   ? "f32: pass a Float32Array"
                     : t.dtype == Dtype::i32 ? "i32: pass an Int32Array"
                                             : "u8: pass a Uint8Array"));
    return nullptr;
  }
  if (view->length != t.elements) {
    throw_error(env, "shape", t.name + " has " + std::to_string(t.elements) +
                                  " elements, but the array has " + std::to_string(view->length));
    return nullptr;
  }
  return &t;
}

Napi::Value PlanObject::write(const Napi::CallbackInfo& info) {
  View view;
  const Tensor* t = tensor(info, &view);
  if (!t || t->bytes == 0) return info.Env().Undefined();
  DeviceCore& d = *core_->device;
  uint8_t* to = static_cast<uint8_t*>(core_->arena->base) + t->offset;
  tesra_error error{};
  if (d.backend->host_memory) {
    std::memmove(to, view.data, t->bytes);
  } else {
    std::lock_guard<std::mutex> lock(d.mutex);
    d.backend->upload(d.device, to, view.data, t->bytes, &error);
  }
  if (error.code != TESRA_OK) throw_error(info.Env(), error);
  return info.Env().Undefined();
}

Napi::Value PlanObject::read(const Napi::CallbackInfo& info) {
  View view;
  const Tensor* t = tensor(info, &view);
  if (!t || t->bytes == 0) return info.Env().Undefined();
  DeviceCore& d = *core_->device;
  const uint8_t* from = static_cast<const uint8_t*>(core_->arena->base) + t->offset;
  tesra_error error{};
  if (d.backend->host_memory) {
    std::memmove(view.data, from, t->bytes);
  } else {
    std::lock_guard<std::mutex> lock(d.mutex);
    d.backend->download(d.device, view.data, from, t->bytes, &error);
  }
  if (error.code != TESRA_OK) throw_error(info.Env(), error);
  return info.Env().Undefined();
}

// One external ArrayBuffer over the whole arena; it keeps the arena alive by itself.
Napi::Value PlanObject::arena(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  if (!core_ || core_->device->closed())
    return throw_error(env, "closed", "the plan or its device is closed"), env.Undefined();
  if (!core_->device->backend->host_memory || core_->arena->bytes == 0) return env.Undefined();
  if (!buffer_.IsEmpty()) return buffer_.Value();
  auto* keep = new std::shared_ptr<PlanCore>(core_);
  Napi::ArrayBuffer b = Napi::ArrayBuffer::New(
      env, core_->arena->base, core_->arena->bytes,
      [](Napi::BasicEnv, void*, std::shared_ptr<PlanCore>* k) { delete k; }, keep);
  if (env.IsExceptionPending()) {
    delete keep;
    return env.Undefined();
  }
  buffer_ = Napi::Reference<Napi::ArrayBuffer>::New(b, 1);
  return b;
}

// Other operations over the same arena: what one leaves there the next one reads.
Napi::Value PlanObject::sibling(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  if (!usable(env)) return env.Undefined();
  Napi::Object plan = env.GetInstanceData<InstanceData>()->plan_constructor.New({});
  if (env.IsExceptionPending()) return env.Undefined();
  if (!PlanObject::Unwrap(plan)->build(env, core_->device, info[0], env.Undefined(), core_->arena)) return env.Undefined();
  return plan;
}

Napi::Promise PlanObject::submit(Napi::Env env, std::function<int(tesra_error*)> work,
                                 std::function<Napi::Value(Napi::Env)> result) {
  auto job = std::make_unique<Job>(env);
  if (!core_ || core_->device->closed() || core_->arena->running) {
    const bool busy = core_ && core_->arena->running;
    job->deferred.Reject(make_error(env, busy ? "busy" : "closed",
                                    busy ? "a run of this plan is under way; await it first"
                                         : "the plan or its device is closed")
                             .Value());
    return job->deferred.Promise();
  }
  std::shared_ptr<PlanCore> core = core_;
  core->arena->running = true;
  job->kept.push_back(Napi::Persistent(Value()));
  job->work = std::move(work);
  job->result = std::move(result);
  job->settled = [core] { core->arena->running = false; };
  return core_->device->submit(env, std::move(job));
}

Napi::Value PlanObject::run(const Napi::CallbackInfo& info) {
  return submit(
      info.Env(),
      [core = core_](tesra_error* error) {
        return core->device->backend->plan_run(core->device->device, core->plan, error);
      },
      nullptr);
}

// Three numbers an operation: start and end in nanoseconds, multiply-adds.
Napi::Value PlanObject::profile(const Napi::CallbackInfo& info) {
  const std::vector<double>& work = op_multiply_adds_;
  auto spans = std::make_shared<std::vector<tesra_span>>(work.size());
  return submit(
      info.Env(),
      [core = core_, spans](tesra_error* error) {
        const DeviceCore& d = *core->device;
        return d.backend->host_memory
                   ? tesra_cpu_plan_profile(d.device, core->plan, spans->data(), error)
                   : tesra_cuda_plan_profile(d.device, core->plan, spans->data(), error);
      },
      [spans, work](Napi::Env env) -> Napi::Value {
        Napi::Float64Array out = Napi::Float64Array::New(env, 3 * work.size());
        for (size_t i = 0; i < work.size(); ++i) {
          out[3 * i] = static_cast<double>((*spans)[i].start_ns);
          out[3 * i + 1] = static_cast<double>((*spans)[i].end_ns);
          out[3 * i + 2] = work[i];
        }
        return out;
      });
}

Napi::Value PlanObject::run_sync(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  if (!usable(env)) return env.Undefined();
  DeviceCore& d = *core_->device;
  tesra_error error{};
  {
    std::lock_guard<std::mutex> lock(d.mutex);
    d.backend->plan_run(d.device, core_->plan, &error);
  }
  if (error.code != TESRA_OK) throw_error(env, error);
  return env.Undefined();
}

Napi::Value PlanObject::multiply_adds(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), multiply_adds_);
}

void PlanObject::close(const Napi::CallbackInfo&) {
  buffer_.Reset();
  core_.reset();  // a run under way, or a view, keeps what it needs
}

}  // namespace tesra
