// Owns what every check uses: the device under test, seeded random values, tensors that live on
// both sides, and the comparison of bits.
#pragma once
#include <cuda_runtime.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "../../kernels/profile.h"
#include "reference.h"

namespace {

#if defined(TESRA_CUDA_EMULATOR)
void pretend(int multiprocessors) {
  emulator::multiprocessors = multiprocessors;
}
#else
void pretend(int) {}
#endif

const tesra_backend* backend;
tesra_device* device;
tesra_error error;
uint64_t state = 1;
int checks = 0;

uint32_t random32() {
  state = state * 6364136223846793005u + 1442695040888963407u;
  uint64_t x = state;
  x ^= x >> 33;
  x *= 0xff51afd7ed558ccdu;
  return static_cast<uint32_t>(x >> 32);
}
int pick(int low, int high) {
  return low + static_cast<int>(random32() % static_cast<uint32_t>(high - low + 1));
}
bool coin(int in = 2) {
  return random32() % in == 0;
}

[[noreturn]] void wrong(const std::string& what) {
  std::fprintf(stderr, "wrong: %s\n", what.c_str());
  std::exit(1);
}
void must(int code, const char* what) {
  if (code != TESRA_OK) wrong(std::string(what) + ": " + error.message);
}

// Ordinary values; now and then tiny ones (results that underflow to -0), zeros of both signs, and
// NaN or infinity.
enum class Values { finite, special, tiny };
float value(Values kind) {
  const uint32_t r = random32();
  if (kind == Values::tiny) return (coin() ? 1 : -1) * std::ldexp(1.0f, -pick(60, 90));
  if (r % 64 == 0) return coin() ? 0.0f : -0.0f;
  if (r % 64 < 3) return (coin() ? 1 : -1) * std::ldexp(1.0f + (r >> 8) * 0x1p-24f, -pick(70, 140));
  if (kind == Values::special && r % 512 == 3) return coin() ? NAN : coin() ? INFINITY : -INFINITY;
  return (static_cast<float>(r >> 8) * 0x1p-23f - 1.0f) * 2.0f;
}

// A tensor on the host (for the reference) and on the device.
template <class T>
struct Tensor {
  std::vector<T> host;
  T* on = nullptr;
  explicit Tensor(size_t n) : host(n) {
    void* pointer;
    must(backend->alloc(device, n * sizeof(T), &pointer, &error), "alloc");
    on = static_cast<T*>(pointer);
  }
  Tensor(const Tensor&) = delete;
  ~Tensor() { backend->free(device, on); }
  void send() {
    must(backend->upload(device, on, host.data(), host.size() * sizeof(T), &error), "upload");
  }
  std::vector<T> fetch() {
    std::vector<T> out(host.size());
    must(backend->download(device, out.data(), on, out.size() * sizeof(T), &error), "download");
    return out;
  }
};
using FloatTensor = Tensor<float>;
void fill(FloatTensor& t, Values kind = Values::finite) {
  for (float& x : t.host) x = value(kind);
  t.send();
}
void poison(FloatTensor& t) {
  for (float& x : t.host) x = NAN;
  t.send();
}

bool same(float x, float y) {
  return memcmp(&x, &y, 4) == 0 || (std::isnan(x) && std::isnan(y));
}
bool same(int32_t x, int32_t y) {
  return x == y;
}
template <class T>
void compare(Tensor<T>& t, const std::string& what) {
  const std::vector<T> got = t.fetch();
  for (size_t i = 0; i < got.size(); i++)
    if (!same(got[i], t.host[i]))
      wrong(what + " [" + std::to_string(i) + "] = " + std::to_string(got[i]) + ", expected " +
            std::to_string(t.host[i]));
  checks++;
}

void runOp(const tesra_op& op) {
  must(backend->run_op(device, &op, &error), "run_op");
}
void runPlan(const std::vector<tesra_op>& ops) {
  tesra_plan* plan = nullptr;
  must(backend->plan_create(device, ops.data(), ops.size(), &plan, &error), "plan_create");
  must(backend->plan_run(device, plan, &error), "plan_run");
  backend->plan_destroy(device, plan);
}
void run(const tesra_op& op) {
  coin() ? runOp(op) : runPlan({op});
}

std::string dims(std::initializer_list<int64_t> list) {
  std::string out;
  for (const int64_t x : list) out += (out.empty() ? "" : "x") + std::to_string(x);
  return out;
}

}  // namespace
