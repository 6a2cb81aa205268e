// Owns: NativeDevice's entries of gradient compression.
#include <cstring>

#include "arguments.h"
#include "device-object.h"

namespace tesra {
namespace {

bool read_kind(Napi::Env env, Napi::Value value, int32_t* kind) {
  std::string name;
  if (!read_string(env, value, "kind", 16, &name)) return false;
  *kind = name == "topk" ? TESRA_TOPK : name == "int8" ? TESRA_INT8 : name == "sign" ? TESRA_SIGN
                : name == "fp16" ? TESRA_FP16 : 0;
  if (*kind) return true;
  throw_error(env, "argument", "kind must be topk, int8, sign or fp16, but is " + name);
  return false;
}

bool read_compress_options(Napi::Env env, Napi::Object o, tesra_compress* c) {
  const double zero = 0, block = 1024;
  double parameter = 0, stream = 0;
  if (c->kind == TESRA_TOPK) {
    if (!integer_property(env, o, "entries", 0, TESRA_COMPRESS_MAX, nullptr, &parameter))
      return false;
  } else if (c->kind != TESRA_FP16) {
    if (!integer_property(env, o, "block", 64, TESRA_COMPRESS_BLOCK_MAX, &block, &parameter))
      return false;
    if (static_cast<uint32_t>(parameter) % 64 != 0)
      return throw_error(env, "argument", "block must be a multiple of 64, but is " +
                                              std::to_string(static_cast<int>(parameter))),
             false;
  }
  c->parameter = static_cast<uint32_t>(parameter);
  Napi::Value seed;
  if (!read_property(env, o, "seed", &seed)) return false;
  if (seed.IsUndefined()) return true;
  if (c->kind != TESRA_INT8)
    return throw_error(env, "argument", "only int8 rounds at random: leave seed out"), false;
  uint64_t key = 0;
  if (!uint64_property(env, o, "seed", UINT64_MAX, &key) ||
      !integer_property(env, o, "stream", 0, 4294967295.0, &zero, &stream))
    return false;
  c->stochastic = 1;
  c->key_low = static_cast<uint32_t>(key);
  c->key_high = static_cast<uint32_t>(key >> 32);
  c->stream = static_cast<uint32_t>(stream);
  return true;
}

// `arrays` takes what the vectors look into.
bool read_compress(const Napi::CallbackInfo& info, tesra_compress* c, std::vector<Napi::Object>* arrays) {
  Napi::Env env = info.Env();
  Napi::Object o;
  Napi::Value v;
  View x, residual;
  // The options come before the vectors: a getter among them may detach a buffer.
  if (!read_kind(env, info[0], &c->kind) || !read_object(env, info[2], "options", &o) ||
      !read_compress_options(env, o, c) || !read_property(env, o, "residual", &v) ||
      !read_view(env, info[1], "x", napi_float32_array, SIZE_MAX, &x))
    return false;
  arrays->push_back(info[1].As<Napi::Object>());
  const bool feedback = !v.IsUndefined();
  if (feedback) {
    if (!read_view(env, v, "residual", napi_float32_array, x.length, &residual)) return false;
    if (overlap(x, residual))
      return throw_error(env, "argument", "the residual overlaps the gradient"), false;
    arrays->push_back(v.As<Napi::Object>());
  }
  if (x.length > TESRA_COMPRESS_MAX)
    return throw_error(env, "shape", "x must have fewer than 2^31 elements"), false;
  c->x = reinterpret_cast<const float*>(x.data);
  c->residual = feedback ? reinterpret_cast<float*>(residual.data) : nullptr;
  c->n = static_cast<int64_t>(x.length);
  if (c->kind == TESRA_TOPK && c->parameter > x.length) c->parameter = static_cast<uint32_t>(x.length);
  return true;
}

Napi::Uint8Array message_of(Napi::Env env, tesra_compress* c) {
  Napi::Uint8Array out =
      Napi::Uint8Array::New(env, static_cast<size_t>(tesra_packed_size(c->kind, c->parameter, c->n)));
  if (!env.IsExceptionPending()) c->out = out.Data();
  return out;
}

bool read_decompress(const Napi::CallbackInfo& info, tesra_decompress* d, std::vector<Napi::Object>* arrays) {
  Napi::Env env = info.Env();
  Napi::Object o;
  View packed, out;
  const double one = 1;
  double scale = 1;
  bool add = false;
  if (!read_object(env, info[2], "options", &o) ||
      !number_property(env, o, "scale", &one, &scale) || !flag_property(env, o, "add", &add) ||
      !read_view(env, info[0], "packed", napi_uint8_array, SIZE_MAX, &packed) ||
      !read_view(env, info[1], "out", napi_float32_array, SIZE_MAX, &out))
    return false;
  if (overlap(packed, out)) return throw_error(env, "argument", "out overlaps the message"), false;
  *d = {packed.data, packed.bytes, reinterpret_cast<float*>(out.data),
        static_cast<int64_t>(out.length), static_cast<float>(scale), add};
  arrays->push_back(info[0].As<Napi::Object>());
  arrays->push_back(info[1].As<Napi::Object>());
  return true;
}

}  // namespace

// (kind, x, {entries | block, residual?, seed?, stream?}) -> Uint8Array
Napi::Value DeviceObject::compress(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  tesra_compress c{};
  std::vector<Napi::Object> arrays;
  if (!usable(env) || !read_compress(info, &c, &arrays) || !usable(env)) return env.Undefined();
  Napi::Uint8Array out = message_of(env, &c);
  if (env.IsExceptionPending()) return env.Undefined();
  tesra_error error{};
  core_->with_host([&](auto* b, auto* d) { return b->compress(d, &c, &error); }, &error);
  if (error.code != TESRA_OK) return throw_error(env, error), env.Undefined();
  return out;
}

// The same; x and the residual must not be touched until the promise settles.
Napi::Value DeviceObject::compress_async(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  auto job = std::make_unique<Job>(env);
  tesra_compress c{};
  std::vector<Napi::Object> arrays;
  if (!usable(env) || !read_compress(info, &c, &arrays) || !usable(env)) return refuse(env, *job);
  Napi::Uint8Array out = message_of(env, &c);
  if (env.IsExceptionPending()) return refuse(env, *job);
  arrays.push_back(out);
  auto kept = std::make_shared<Napi::Reference<Napi::Uint8Array>>(Napi::Persistent(out));
  job->result = [kept](Napi::Env) { return Napi::Value(kept->Value()); };
  return in_background(std::move(job), arrays, [c](auto* b, auto* d, tesra_error* error) {
    return b->compress(d, &c, error);
  });
}

// (packed, out, {scale?, add?}): out is written only when the message is whole.
Napi::Value DeviceObject::decompress(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  tesra_decompress d{};
  std::vector<Napi::Object> arrays;
  if (!usable(env) || !read_decompress(info, &d, &arrays) || !usable(env)) return env.Undefined();
  tesra_error error{};
  if (tesra_check_packed(d.packed, d.size, d.n, &error) == TESRA_OK)
    core_->with_host([&](auto* b, auto* device) { return b->decompress(device, &d, &error); },
                     &error);
  if (error.code != TESRA_OK) throw_error(env, error);
  return env.Undefined();
}

Napi::Value DeviceObject::decompress_async(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  auto job = std::make_unique<Job>(env);
  tesra_decompress d{};
  std::vector<Napi::Object> arrays;
  if (!usable(env) || !read_decompress(info, &d, &arrays) || !usable(env)) return refuse(env, *job);
  return in_background(std::move(job), arrays, [d](auto* b, auto* device, tesra_error* error) {
    const int code = tesra_check_packed(d.packed, d.size, d.n, error);
    return code == TESRA_OK ? b->decompress(device, &d, error) : code;
  });
}

}  // namespace tesra
