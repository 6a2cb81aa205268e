// Owns: NativeDevice's entries of gradient compression.
#include <cstring>

#include "arguments.h"
#include "device-object.h"

namespace tesra {
namespace {

bool read_kind(Napi::Env env, Napi::Value value, int32_t* kind) {
  std::string name;
  if (!read_string(env, value, "kind", 16, &name)) return false;
  *kind = name == "topk" ? TESRA_TOPK : name == "int8" ? TESRA_INT8 : name == "sign" ? TESRA_SIGN : 0;
  if (*kind) return true;
  throw_error(env, "argument", "kind must be topk, int8 or sign, but is " + name);
  return false;
}

bool read_compress_options(Napi::Env env, Napi::Object o, tesra_compress* c) {
  const double zero = 0, block = 1024;
  double parameter = 0, stream = 0;
  if (c->kind == TESRA_TOPK) {
    if (!integer_property(env, o, "entries", 0, TESRA_COMPRESS_MAX, nullptr, &parameter))
      return false;
  } else {
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

}  // namespace

// (kind, x, {entries | block, residual?, seed?, stream?}) -> Uint8Array
Napi::Value DeviceObject::compress(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  Napi::Object o;
  Napi::Value v;
  View x, residual;
  tesra_compress c{};
  // The options come before the vectors: a getter among them may detach a buffer.
  if (!usable(env) || !read_kind(env, info[0], &c.kind) ||
      !read_object(env, info[2], "options", &o) || !read_compress_options(env, o, &c) ||
      !read_property(env, o, "residual", &v) ||
      !read_view(env, info[1], "x", napi_float32_array, SIZE_MAX, &x) || !usable(env))
    return env.Undefined();
  const bool feedback = !v.IsUndefined();
  if (feedback && !read_view(env, v, "residual", napi_float32_array, x.length, &residual))
    return env.Undefined();
  if (feedback && overlap(x, residual))
    return throw_error(env, "argument", "the residual overlaps the gradient"), env.Undefined();
  if (x.length > TESRA_COMPRESS_MAX)
    return throw_error(env, "shape", "x must have fewer than 2^31 elements"), env.Undefined();
  c.x = reinterpret_cast<const float*>(x.data);
  c.residual = feedback ? reinterpret_cast<float*>(residual.data) : nullptr;
  c.n = static_cast<int64_t>(x.length);
  if (c.kind == TESRA_TOPK && c.parameter > x.length) c.parameter = static_cast<uint32_t>(x.length);
  Napi::Uint8Array out =
      Napi::Uint8Array::New(env, static_cast<size_t>(tesra_packed_size(c.kind, c.parameter, c.n)));
  if (env.IsExceptionPending()) return env.Undefined();
  c.out = out.Data();
  tesra_error error{};
  core_->with_host([&](auto* b, auto* d) { return b->compress(d, &c, &error); }, &error);
  if (error.code != TESRA_OK) return throw_error(env, error), env.Undefined();
  return out;
}

// (packed, out, {scale?, add?}): out is written only when the message is whole.
Napi::Value DeviceObject::decompress(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  Napi::Object o;
  View packed, out;
  const double one = 1;
  double scale = 1;
  bool add = false;
  if (!usable(env) || !read_object(env, info[2], "options", &o) ||
      !number_property(env, o, "scale", &one, &scale) || !flag_property(env, o, "add", &add) ||
      !read_view(env, info[0], "packed", napi_uint8_array, SIZE_MAX, &packed) ||
      !read_view(env, info[1], "out", napi_float32_array, SIZE_MAX, &out) || !usable(env))
    return env.Undefined();
  if (overlap(packed, out))
    return throw_error(env, "argument", "out overlaps the message"), env.Undefined();
  tesra_error error{};
  tesra_decompress d{packed.data, packed.bytes, reinterpret_cast<float*>(out.data),
                     static_cast<int64_t>(out.length), static_cast<float>(scale), add};
  if (tesra_check_packed(d.packed, d.size, d.n, &error) == TESRA_OK)
    core_->with_host([&](auto* b, auto* device) { return b->decompress(device, &d, &error); },
                     &error);
  if (error.code != TESRA_OK) throw_error(env, error);
  return env.Undefined();
}

}  // namespace tesra
