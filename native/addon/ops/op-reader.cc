#include "op-reader.h"

#include <cmath>

#include "../arguments.h"

namespace tesra {
namespace {

constexpr uint32_t kAttributesMax = 24;  // a copy has 22

bool touches(const Tensor& a, const Tensor& b) {
  return a.bytes && b.bytes && a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes;
}

}  // namespace

bool OpReader::read_lists(Napi::Object op) {
  return read_list(op, "in", &in_) && read_list(op, "out", &out_) && read_attributes(op);
}

bool OpReader::finish() {
  for (auto& a : attributes_)
    if (ok_ && !a.used) return fail("argument", "attribute " + a.key + " is unknown");
  return ok_;
}

bool OpReader::fail(const char* code, const std::string& message) {
  if (ok_ && !env_.IsExceptionPending())
    make_error(env_, code, "operation " + std::to_string(index_) + " (" + name_ + "): " + message,
               name_, index_)
        .ThrowAsJavaScriptException();
  ok_ = false;
  return false;
}

bool OpReader::check(bool condition, const std::string& message) {
  return condition || !ok_ ? ok_ : fail("shape", message + "; got " + shapes());
}

bool OpReader::arity(size_t in_least, size_t in_most, size_t out) {
  if (in_.size() >= in_least && in_.size() <= in_most && out_.size() == out) return true;
  std::string want = std::to_string(in_least);
  if (in_most != in_least) want += " or " + std::to_string(in_most);
  return fail("argument", "takes " + want + " inputs and " + std::to_string(out) +
                              " outputs, but got " + std::to_string(in_.size()) + " and " +
                              std::to_string(out_.size()));
}

bool OpReader::rank(const Tensor& t, size_t rank) {
  return check(t.shape.size() == rank,
               t.name + " must have " + std::to_string(rank) + " dimensions");
}

bool OpReader::elements(const Tensor& t, uint64_t n) {
  return check(t.elements == n, t.name + " must have " + std::to_string(n) + " elements");
}

bool OpReader::shape(const Tensor& t, std::initializer_list<int64_t> want) {
  bool same = t.shape.size() == want.size();
  size_t i = 0;
  std::string text;
  for (int64_t d : want) {
    if (same && t.shape[i] != d) same = false;
    text += (i++ ? " x " : "") + std::to_string(d);
  }
  return check(same, t.name + " must be " + text);
}

double OpReader::number(const char* key, bool required, double fallback) {
  for (auto& a : attributes_)
    if (a.key == key) {
      a.used = true;
      return a.value;
    }
  if (required) fail("argument", std::string("attribute ") + key + " is missing");
  return fallback;
}

int32_t OpReader::integer(const char* key, double low, double high, bool required, double fallback) {
  const double x = number(key, required, fallback);
  if (x != std::floor(x) || x < low || x > high)
    fail("argument", std::string("attribute ") + key + " must be an integer from " +
                         std::to_string(static_cast<int64_t>(low)) + " to " +
                         std::to_string(static_cast<int64_t>(high)) + ", but is " +
                         std::to_string(x));
  return ok_ ? static_cast<int32_t>(x) : 0;
}

int64_t OpReader::count(const char* key, double most, double fallback) {
  const double x = number(key, false, fallback);
  if (!(x >= 0 && x <= most && x == std::floor(x))) {
    fail("argument", std::string("attribute ") + key + " must be a whole number from 0 to " +
                         std::to_string(static_cast<int64_t>(most)));
    return 0;
  }
  return static_cast<int64_t>(x);
}

uint32_t OpReader::word(const char* key) {
  const double x = number(key, false, 0);
  if (!(x >= 0 && x <= 4294967295.0 && x == std::floor(x))) {
    fail("argument", std::string("attribute ") + key + " must be a 32-bit word");
    return 0;
  }
  return static_cast<uint32_t>(x);
}

double OpReader::at_least_zero(const char* key, bool required, double fallback) {
  const double x = number(key, required, fallback);
  if (!(x >= 0)) fail("argument", std::string("attribute ") + key + " must not be negative");
  return x;
}

double OpReader::fraction(const char* key) {
  const double x = number(key, true, 0);
  if (!(x >= 0 && x < 1)) fail("argument", std::string("attribute ") + key + " must be in [0, 1)");
  return x;
}

bool OpReader::separate(std::initializer_list<std::pair<size_t, size_t>> same) {
  for (size_t o = 0; ok_ && o < out_.size(); ++o) {
    for (size_t i = 0; i < in_.size(); ++i) {
      bool may = false;
      for (auto& p : same) may = may || (p.first == o && p.second == i);
      const Tensor &a = out(o), &b = in(i);
      const bool identical = a.offset == b.offset && a.bytes == b.bytes;
      if (touches(a, b) && !(may && identical))
        return fail("argument", "output " + a.name + " overlaps input " + b.name);
    }
    for (size_t p = 0; p < o; ++p)
      if (touches(out(o), out(p)))
        return fail("argument", "outputs " + out(o).name + " and " + out(p).name + " overlap");
  }
  return ok_;
}

bool OpReader::in_place(size_t o, size_t i) {
  if (out(o).offset == in(i).offset && out(o).bytes == in(i).bytes) return ok_;
  return fail("argument", "output " + out(o).name + " must be the same memory as input " +
                              in(i).name + ": the update is in place");
}

bool OpReader::inputs_apart() {
  for (size_t i = 0; ok_ && i < in_.size(); ++i)
    for (size_t j = 0; j < i; ++j)
      if (touches(in(i), in(j)))
        return fail("argument", "inputs " + in(i).name + " and " + in(j).name + " overlap");
  return ok_;
}

std::string OpReader::shapes() const {
  std::string s;
  auto list = [&](const std::vector<uint32_t>& ids) {
    for (uint32_t id : ids) {
      s += " " + tensors_[id].name + "(";
      for (size_t i = 0; i < tensors_[id].shape.size(); ++i)
        s += (i ? "," : "") + std::to_string(tensors_[id].shape[i]);
      s += ")";
    }
  };
  s = "in:";
  list(in_);
  s += " out:";
  list(out_);
  return s;
}

bool OpReader::read_list(Napi::Object op, const char* key, std::vector<uint32_t>* out) {
  Napi::Value v;
  if (!read_property(env_, op, key, &v)) return ok_ = false;
  if (!v.IsArray()) return fail("argument", std::string(key) + " must be an array");
  Napi::Array a = v.As<Napi::Array>();
  if (a.Length() > 8) return fail("argument", std::string(key) + " has more than 8 entries");
  for (uint32_t i = 0; i < a.Length(); ++i) {
    double x = 0;
    Napi::Value item = a.Get(i);
    if (env_.IsExceptionPending() ||
        !read_integer(env_, item, key, 0, static_cast<double>(tensors_.size()) - 1, &x))
      return ok_ = false;
    out->push_back(static_cast<uint32_t>(x));
  }
  return true;
}

bool OpReader::read_attributes(Napi::Object op) {
  Napi::Value v;
  if (!read_property(env_, op, "attrs", &v)) return ok_ = false;
  if (v.IsUndefined()) return true;
  Napi::Object o;
  if (!read_object(env_, v, "attrs", &o)) return ok_ = false;
  Napi::Array keys = o.GetPropertyNames();
  if (env_.IsExceptionPending() || keys.Length() > kAttributesMax)
    return fail("argument", "attrs could not be read, or has more than " + std::to_string(kAttributesMax) + " entries");
  for (uint32_t i = 0; i < keys.Length(); ++i) {
    std::string key;
    if (!read_string(env_, keys.Get(i), "attribute name", 64, &key)) return ok_ = false;
    Napi::Value item;
    if (!read_property(env_, o, key.c_str(), &item)) return ok_ = false;
    if (item.IsUndefined()) continue;
    double x = 0;
    if (!read_number(env_, item, key.c_str(), &x)) return ok_ = false;
    attributes_.push_back({key, x, false});
  }
  return true;
}

}  // namespace tesra
