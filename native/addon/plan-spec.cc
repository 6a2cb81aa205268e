#include "plan-spec.h"

#include <cstring>

#include "arguments.h"
#include "ops/op-reader.h"

namespace tesra {
namespace {

// Limits against hostile specs: far above any real step, far below what could overflow.
constexpr double kTensorsMax = 65536;
constexpr double kOpsMax = 65536;
constexpr double kDimensionMax = 2147483647;
constexpr uint32_t kRankMax = 8;
constexpr double kArenaBytesMax = 64.0 * 1024 * 1024 * 1024;
constexpr uint64_t kElementsMax = uint64_t{1} << 35;

bool parse_tensor(Napi::Env env, Napi::Value value, uint32_t index, double arena, Tensor* t) {
  const std::string label = "tensors[" + std::to_string(index) + "]";
  Napi::Object o;
  Napi::Value v;
  std::string dtype;
  if (!read_object(env, value, label.c_str(), &o) || !read_property(env, o, "name", &v) ||
      !read_string(env, v, "name", 256, &t->name) || !read_property(env, o, "dtype", &v) ||
      !read_string(env, v, "dtype", 8, &dtype) || !read_property(env, o, "shape", &v))
    return false;
  const std::string who = label + " (" + t->name + ")";
  if (dtype == "f32") t->dtype = Dtype::f32;
  else if (dtype == "i32") t->dtype = Dtype::i32;
  else if (dtype == "u8") t->dtype = Dtype::u8;
  else return throw_error(env, "argument", who + ": dtype must be f32, i32 or u8"), false;
  if (!v.IsArray() || v.As<Napi::Array>().Length() > kRankMax)
    return throw_error(env, "argument", who + ": shape must be an array of at most 8 sizes"), false;
  Napi::Array shape = v.As<Napi::Array>();
  t->elements = 1;
  bool zero = false;
  for (uint32_t i = 0; i < shape.Length(); ++i) {
    double d = 0;
    Napi::Value item = shape.Get(i);
    if (env.IsExceptionPending() ||
        !read_integer(env, item, (who + " shape").c_str(), 0, kDimensionMax, &d))
      return false;
    t->shape.push_back(static_cast<int64_t>(d));
    if (d == 0) zero = true;
    else t->elements *= static_cast<uint64_t>(d);
    if (t->elements > kElementsMax)
      return throw_error(env, "shape", who + ": more than 2^35 elements"), false;
  }
  if (zero) t->elements = 0;
  t->bytes = t->elements * (t->dtype == Dtype::u8 ? 1 : 4);
  double offset = 0;
  if (!integer_property(env, o, "offsetBytes", 0, arena, nullptr, &offset)) return false;
  t->offset = static_cast<uint64_t>(offset);
  if (t->offset % TESRA_ALIGNMENT != 0)
    return throw_error(env, "argument", who + ": offsetBytes must be a multiple of 64"), false;
  if (t->offset + t->bytes > static_cast<uint64_t>(arena))
    return throw_error(env, "shape", who + ": ends at byte " + std::to_string(t->offset + t->bytes) +
                                         ", beyond arenaBytes"),
           false;
  return true;
}

const OpEntry* find_op(const std::string& name) {
  for (const OpTable& table :
       {product_ops(), elementwise_ops(), image_ops(), loss_ops(), optimizer_ops(),
        transformer_ops(), layout_ops()})
    for (size_t i = 0; i < table.count; ++i)
      if (name == table.entries[i].name) return &table.entries[i];
  return nullptr;
}

}  // namespace

bool parse_plan(Napi::Env env, Napi::Value spec, AllocateArena allocate, void* context,
                ParsedPlan* out) {
  Napi::Object o;
  Napi::Value tensors, ops;
  double arena = 0;
  if (!read_object(env, spec, "the plan", &o) ||
      !integer_property(env, o, "arenaBytes", 0, kArenaBytesMax, nullptr, &arena) ||
      !read_property(env, o, "tensors", &tensors) || !read_property(env, o, "ops", &ops))
    return false;
  if (!tensors.IsArray() || tensors.As<Napi::Array>().Length() > kTensorsMax || !ops.IsArray() ||
      ops.As<Napi::Array>().Length() > kOpsMax)
    return throw_error(env, "argument", "tensors and ops must be arrays of at most 65536 entries"),
           false;
  out->arena_bytes = static_cast<uint64_t>(arena);
  Napi::Array list = tensors.As<Napi::Array>();
  for (uint32_t i = 0; i < list.Length(); ++i) {
    Napi::HandleScope scope(env);
    Tensor t;
    Napi::Value item = list.Get(i);
    if (env.IsExceptionPending() || !parse_tensor(env, item, i, arena, &t)) return false;
    out->tensors.push_back(std::move(t));
  }
  uint8_t* base = nullptr;
  if (!allocate(context, out->arena_bytes, &base)) return false;
  list = ops.As<Napi::Array>();
  for (uint32_t i = 0; i < list.Length(); ++i) {
    Napi::HandleScope scope(env);
    Napi::Object item;
    Napi::Value v;
    std::string name;
    Napi::Value element = list.Get(i);
    if (env.IsExceptionPending() ||
        !read_object(env, element, ("ops[" + std::to_string(i) + "]").c_str(), &item) ||
        !read_property(env, item, "op", &v) || !read_string(env, v, "op", 64, &name))
      return false;
    const OpEntry* entry = find_op(name);
    if (!entry) {
      make_error(env, "unsupported", "operation " + std::to_string(i) + ": there is no op " + name,
                 name, static_cast<int>(i))
          .ThrowAsJavaScriptException();
      return false;
    }
    tesra_op op;
    std::memset(&op, 0, sizeof op);
    op.kind = entry->kind;
    double macs = 0;
    OpReader reader(env, out->tensors, base, name, static_cast<int>(i));
    if (!reader.read_lists(item) || !entry->build(reader, &op, &macs) || !reader.finish()) {
      if (!env.IsExceptionPending())
        reader.fail("argument", "is invalid"), throw_error(env, "argument", name + " is invalid");
      return false;
    }
    out->ops.push_back(op);
    out->multiply_adds += macs;
  }
  return !env.IsExceptionPending();
}

}  // namespace tesra
