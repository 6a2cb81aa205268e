// Owns: NativeDevice's entries of CryptoRight-M: scans of given matrices and the replay of a tile.
#include <cstring>

#include "arguments.h"
#include "device-object.h"

namespace tesra {
namespace {

struct Scan {
  std::vector<int8_t> a_copy, b_copy;
  const int8_t *a = nullptr, *bt = nullptr;
  bool seeded = false;
  uint8_t seed[32];
  int32_t m = 0, n = 0, k = 0;
  uint8_t key[32], target[32];
  std::vector<uint32_t> tiles;
  std::vector<uint8_t> tickets;
  uint32_t count = 0;
};

bool check_pow_k(Napi::Env env, int32_t k) {
  if (k >= 128 && k % 128 == 0 && k <= TESRA_CRM_K_MAX) return true;
  throw_error(env, "shape", "k must be a multiple of 128 from 128 to 65536, but is " +
                                std::to_string(k));
  return false;
}

bool read_scan_dims(Napi::Env env, Napi::Value value, Scan* s) {
  if (!read_dims(env, value, 1, &s->m, &s->n, &s->k) || !check_pow_k(env, s->k)) return false;
  if (s->m % 64 != 0 || s->n % 64 != 0)
    return throw_error(env, "shape", "m and n must be multiples of 64, but are " +
                                         std::to_string(s->m) + " and " + std::to_string(s->n)),
           false;
  if (static_cast<double>(s->m) * s->n / 128 > 4294967295.0)
    return throw_error(env, "shape", "more than 2^32 tiles"), false;
  return true;
}

bool read_scan(const Napi::CallbackInfo& info, Scan* s) {
  Napi::Env env = info.Env();
  View a, b, key, target;
  if (!read_scan_dims(env, info[2], s)) return false;
  if (!read_view(env, info[0], "a", napi_int8_array, static_cast<size_t>(s->m) * s->k, &a) ||
      !read_view(env, info[1], "bT", napi_int8_array, static_cast<size_t>(s->n) * s->k, &b) ||
      !read_view(env, info[3], "ticketKey", napi_uint8_array, 32, &key) ||
      !read_view(env, info[4], "target", napi_uint8_array, 32, &target))
    return false;
  s->a = reinterpret_cast<const int8_t*>(a.data);
  s->bt = reinterpret_cast<const int8_t*>(b.data);
  std::memcpy(s->key, key.data, 32);
  std::memcpy(s->target, target.data, 32);
  return true;
}

bool read_challenge(const Napi::CallbackInfo& info, Scan* s) {
  Napi::Env env = info.Env();
  View seed, key, target;
  if (!read_scan_dims(env, info[1], s) ||
      !read_view(env, info[0], "seed", napi_uint8_array, 32, &seed) ||
      !read_view(env, info[2], "ticketKey", napi_uint8_array, 32, &key) ||
      !read_view(env, info[3], "target", napi_uint8_array, 32, &target))
    return false;
  s->seeded = true;
  std::memcpy(s->seed, seed.data, 32);
  std::memcpy(s->key, key.data, 32);
  std::memcpy(s->target, target.data, 32);
  return true;
}

int run_scan(const tesra_backend* b, tesra_device* d, Scan* s, tesra_error* error) {
  uint32_t capacity = 1024;
  for (;;) {
    s->tiles.resize(capacity);
    s->tickets.resize(size_t{capacity} * 32);
    tesra_crm_scan c{s->seeded ? s->seed : nullptr, s->a, s->bt, s->m, s->n, s->k, s->key, s->target, capacity, 0,
                     s->tiles.data(), s->tickets.data()};
    *error = tesra_error{};
    const int code = b->crm_scan(d, &c, error);
    s->count = c.count;
    if (code != TESRA_E_CAPACITY) return code;
    capacity = c.count;
  }
}

Napi::Value scan_result(Napi::Env env, const Scan& s) {
  Napi::Array list = Napi::Array::New(env, s.count);
  for (uint32_t i = 0; i < s.count; ++i) {
    Napi::HandleScope scope(env);
    Napi::Object o = Napi::Object::New(env);
    Napi::Uint8Array ticket = Napi::Uint8Array::New(env, 32);
    std::memcpy(ticket.Data(), s.tickets.data() + size_t{i} * 32, 32);
    o.Set("tile", Napi::Number::New(env, s.tiles[i]));
    o.Set("ticket", ticket);
    list.Set(i, o);
  }
  Napi::Object out = Napi::Object::New(env);
  out.Set("tickets", list);
  return out;
}

Napi::Value submit_scan(Napi::Env env, Napi::Object device, const std::shared_ptr<DeviceCore>& core,
                        std::unique_ptr<Job> job, std::shared_ptr<Scan> s) {
  job->kept.push_back(Napi::Persistent(device));
  job->work = [core, s](tesra_error* error) {
    return run_scan(core->backend, core->device, s.get(), error);
  };
  job->result = [s](Napi::Env e) { return scan_result(e, *s); };
  return core->submit(env, std::move(job));
}

}  // namespace

// (a, bT, {m, n, k}, ticketKey, target)
Napi::Value DeviceObject::crm_scan(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  Scan s;
  if (!usable(env) || !read_scan(info, &s)) return env.Undefined();
  tesra_error error{};
  core_->with_any([&](auto* b, auto* d) { return run_scan(b, d, &s, &error); });
  if (error.code != TESRA_OK) return throw_error(env, error), env.Undefined();
  return scan_result(env, s);
}

// The same on the executor; the matrices are copied, so the caller may refill them at once.
Napi::Value DeviceObject::crm_scan_async(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  auto job = std::make_unique<Job>(env);
  auto s = std::make_shared<Scan>();
  if (!usable(env) || !read_scan(info, s.get())) {
    job->deferred.Reject(env.GetAndClearPendingException().Value());
    return job->deferred.Promise();
  }
  s->a_copy.assign(s->a, s->a + static_cast<size_t>(s->m) * s->k);
  s->b_copy.assign(s->bt, s->bt + static_cast<size_t>(s->n) * s->k);
  s->a = s->a_copy.data();
  s->bt = s->b_copy.data();
  return submit_scan(env, Value(), core_, std::move(job), std::move(s));
}

// (seed, {m, n, k}, ticketKey, target): both matrices are made from the seed, on the executor.
Napi::Value DeviceObject::crm_challenge_async(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  auto job = std::make_unique<Job>(env);
  auto s = std::make_shared<Scan>();
  if (!usable(env) || !read_challenge(info, s.get())) {
    job->deferred.Reject(env.GetAndClearPendingException().Value());
    return job->deferred.Promise();
  }
  return submit_scan(env, Value(), core_, std::move(job), std::move(s));
}

// (aRows 8 x k, bCols 16 x k, k) -> 64 bytes
Napi::Value DeviceObject::crm_tile(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  View a, b;
  double k = 0;
  if (!usable(env) || !read_integer(env, info[2], "k", 0, 1 << 30, &k) ||
      !check_pow_k(env, static_cast<int32_t>(k)) ||
      !read_view(env, info[0], "aRows", napi_int8_array, static_cast<size_t>(k) * 8, &a) ||
      !read_view(env, info[1], "bCols", napi_int8_array, static_cast<size_t>(k) * 16, &b))
    return env.Undefined();
  uint32_t words[16];
  tesra_error error{};
  tesra_crm_tile args{reinterpret_cast<const int8_t*>(a.data),
                      reinterpret_cast<const int8_t*>(b.data), static_cast<int32_t>(k), words};
  core_->with_any([&](auto* back, auto* d) { return back->crm_tile(d, &args, &error); });
  if (error.code != TESRA_OK) return throw_error(env, error), env.Undefined();
  Napi::Uint8Array out = Napi::Uint8Array::New(env, 64);
  for (int i = 0; i < 16; ++i)
    for (int j = 0; j < 4; ++j) out[i * 4 + j] = static_cast<uint8_t>(words[i] >> (8 * j));
  return out;
}

}  // namespace tesra
