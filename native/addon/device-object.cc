#include "device-object.h"

#include <cstring>

#include "arguments.h"
#include "plan-object.h"

namespace tesra {
namespace {

// Frees device memory on every path.
struct Loan {
  const tesra_backend* backend;
  tesra_device* device;
  std::vector<void*> pointers;
  ~Loan() {
    for (void* p : pointers) backend->free(device, p);
  }
  int take(size_t bytes, void** out, tesra_error* error) {
    const int code = backend->alloc(device, bytes ? bytes : 4, out, error);
    if (code == TESRA_OK) pointers.push_back(*out);
    return code;
  }
};

// Host vectors an operation reads and writes, moved to the device when its memory is not ours.
struct Operand {
  void* host;
  size_t bytes;
  bool read, written;
};

template <class F>
int on_device(const tesra_backend* b, tesra_device* d, std::vector<Operand> operands,
              tesra_error* error, const F& make) {
  std::vector<void*> p;
  Loan loan{b, d, {}};
  for (const Operand& o : operands) {
    void* at = o.host;
    if (!b->host_memory) {
      if (loan.take(o.bytes, &at, error) != TESRA_OK) return error->code;
      if (o.read && o.bytes && b->upload(d, at, o.host, o.bytes, error) != TESRA_OK)
        return error->code;
    }
    p.push_back(at);
  }
  tesra_op op;
  std::memset(&op, 0, sizeof op);
  make(op, p);
  if (b->run_op(d, &op, error) != TESRA_OK) return error->code;
  if (!b->host_memory)
    for (size_t i = 0; i < operands.size(); ++i)
      if (operands[i].written && operands[i].bytes &&
          b->download(d, operands[i].host, p[i], operands[i].bytes, error) != TESRA_OK)
        return error->code;
  return TESRA_OK;
}

// ------------------------------------------------------------ optimizers

struct Update {
  int kind = 0;
  std::vector<View> vectors;  // p, g[, m[, v]]
  tesra_op op{};
};

// `arrays` takes what the vectors look into. Whatever runs JavaScript (getters of the list and of the
// options) comes before the first look: it could detach a buffer.
bool read_update(const Napi::CallbackInfo& info, Update* u, std::vector<Napi::Object>* arrays) {
  Napi::Env env = info.Env();
  std::string kind;
  if (!read_string(env, info[0], "kind", 16, &kind)) return false;
  size_t count = 0;
  if (kind == "sgd") u->kind = TESRA_OP_SGD, count = 2;
  else if (kind == "momentum") u->kind = TESRA_OP_MOMENTUM, count = 3;
  else if (kind == "adam") u->kind = TESRA_OP_ADAM, count = 4;
  else return throw_error(env, "argument", "kind must be sgd, momentum or adam"), false;
  static const char* const names[] = {"parameters", "gradient", "first moment", "second moment"};
  if (!info[1].IsArray() || info[1].As<Napi::Array>().Length() != count)
    return throw_error(env, "argument", kind + " takes " + std::to_string(count) + " vectors"), false;
  Napi::Array list = info[1].As<Napi::Array>();
  std::vector<Napi::Value> items;
  for (uint32_t i = 0; i < count; ++i) {
    items.push_back(list.Get(i));
    if (env.IsExceptionPending()) return false;
  }
  if (!read_optimizer(env, info[0], info[2], &u->op)) return false;
  for (uint32_t i = 0; i < count; ++i) {
    View v;
    if (!read_view(env, items[i], names[i], napi_float32_array, i ? u->vectors[0].length : SIZE_MAX,
                   &v))
      return false;
    for (const View& other : u->vectors)
      if (overlap(other, v))
        return throw_error(env, "argument", std::string(names[i]) + " overlaps another vector"), false;
    u->vectors.push_back(v);
    arrays->push_back(items[i].As<Napi::Object>());
  }
  return true;
}

int run_update(const tesra_backend* b, tesra_device* d, const Update& u, tesra_error* error) {
  std::vector<Operand> operands;
  for (size_t i = 0; i < u.vectors.size(); ++i)
    operands.push_back({u.vectors[i].data, u.vectors[i].bytes, true, i != 1});
  return on_device(b, d, operands, error, [&](tesra_op& op, const std::vector<void*>& p) {
    op = u.op;
    const int64_t n = static_cast<int64_t>(u.vectors[0].length);
    auto f = [&](size_t i) { return static_cast<float*>(p[i]); };
    if (u.kind == TESRA_OP_ADAM) {
      op.u.adam.n = n, op.u.adam.p = f(0), op.u.adam.g = f(1), op.u.adam.m = f(2), op.u.adam.v = f(3);
    } else {
      op.u.sgd.n = n, op.u.sgd.p = f(0), op.u.sgd.g = f(1);
      if (u.kind == TESRA_OP_MOMENTUM) op.u.sgd.m = f(2);
    }
  });
}

}  // namespace

// ------------------------------------------------------------ the class

bool read_optimizer(Napi::Env env, Napi::Value name, Napi::Value options, tesra_op* op) {
  std::string kind;
  if (!read_string(env, name, "kind", 16, &kind)) return false;
  if (kind == "sgd") op->kind = TESRA_OP_SGD;
  else if (kind == "momentum") op->kind = TESRA_OP_MOMENTUM;
  else if (kind == "adam") op->kind = TESRA_OP_ADAM;
  else return throw_error(env, "argument", "kind must be sgd, momentum or adam"), false;
  Napi::Object o;
  if (!read_object(env, options, "options", &o)) return false;
  const double zero = 0;
  double rate = 0, decay = 0;
  if (!number_property(env, o, "learningRate", nullptr, &rate) ||
      !number_property(env, o, "weightDecay", &zero, &decay))
    return false;
  if (decay < 0) return throw_error(env, "argument", "weightDecay must not be negative"), false;
  auto fraction = [&](const char* key, double* out) {
    if (!number_property(env, o, key, nullptr, out)) return false;
    if (*out >= 0 && *out < 1) return true;
    return throw_error(env, "argument", std::string(key) + " must be in [0, 1)"), false;
  };
  if (op->kind == TESRA_OP_ADAM) {
    tesra_adam& a = op->u.adam;
    double step = 0;
    if (!fraction("beta1", &a.beta1) || !fraction("beta2", &a.beta2) ||
        !number_property(env, o, "epsilon", nullptr, &a.epsilon) ||
        !integer_property(env, o, "step", 1, 16777216, nullptr, &step))
      return false;
    if (a.epsilon < 0) return throw_error(env, "argument", "epsilon must not be negative"), false;
    a.step = static_cast<uint32_t>(step);
    a.learning_rate = rate;
    a.weight_decay = decay;
  } else {
    tesra_sgd& s = op->u.sgd;
    s.learning_rate = rate;
    s.weight_decay = decay;
    if (op->kind == TESRA_OP_MOMENTUM) {
      bool nesterov = false;
      if (!fraction("momentum", &s.momentum) || !flag_property(env, o, "nesterov", &nesterov))
        return false;
      s.nesterov = nesterov;
    }
  }
  return true;
}

Napi::Function DeviceObject::define(Napi::Env env) {
  return DefineClass(env, "NativeDevice",
                     {InstanceMethod<&DeviceObject::describe>("describe"),
                      InstanceMethod<&DeviceObject::create_plan>("createPlan"),
                      InstanceMethod<&DeviceObject::apply>("apply"),
                      InstanceMethod<&DeviceObject::apply_async>("applyAsync"),
                      InstanceMethod<&DeviceObject::delay_compensate>("delayCompensate"),
                      InstanceMethod<&DeviceObject::is_finite>("isFinite"),
                      InstanceMethod<&DeviceObject::blake3>("blake3"),
                      InstanceMethod<&DeviceObject::crm_scan>("crmScan"),
                      InstanceMethod<&DeviceObject::crm_scan_async>("crmScanAsync"),
                      InstanceMethod<&DeviceObject::crm_challenge_async>("crmChallengeAsync"),
                      InstanceMethod<&DeviceObject::crm_tile>("crmTile"),
                      InstanceMethod<&DeviceObject::compress>("compress"),
                      InstanceMethod<&DeviceObject::decompress>("decompress"),
                      InstanceMethod<&DeviceObject::update_async>("updateAsync"),
                      InstanceMethod<&DeviceObject::mean_async>("meanAsync"),
                      InstanceMethod<&DeviceObject::largest_async>("largestAsync"),
                      InstanceMethod<&DeviceObject::delay_compensate_async>("delayCompensateAsync"),
                      InstanceMethod<&DeviceObject::compress_async>("compressAsync"),
                      InstanceMethod<&DeviceObject::decompress_async>("decompressAsync"),
                      InstanceMethod<&DeviceObject::blake3_async>("blake3Async"),
                      InstanceMethod<&DeviceObject::cn2_hash>("cn2Hash"),
                      InstanceMethod<&DeviceObject::cn2_scan_async>("cn2ScanAsync"),
                      InstanceMethod<&DeviceObject::int8_gemm>("int8Gemm"),
                      InstanceMethod<&DeviceObject::sgemm>("sgemm"),
                      InstanceMethod<&DeviceObject::close>("close")});
}

// new NativeDevice({ backend: "cpu" | "cuda", threads?, isa?, gpu? })
DeviceObject::DeviceObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<DeviceObject>(info) {
  Napi::Env env = info.Env();
  Napi::Object o;
  Napi::Value v;
  std::string backend, isa, gpu;
  const double zero = 0;
  double threads = 0;
  if (!read_object(env, info[0], "options", &o) || !read_property(env, o, "backend", &v) ||
      !read_string(env, v, "backend", 16, &backend) ||
      !integer_property(env, o, "threads", 0, 1024, &zero, &threads) ||
      !read_property(env, o, "isa", &v) ||
      (!v.IsUndefined() && !read_string(env, v, "isa", 16, &isa)) ||
      !read_property(env, o, "gpu", &v) ||
      (!v.IsUndefined() && !read_string(env, v, "gpu", 128, &gpu)))
    return;
  const tesra_backend* b = backend == "cpu"    ? tesra_cpu_backend()
                           : backend == "cuda" ? tesra_cuda_backend()
                                               : nullptr;
  if (!b) {
    throw_error(env, "argument", "backend must be cpu or cuda, but is " + backend);
    return;
  }
  if (b->abi != TESRA_ABI) {
    throw_error(env, "unsupported", "the back end was built for another version of the addon");
    return;
  }
  tesra_open options{static_cast<int32_t>(threads), 0, gpu.c_str()};
  if (isa == "scalar") options.isa = 1;
  else if (isa == "avx2") options.isa = 2;
  else if (isa == "avx512") options.isa = 3;
  else if (isa == "amx") options.isa = 4;
  else if (!isa.empty()) {
    throw_error(env, "argument", "isa must be scalar, avx2, avx512 or amx, but is " + isa);
    return;
  }
  tesra_error error{};
  tesra_device* device = nullptr;
  if (b->open(&options, &device, &error) != TESRA_OK) {
    throw_error(env, error);
    return;
  }
  tesra_device* side = nullptr;
  if (b->host_memory) {
    tesra_open one = options;
    one.threads = 1;
    if (b->open(&one, &side, &error) != TESRA_OK) {
      b->close(device);
      throw_error(env, error);
      return;
    }
  }
  core_ = std::make_shared<DeviceCore>(b, device, side);
  if (!core_->start(env)) {
    core_.reset();
    throw_error(env, "memory", "the device could not register with the event loop");
  }
}

bool DeviceObject::usable(Napi::Env env) {
  if (core_ && !core_->closed()) return true;
  throw_error(env, "closed", "the device is closed");
  return false;
}

Napi::Value DeviceObject::describe(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  if (!usable(env)) return env.Undefined();
  tesra_device_info d{};
  core_->backend->describe(core_->device, &d);
  Napi::Object o = Napi::Object::New(env);
  o.Set("backend", Napi::String::New(env, core_->backend->name));
  o.Set("isa", Napi::String::New(env, d.isa));
  o.Set("name", Napi::String::New(env, d.name));
  o.Set("threads", Napi::Number::New(env, d.threads));
  return o;
}

Napi::Value DeviceObject::create_plan(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  if (!usable(env)) return env.Undefined();
  Napi::Object plan = env.GetInstanceData<InstanceData>()->plan_constructor.New({});
  if (env.IsExceptionPending()) return env.Undefined();
  if (!PlanObject::Unwrap(plan)->build(env, core_, info[0], info[1])) return env.Undefined();
  return plan;
}

Napi::Value DeviceObject::apply(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  Update u;
  std::vector<Napi::Object> arrays;
  if (!usable(env) || !read_update(info, &u, &arrays)) return env.Undefined();
  tesra_error error{};
  core_->with_any([&](auto* b, auto* d) { return run_update(b, d, u, &error); });
  if (error.code != TESRA_OK) throw_error(env, error);
  return env.Undefined();
}

Napi::Value DeviceObject::apply_async(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  auto job = std::make_unique<Job>(env);
  Update u;
  std::vector<Napi::Object> arrays;
  if (!usable(env) || !read_update(info, &u, &arrays)) {
    job->deferred.Reject(env.GetAndClearPendingException().Value());
    return job->deferred.Promise();
  }
  job->kept.push_back(Napi::Persistent(Value()));
  for (const Napi::Object& array : arrays) job->kept.push_back(Napi::Persistent(array));
  std::shared_ptr<DeviceCore> core = core_;
  job->work = [core, u](tesra_error* error) {
    return run_update(core->backend, core->device, u, error);
  };
  return core_->submit(env, std::move(job));
}

// (g, wNow, wBase, lambda)
Napi::Value DeviceObject::delay_compensate(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  View g, now, base;
  double lambda = 0;
  if (!usable(env) || !read_view(env, info[0], "gradient", napi_float32_array, SIZE_MAX, &g) ||
      !read_view(env, info[1], "wNow", napi_float32_array, g.length, &now) ||
      !read_view(env, info[2], "wBase", napi_float32_array, g.length, &base) ||
      !read_number(env, info[3], "lambda", &lambda))
    return env.Undefined();
  if (overlap(g, now) || overlap(g, base))
    return throw_error(env, "argument", "the gradient overlaps a weight vector"), env.Undefined();
  tesra_error error{};
  core_->with_any([&](auto* b, auto* d) {
    return on_device(b, d,
                     {{g.data, g.bytes, true, true},
                      {now.data, now.bytes, true, false},
                      {base.data, base.bytes, true, false}},
                     &error, [&](tesra_op& op, const std::vector<void*>& p) {
                       op.kind = TESRA_OP_DELAY_COMPENSATE;
                       op.u.delay_compensate = {static_cast<float*>(p[0]),
                                                static_cast<float*>(p[1]),
                                                static_cast<float*>(p[2]),
                                                static_cast<int64_t>(g.length),
                                                static_cast<float>(lambda)};
                     });
  });
  if (error.code != TESRA_OK) throw_error(env, error);
  return env.Undefined();
}

Napi::Value DeviceObject::is_finite(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  View x;
  if (!usable(env) || !read_view(env, info[0], "x", napi_float32_array, SIZE_MAX, &x))
    return env.Undefined();
  int32_t out = 0;
  tesra_error error{};
  core_->with_any([&](auto* b, auto* d) {
    return on_device(b, d, {{x.data, x.bytes, true, false}, {&out, sizeof out, false, true}}, &error,
                     [&](tesra_op& op, const std::vector<void*>& p) {
                       op.kind = TESRA_OP_FINITE;
                       op.u.finite = {static_cast<float*>(p[0]), static_cast<int32_t*>(p[1]),
                                      static_cast<int64_t>(x.length)};
                     });
  });
  if (error.code != TESRA_OK) throw_error(env, error);
  return Napi::Boolean::New(env, out != 0);
}

// (data, key?) -> 32 bytes
Napi::Value DeviceObject::blake3(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  View data, key;
  const bool keyed = info.Length() > 1 && !info[1].IsUndefined();
  if (!usable(env) || !read_view(env, info[0], "data", napi_uint8_array, SIZE_MAX, &data) ||
      (keyed && !read_view(env, info[1], "key", napi_uint8_array, 32, &key)))
    return env.Undefined();
  Napi::Uint8Array out = Napi::Uint8Array::New(env, 32);
  if (env.IsExceptionPending()) return env.Undefined();
  tesra_error error{};
  tesra_blake3 args{data.data, data.length, keyed ? key.data : nullptr, out.Data()};
  core_->with_any([&](auto* b, auto* d) { return b->blake3(d, &args, &error); });
  if (error.code != TESRA_OK) throw_error(env, error);
  return out;
}

// (a, bT, {m, n, k}, out?) -> Int32Array m x n
Napi::Value DeviceObject::int8_gemm(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  int32_t m = 0, n = 0, k = 0;
  View a, b;
  if (!usable(env) || !read_dims(env, info[2], 0, &m, &n, &k)) return env.Undefined();
  if (k > TESRA_CRM_K_MAX)
    return throw_error(env, "shape", "k must be at most 65536, but is " + std::to_string(k)),
           env.Undefined();
  if (!read_view(env, info[0], "a", napi_int8_array, static_cast<size_t>(m) * k, &a) ||
      !read_view(env, info[1], "bT", napi_int8_array, static_cast<size_t>(n) * k, &b))
    return env.Undefined();
  if (static_cast<double>(m) * n > 1073741824.0)
    return throw_error(env, "shape", "the product has more than 2^30 elements"), env.Undefined();
  const size_t cells = static_cast<size_t>(m) * n;
  View c;
  Napi::Value out = info[3];
  if (out.IsUndefined()) out = Napi::Int32Array::New(env, cells);
  if (env.IsExceptionPending() || !read_view(env, out, "out", napi_int32_array, cells, &c))
    return env.Undefined();
  if (overlap(c, a) || overlap(c, b))
    return throw_error(env, "argument", "out overlaps an operand"), env.Undefined();
  tesra_error error{};
  tesra_int8_gemm args{reinterpret_cast<const int8_t*>(a.data),
                       reinterpret_cast<const int8_t*>(b.data), reinterpret_cast<int32_t*>(c.data),
                       m, n, k};
  core_->with_any([&](auto* back, auto* d) { return back->int8_gemm(d, &args, &error); });
  if (error.code != TESRA_OK) throw_error(env, error);
  return out;
}

// (a, b, {m, n, k}, {transA?, transB?, bias?, relu?, bf16?}) -> Float32Array m x n
Napi::Value DeviceObject::sgemm(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  int32_t m = 0, n = 0, k = 0;
  View a, b, bias;
  Napi::Object o;
  Napi::Value bias_value;
  bool trans_a = false, trans_b = false, relu = false, bf16 = false;
  if (!usable(env) || !read_dims(env, info[2], 0, &m, &n, &k) ||
      !read_object(env, info[3], "options", &o) || !flag_property(env, o, "transA", &trans_a) ||
      !flag_property(env, o, "transB", &trans_b) || !flag_property(env, o, "relu", &relu) ||
      !flag_property(env, o, "bf16", &bf16) || !read_property(env, o, "bias", &bias_value) ||
      !read_view(env, info[0], "a", napi_float32_array, static_cast<size_t>(m) * k, &a) ||
      !read_view(env, info[1], "b", napi_float32_array, static_cast<size_t>(k) * n, &b))
    return env.Undefined();
  const bool biased = !bias_value.IsUndefined();
  if (biased && !read_view(env, bias_value, "bias", napi_float32_array, static_cast<size_t>(n), &bias))
    return env.Undefined();
  if (static_cast<double>(m) * n > 1073741824.0)
    return throw_error(env, "shape", "the product has more than 2^30 elements"), env.Undefined();
  if (bf16 && k >= 1 << 30)
    return throw_error(env, "shape", "k must be below 2^30 in bf16"), env.Undefined();
  Napi::Float32Array out = Napi::Float32Array::New(env, static_cast<size_t>(m) * n);
  if (env.IsExceptionPending()) return env.Undefined();
  tesra_error error{};
  core_->with_any([&](auto* back, auto* d) {
    return on_device(back, d,
                     {{a.data, a.bytes, true, false},
                      {b.data, b.bytes, true, false},
                      {out.Data(), static_cast<size_t>(m) * n * 4, false, true},
                      {bias.data, bias.bytes, true, false}},
                     &error, [&](tesra_op& op, const std::vector<void*>& p) {
                       op.kind = bf16 ? TESRA_OP_BF16_GEMM : TESRA_OP_GEMM;
                       tesra_gemm& g = op.u.gemm;
                       g.a = static_cast<float*>(p[0]);
                       g.b = static_cast<float*>(p[1]);
                       g.bias = biased ? static_cast<float*>(p[3]) : nullptr;
                       g.c = static_cast<float*>(p[2]);
                       g.m = m, g.n = n, g.k = k;
                       g.trans_a = trans_a, g.trans_b = trans_b;
                       g.activation = relu ? TESRA_ACTIVATION_RELU : TESRA_ACTIVATION_NONE;
                     });
  });
  if (error.code != TESRA_OK) throw_error(env, error);
  return out;
}

void DeviceObject::close(const Napi::CallbackInfo&) {
  if (core_) core_->close();
}

}  // namespace tesra
