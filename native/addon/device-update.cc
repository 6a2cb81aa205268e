// Owns: NativeDevice's entries for whole vectors in host memory, on the executor: what a parameter server
// does to a gradient (update.h), delay compensation and hashes.
#include <cstring>

#include "arguments.h"
#include "device-object.h"

namespace tesra {
namespace {

// A list of float vectors of `length` elements (SIZE_MAX: of the first one's), none overlapping another in `seen`.
bool read_vectors(Napi::Env env, Napi::Value value, const char* name, size_t least, size_t most,
                  size_t* length, std::vector<View>* seen, std::vector<Napi::Object>* arrays) {
  if (!value.IsArray()) return throw_error(env, "argument", std::string(name) + " must be a list"), false;
  Napi::Array list = value.As<Napi::Array>();
  if (list.Length() < least || list.Length() > most)
    return throw_error(env, "argument", std::string(name) + " must be a list of " + std::to_string(least) +
                                            (least == most ? "" : " to " + std::to_string(most)) +
                                            " vectors"),
           false;
  for (uint32_t i = 0; i < list.Length(); ++i) {
    Napi::Value item = list.Get(i);
    View v;
    if (env.IsExceptionPending() || !read_view(env, item, name, napi_float32_array, *length, &v))
      return false;
    for (const View& other : *seen)
      if (overlap(other, v))
        return throw_error(env, "argument", std::string(name) + " overlap another vector"), false;
    *length = v.length;
    seen->push_back(v);
    arrays->push_back(item.As<Napi::Object>());
  }
  return true;
}

// Getters of a list may have detached a buffer that was looked at before.
bool still_there(Napi::Env env, const std::vector<View>& views, const std::vector<Napi::Object>& arrays) {
  for (size_t i = 0; i < views.size(); ++i) {
    View v;
    if (!read_any_view(env, arrays[i], "vector", &v)) return false;
    if (v.data != views[i].data || v.bytes != views[i].bytes)
      return throw_error(env, "argument", "a vector changed while the arguments were read"), false;
  }
  return true;
}

float* floats(const View& v) { return reinterpret_cast<float*>(v.data); }

Napi::Value number_of(Napi::Env env, uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return Napi::Number::New(env, x);
}

}  // namespace

Napi::Value DeviceObject::refuse(Napi::Env env, Job& job) {
  job.deferred.Reject(env.GetAndClearPendingException().Value());
  return job.deferred.Promise();
}

Napi::Value DeviceObject::in_background(std::unique_ptr<Job> job, const std::vector<Napi::Object>& arrays,
                                        HostWork work) {
  job->kept.push_back(Napi::Persistent(Value()));
  for (const Napi::Object& each : arrays) job->kept.push_back(Napi::Persistent(each));
  std::shared_ptr<DeviceCore> core = core_;
  job->work = [core, work](tesra_error* error) {
    return core->with_host_in_job(
        [&](const tesra_backend* b, tesra_device* d) { return work(b, d, error); }, error);
  };
  return core_->submit(Env(), std::move(job));
}

// (kind, [p, g, m?, v?], [p', m'?, v'?], options) -> the gradient's largest magnitude
Napi::Value DeviceObject::update_async(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  auto job = std::make_unique<Job>(env);
  tesra_op op{};
  std::vector<View> views;
  std::vector<Napi::Object> arrays;
  size_t length = SIZE_MAX;
  if (!usable(env) || !read_optimizer(env, info[0], info[3], &op)) return refuse(env, *job);
  const size_t moments = op.kind == TESRA_OP_SGD ? 0 : op.kind == TESRA_OP_MOMENTUM ? 1 : 2;
  if (!read_vectors(env, info[1], "inputs", 2 + moments, 2 + moments, &length, &views, &arrays) ||
      !read_vectors(env, info[2], "outputs", 1 + moments, 1 + moments, &length, &views, &arrays) ||
      !still_there(env, views, arrays) || !usable(env))
    return refuse(env, *job);
  auto u = std::make_shared<tesra_update>();
  u->kind = op.kind;
  if (op.kind == TESRA_OP_ADAM) u->adam = op.u.adam;
  else u->sgd = op.u.sgd;
  u->p = floats(views[0]), u->g = floats(views[1]);
  if (moments > 0) u->m = floats(views[2]), u->m_out = floats(views[3 + moments]);
  if (moments > 1) u->v = floats(views[3]), u->v_out = floats(views[4 + moments]);
  u->p_out = floats(views[2 + moments]);
  u->n = static_cast<int64_t>(length);
  job->result = [u](Napi::Env e) { return number_of(e, u->largest); };
  return in_background(std::move(job), arrays, [u](auto* b, auto* d, tesra_error* error) {
    return b->update(d, u.get(), error);
  });
}

// ([x, ...], out)
Napi::Value DeviceObject::mean_async(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  auto job = std::make_unique<Job>(env);
  std::vector<View> views;
  std::vector<Napi::Object> arrays;
  size_t length = SIZE_MAX;
  View out;
  if (!usable(env) ||
      !read_vectors(env, info[0], "vectors", 1, TESRA_MEAN_MAX, &length, &views, &arrays) ||
      !read_view(env, info[1], "out", napi_float32_array, length, &out))
    return refuse(env, *job);
  for (const View& each : views)
    if (overlap(each, out))
      return throw_error(env, "argument", "out overlaps a vector"), refuse(env, *job);
  views.push_back(out);
  arrays.push_back(info[1].As<Napi::Object>());
  if (!still_there(env, views, arrays) || !usable(env)) return refuse(env, *job);
  std::vector<const float*> x;
  for (size_t i = 0; i + 1 < views.size(); ++i) x.push_back(floats(views[i]));
  return in_background(std::move(job), arrays,
                       [x, to = floats(out), length](auto* b, auto* d, tesra_error* error) {
                         const tesra_mean m{x.data(), static_cast<int32_t>(x.size()), to,
                                            static_cast<int64_t>(length)};
                         return b->mean(d, &m, error);
                       });
}

// (x) -> the largest magnitude; NaN or infinity where x holds one
Napi::Value DeviceObject::largest_async(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  auto job = std::make_unique<Job>(env);
  View x;
  if (!usable(env) || !read_view(env, info[0], "x", napi_float32_array, SIZE_MAX, &x))
    return refuse(env, *job);
  auto bits = std::make_shared<uint32_t>(0);
  job->result = [bits](Napi::Env e) { return number_of(e, *bits); };
  return in_background(std::move(job), {info[0].As<Napi::Object>()},
                       [bits, x](auto* b, auto* d, tesra_error* error) {
                         return b->largest(d, floats(x), static_cast<int64_t>(x.length), bits.get(),
                                           error);
                       });
}

// (g, wNow, wBase, lambda)
Napi::Value DeviceObject::delay_compensate_async(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  auto job = std::make_unique<Job>(env);
  View g, now, base;
  double lambda = 0;
  if (!usable(env) || !read_number(env, info[3], "lambda", &lambda) ||
      !read_view(env, info[0], "gradient", napi_float32_array, SIZE_MAX, &g) ||
      !read_view(env, info[1], "wNow", napi_float32_array, g.length, &now) ||
      !read_view(env, info[2], "wBase", napi_float32_array, g.length, &base))
    return refuse(env, *job);
  if (overlap(g, now) || overlap(g, base))
    return throw_error(env, "argument", "the gradient overlaps a weight vector"), refuse(env, *job);
  tesra_op op{};
  op.kind = TESRA_OP_DELAY_COMPENSATE;
  op.u.delay_compensate = {floats(g), floats(now), floats(base), static_cast<int64_t>(g.length),
                           static_cast<float>(lambda)};
  return in_background(
      std::move(job),
      {info[0].As<Napi::Object>(), info[1].As<Napi::Object>(), info[2].As<Napi::Object>()},
      [op](auto* b, auto* d, tesra_error* error) { return b->run_op(d, &op, error); });
}

// (data) -> 32 bytes
Napi::Value DeviceObject::blake3_async(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  auto job = std::make_unique<Job>(env);
  View data;
  if (!usable(env) || !read_view(env, info[0], "data", napi_uint8_array, SIZE_MAX, &data))
    return refuse(env, *job);
  struct Digest {
    uint8_t bytes[32];
  };
  auto digest = std::make_shared<Digest>();
  job->result = [digest](Napi::Env e) {
    Napi::Uint8Array out = Napi::Uint8Array::New(e, sizeof digest->bytes);
    if (!e.IsExceptionPending()) std::memcpy(out.Data(), digest->bytes, sizeof digest->bytes);
    return Napi::Value(out);
  };
  return in_background(std::move(job), {info[0].As<Napi::Object>()},
                       [digest, data](auto* b, auto* d, tesra_error* error) {
                         const tesra_blake3 args{data.data, data.length, nullptr, digest->bytes};
                         return b->blake3(d, &args, error);
                       });
}

}  // namespace tesra
