// Owns: NativeDevice's entries of CN2, one hash and the search on the executor, and digest().
#include <atomic>
#include <cstring>

#include "../cpu/cn2/cn2.h"
#include "arguments.h"
#include "device-object.h"

namespace tesra {
namespace {

// A search by one call: a low target on a fast machine has one winner in minutes.
constexpr double kWinnersMax = 4096;

struct Search {
  std::vector<uint8_t> data;
  uint8_t target[32];
  size_t nonce_offset = 0;
  uint32_t nonce_bytes = 0;
  uint64_t nonce_start = 0, count = 0;
  std::vector<uint64_t> nonces;
  std::vector<uint8_t> hashes;
  std::atomic<bool> stop{false};
  const std::atomic<bool>* closing = nullptr;
  tesra_cn2_scan scan{};
};

bool read_data(Napi::Env env, Napi::Value value, View* out) {
  if (!read_view(env, value, "data", napi_uint8_array, SIZE_MAX, out)) return false;
  if (out->bytes <= TESRA_CN2_SIZE_MAX) return true;
  throw_error(env, "shape", "data must have at most 2^20 bytes, but has " +
                                std::to_string(out->bytes));
  return false;
}

bool read_search(const Napi::CallbackInfo& info, Search* s) {
  Napi::Env env = info.Env();
  Napi::Object o;
  Napi::Value v;
  View data, target;
  double bytes = 0, offset = 0, capacity = 0;
  const double one = 1;
  if (!read_data(env, info[0], &data) || !read_object(env, info[1], "options", &o) ||
      !integer_property(env, o, "nonceBytes", 1, 8, nullptr, &bytes) ||
      !integer_property(env, o, "nonceOffset", 0, TESRA_CN2_SIZE_MAX, nullptr, &offset) ||
      !integer_property(env, o, "capacity", 1, kWinnersMax, &one, &capacity))
    return false;
  s->nonce_bytes = static_cast<uint32_t>(bytes);
  s->nonce_offset = static_cast<size_t>(offset);
  if (s->nonce_offset + s->nonce_bytes > data.bytes)
    return throw_error(env, "shape", "the nonce ends at byte " + std::to_string(offset + bytes) +
                                         " of data's " + std::to_string(data.bytes)),
           false;
  const uint64_t last = s->nonce_bytes == 8 ? UINT64_MAX : (uint64_t{1} << 8 * s->nonce_bytes) - 1;
  if (!uint64_property(env, o, "nonceStart", last, &s->nonce_start) ||
      !uint64_property(env, o, "count", UINT64_MAX, &s->count))
    return false;
  if (s->count == 0 || s->count - 1 > last - s->nonce_start)
    return throw_error(env, "argument", "count must be from 1 to the nonces left, " +
                                            std::to_string(last - s->nonce_start) + " and one"),
           false;
  if (!read_property(env, o, "target", &v) ||
      !read_view(env, v, "target", napi_uint8_array, 32, &target) ||
      !read_data(env, info[0], &data))  // again: a getter above may have detached it
    return false;
  if (s->nonce_offset + s->nonce_bytes > data.bytes)
    return throw_error(env, "shape", "data lost its bytes while the options were read"), false;
  s->data.assign(data.data, data.data + data.bytes);
  std::memcpy(s->target, target.data, 32);
  s->nonces.resize(static_cast<size_t>(capacity));
  s->hashes.resize(static_cast<size_t>(capacity) * 32);
  return true;
}

int run_search(const tesra_backend* b, tesra_device* d, Search* s, tesra_error* error) {
  tesra_cn2_scan& c = s->scan;
  c.data = s->data.data();
  c.size = s->data.size();
  c.nonce_offset = s->nonce_offset;
  c.nonce_bytes = s->nonce_bytes;
  c.nonce_start = s->nonce_start;
  c.count = s->count;
  c.target = s->target;
  c.stopped = [](void* context) -> int32_t {
    const Search* search = static_cast<const Search*>(context);
    return search->stop.load() || search->closing->load();
  };
  c.context = s;
  c.capacity = static_cast<uint32_t>(s->nonces.size());
  c.nonces = s->nonces.data();
  c.hashes = s->hashes.data();
  return b->cn2_scan(d, &c, error);
}

Napi::Value search_result(Napi::Env env, const Search& s) {
  static const char* const pages[] = {"small", "transparent", "reserved", "device"};
  Napi::Array list = Napi::Array::New(env, s.scan.found);
  for (uint32_t i = 0; i < s.scan.found; ++i) {
    Napi::HandleScope scope(env);
    Napi::Object o = Napi::Object::New(env);
    Napi::Uint8Array hash = Napi::Uint8Array::New(env, 32);
    if (env.IsExceptionPending()) return env.Undefined();
    std::memcpy(hash.Data(), s.hashes.data() + size_t{i} * 32, 32);
    o.Set("nonce", Napi::BigInt::New(env, s.nonces[i]));
    o.Set("hash", hash);
    list.Set(i, o);
  }
  Napi::Object out = Napi::Object::New(env);
  out.Set("found", list);
  out.Set("tried", Napi::BigInt::New(env, s.scan.tried));
  out.Set("pages", Napi::String::New(env, pages[s.scan.pages]));
  return out;
}

}  // namespace

// (data) -> 32 bytes
Napi::Value DeviceObject::cn2_hash(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  View data;
  if (!usable(env) || !read_data(env, info[0], &data)) return env.Undefined();
  Napi::Uint8Array out = Napi::Uint8Array::New(env, 32);
  if (env.IsExceptionPending()) return env.Undefined();
  tesra_error error{};
  tesra_cn2 args{data.data, data.bytes, out.Data()};
  core_->with_any([&](auto* b, auto* d) { return b->cn2_hash(d, &args, &error); });
  if (error.code != TESRA_OK) return throw_error(env, error), env.Undefined();
  return out;
}

// (data, {nonceOffset, nonceBytes, nonceStart, count, target, capacity?}, stopped?)
//   -> { promise: Promise<{ found, tried, pages }>, stop() }
Napi::Value DeviceObject::cn2_scan_async(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  auto s = std::make_shared<Search>();
  if (!usable(env) || !read_search(info, s.get())) return env.Undefined();
  s->stop.store(info[2].IsBoolean() && info[2].As<Napi::Boolean>().Value());
  auto job = std::make_unique<Job>(env);
  job->kept.push_back(Napi::Persistent(Value()));
  std::shared_ptr<DeviceCore> core = core_;
  s->closing = &core->stopping;
  job->work = [core, s](tesra_error* error) {
    return run_search(core->backend, core->device, s.get(), error);
  };
  job->result = [s](Napi::Env e) { return search_result(e, *s); };
  Napi::Object handle = Napi::Object::New(env);
  handle.Set("stop", Napi::Function::New(env, [s](const Napi::CallbackInfo&) { s->stop.store(true); }));
  handle.Set("promise", core_->submit(env, std::move(job)));
  return handle;
}

Napi::Value digest(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  struct Function {
    const char* name;
    void (*call)(const uint8_t*, size_t, uint8_t*);
  };
  static const Function functions[] = {{"blake256", blake256},
                                       {"groestl256", groestl256},
                                       {"jh256", jh256},
                                       {"skein512-256", skein512_256}};
  std::string name;
  View data;
  if (!read_string(env, info[0], "name", 16, &name) ||
      !read_view(env, info[1], "data", napi_uint8_array, SIZE_MAX, &data))
    return env.Undefined();
  for (const Function& f : functions)
    if (name == f.name) {
      Napi::Uint8Array out = Napi::Uint8Array::New(env, 32);
      if (env.IsExceptionPending()) return env.Undefined();
      f.call(data.data, data.bytes, out.Data());
      return out;
    }
  throw_error(env, "argument",
              "name must be blake256, groestl256, jh256 or skein512-256, but is " + name);
  return env.Undefined();
}

}  // namespace tesra
