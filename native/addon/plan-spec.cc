#include "plan-spec.h"

#include <cmath>
#include <cstring>

#include "arguments.h"

namespace tesra {
namespace {

// Limits against hostile specs: far above any real step, far below what could overflow.
constexpr double kTensorsMax = 65536;
constexpr double kOpsMax = 65536;
constexpr double kDimensionMax = 2147483647;
constexpr uint32_t kRankMax = 8;
constexpr double kArenaBytesMax = 64.0 * 1024 * 1024 * 1024;
constexpr uint64_t kElementsMax = uint64_t{1} << 35;

// Reads one operation: its tensors, its attributes, and the checks that builders share.
class OpReader {
 public:
  OpReader(Napi::Env env, const std::vector<Tensor>& tensors, uint8_t* base, std::string name,
           int index)
      : env_(env), tensors_(tensors), base_(base), name_(std::move(name)), index_(index) {}

  bool fail(const char* code, const std::string& message) {
    if (ok_ && !env_.IsExceptionPending())
      make_error(env_, code, "operation " + std::to_string(index_) + " (" + name_ + "): " + message,
                 name_, index_)
          .ThrowAsJavaScriptException();
    ok_ = false;
    return false;
  }
  bool ok() const { return ok_; }
  bool check(bool condition, const std::string& message) {
    return condition || !ok_ ? ok_ : fail("shape", message + "; got " + shapes());
  }

  bool read_lists(Napi::Object op) {
    return read_list(op, "in", &in_) && read_list(op, "out", &out_) && read_attributes(op);
  }
  bool arity(size_t in_least, size_t in_most, size_t out) {
    if (in_.size() >= in_least && in_.size() <= in_most && out_.size() == out) return true;
    std::string want = std::to_string(in_least);
    if (in_most != in_least) want += " or " + std::to_string(in_most);
    return fail("argument", "takes " + want + " inputs and " + std::to_string(out) +
                                " outputs, but got " + std::to_string(in_.size()) + " and " +
                                std::to_string(out_.size()));
  }

  size_t inputs() const { return in_.size(); }
  const Tensor& in(size_t i) const { return tensors_[in_[i]]; }
  const Tensor& out(size_t i) const { return tensors_[out_[i]]; }

  template <class T>
  T* data(const Tensor& t) {
    return reinterpret_cast<T*>(base_ + t.offset);
  }
  float* f32(const Tensor& t) { return typed<float>(t, Dtype::f32, "f32"); }
  int32_t* i32(const Tensor& t) { return typed<int32_t>(t, Dtype::i32, "i32"); }
  uint8_t* u8(const Tensor& t) { return typed<uint8_t>(t, Dtype::u8, "u8"); }

  bool rank(const Tensor& t, size_t rank) {
    return check(t.shape.size() == rank,
                 t.name + " must have " + std::to_string(rank) + " dimensions");
  }
  bool elements(const Tensor& t, uint64_t n) {
    return check(t.elements == n, t.name + " must have " + std::to_string(n) + " elements");
  }
  bool shape(const Tensor& t, std::initializer_list<int64_t> want) {
    bool same = t.shape.size() == want.size();
    size_t i = 0;
    std::string text;
    for (int64_t d : want) {
      if (same && t.shape[i] != d) same = false;
      text += (i++ ? " x " : "") + std::to_string(d);
    }
    return check(same, t.name + " must be " + text);
  }

  // Numbers named in attrs; each is taken once, and leftovers are an error in finish().
  double number(const char* key, bool required, double fallback) {
    for (auto& a : attributes_)
      if (a.key == key) {
        a.used = true;
        return a.value;
      }
    if (required) fail("argument", std::string("attribute ") + key + " is missing");
    return fallback;
  }
  int32_t integer(const char* key, double low, double high, bool required, double fallback) {
    const double x = number(key, required, fallback);
    if (x != std::floor(x) || x < low || x > high)
      fail("argument", std::string("attribute ") + key + " must be an integer from " +
                           std::to_string(static_cast<int64_t>(low)) + " to " +
                           std::to_string(static_cast<int64_t>(high)) + ", but is " +
                           std::to_string(x));
    return ok_ ? static_cast<int32_t>(x) : 0;
  }
  uint8_t flag(const char* key) { return static_cast<uint8_t>(integer(key, 0, 1, false, 0)); }
  double at_least_zero(const char* key, bool required, double fallback) {
    const double x = number(key, required, fallback);
    if (!(x >= 0)) fail("argument", std::string("attribute ") + key + " must not be negative");
    return x;
  }
  double fraction(const char* key) {
    const double x = number(key, true, 0);
    if (!(x >= 0 && x < 1)) fail("argument", std::string("attribute ") + key + " must be in [0, 1)");
    return x;
  }

  // Each output may coincide exactly with the inputs that `same` names, and touch nothing else.
  bool separate(std::initializer_list<std::pair<size_t, size_t>> same = {}) {
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
  bool in_place(size_t o, size_t i) {
    if (out(o).offset == in(i).offset && out(o).bytes == in(i).bytes) return ok_;
    return fail("argument", "output " + out(o).name + " must be the same memory as input " +
                                in(i).name + ": the update is in place");
  }
  bool inputs_apart() {
    for (size_t i = 0; ok_ && i < in_.size(); ++i)
      for (size_t j = 0; j < i; ++j)
        if (touches(in(i), in(j)))
          return fail("argument", "inputs " + in(i).name + " and " + in(j).name + " overlap");
    return ok_;
  }

  bool finish() {
    for (auto& a : attributes_)
      if (ok_ && !a.used) return fail("argument", "attribute " + a.key + " is unknown");
    return ok_;
  }

 private:
  struct Attribute {
    std::string key;
    double value;
    bool used;
  };

  static bool touches(const Tensor& a, const Tensor& b) {
    return a.bytes && b.bytes && a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes;
  }
  template <class T>
  T* typed(const Tensor& t, Dtype want, const char* text) {
    if (t.dtype != want) fail("argument", t.name + " must be of type " + text);
    return data<T>(t);
  }
  std::string shapes() const {
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
  bool read_list(Napi::Object op, const char* key, std::vector<uint32_t>* out) {
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
  bool read_attributes(Napi::Object op) {
    Napi::Value v;
    if (!read_property(env_, op, "attrs", &v)) return ok_ = false;
    if (v.IsUndefined()) return true;
    Napi::Object o;
    if (!read_object(env_, v, "attrs", &o)) return ok_ = false;
    Napi::Array keys = o.GetPropertyNames();
    if (env_.IsExceptionPending() || keys.Length() > 16)
      return fail("argument", "attrs could not be read, or has more than 16 entries");
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

  Napi::Env env_;
  const std::vector<Tensor>& tensors_;
  uint8_t* base_;
  std::string name_;
  int index_;
  bool ok_ = true;
  std::vector<uint32_t> in_, out_;
  std::vector<Attribute> attributes_;
};

using Build = bool (*)(OpReader& r, tesra_op* op, double* macs);

constexpr double kSizeMax = 2147483647;

bool build_gemm(OpReader& r, tesra_op* op, double* macs) {
  if (!r.arity(2, 3, 1)) return false;
  tesra_gemm& g = op->u.gemm;
  g.trans_a = r.flag("transA");
  g.trans_b = r.flag("transB");
  g.relu = r.flag("relu");
  g.accumulate = r.flag("accumulate");
  const Tensor &a = r.in(0), &b = r.in(1), &c = r.out(0);
  if (!r.ok() || !r.rank(a, 2) || !r.rank(b, 2) || !r.rank(c, 2)) return false;
  const int64_t m = a.shape[g.trans_a], k = a.shape[1 - g.trans_a], n = b.shape[1 - g.trans_b];
  if (!r.check(b.shape[g.trans_b] == k, "inner sizes differ") || !r.shape(c, {m, n})) return false;
  if (r.inputs() == 3 && !r.elements(r.in(2), static_cast<uint64_t>(n))) return false;
  g.a = r.f32(a);
  g.b = r.f32(b);
  g.bias = r.inputs() == 3 ? r.f32(r.in(2)) : nullptr;
  g.c = r.f32(c);
  g.m = static_cast<int32_t>(m);
  g.n = static_cast<int32_t>(n);
  g.k = static_cast<int32_t>(k);
  *macs = static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
  return r.separate();
}

bool build_bias_grad(OpReader& r, tesra_op* op, double*) {
  if (!r.arity(1, 1, 1)) return false;
  const Tensor& dy = r.in(0);
  if (!r.check(!dy.shape.empty(), "dY must have at least one dimension")) return false;
  const int64_t n = dy.shape.back();
  tesra_bias_grad& b = op->u.bias_grad;
  if (!r.elements(r.out(0), static_cast<uint64_t>(n))) return false;
  b.dy = r.f32(dy);
  b.db = r.f32(r.out(0));
  b.n = static_cast<int32_t>(n);
  b.m = n ? static_cast<int64_t>(dy.elements) / n : 0;
  return r.separate();
}

bool build_map(OpReader& r, tesra_op* op, size_t inputs) {
  if (!r.arity(inputs, inputs, 1)) return false;
  tesra_map& m = op->u.map;
  const uint64_t n = r.out(0).elements;
  for (size_t i = 0; i < inputs; ++i)
    if (!r.elements(r.in(i), n)) return false;
  m.x = r.f32(r.in(0));
  m.y = inputs == 2 ? r.f32(r.in(1)) : nullptr;
  m.out = r.f32(r.out(0));
  m.n = static_cast<int64_t>(n);
  return r.separate({{0, 0}, {0, 1}});
}
bool build_one(OpReader& r, tesra_op* op, double*) { return build_map(r, op, 1); }
bool build_two(OpReader& r, tesra_op* op, double*) { return build_map(r, op, 2); }
bool build_scale(OpReader& r, tesra_op* op, double*) {
  op->u.map.alpha = static_cast<float>(r.number("alpha", false, 1));
  op->u.map.beta = static_cast<float>(r.number("beta", false, 0));
  return build_map(r, op, 1);
}

bool build_u8(OpReader& r, tesra_op* op, double*) {
  if (!r.arity(1, 1, 1) || !r.elements(r.in(0), r.out(0).elements)) return false;
  tesra_u8_to_f32& u = op->u.u8_to_f32;
  u.x = r.u8(r.in(0));
  u.out = r.f32(r.out(0));
  u.n = static_cast<int64_t>(r.out(0).elements);
  u.scale = static_cast<float>(r.number("scale", false, 1));
  u.shift = static_cast<float>(r.number("shift", false, 0));
  return r.separate();
}

bool build_finite(OpReader& r, tesra_op* op, double*) {
  if (!r.arity(1, 1, 1) || !r.elements(r.out(0), 1)) return false;
  tesra_finite& f = op->u.finite;
  f.x = r.f32(r.in(0));
  f.out = r.i32(r.out(0));
  f.n = static_cast<int64_t>(r.in(0).elements);
  return r.separate();
}

// x (n,h,w,c), w (kh,kw,c,oc), y (n,oh,ow,oc)
bool conv_geometry(OpReader& r, tesra_conv& c, const std::vector<int64_t>& x,
                   const std::vector<int64_t>& w, const std::vector<int64_t>& y, double* macs) {
  c.stride_h = r.integer("strideH", 1, 1 << 16, false, 1);
  c.stride_w = r.integer("strideW", 1, 1 << 16, false, 1);
  c.pad_h = r.integer("padH", 0, 1 << 16, false, 0);
  c.pad_w = r.integer("padW", 0, 1 << 16, false, 0);
  if (!r.ok()) return false;
  if (!r.check(w[0] >= 1 && w[1] >= 1, "the kernel must be at least 1 x 1") ||
      !r.check(c.pad_h < w[0] && c.pad_w < w[1], "padding must be smaller than the kernel") ||
      !r.check(w[2] == x[3], "channels of images and weights differ"))
    return false;
  const int64_t h = x[1] + 2 * c.pad_h - w[0], v = x[2] + 2 * c.pad_w - w[1];
  if (!r.check(h >= 0 && v >= 0, "the kernel is larger than the padded image")) return false;
  const int64_t oh = h / c.stride_h + 1, ow = v / c.stride_w + 1;
  if (!r.check(y[0] == x[0] && y[1] == oh && y[2] == ow && y[3] == w[3],
               "the output must be " + std::to_string(x[0]) + " x " + std::to_string(oh) + " x " +
                   std::to_string(ow) + " x " + std::to_string(w[3])))
    return false;
  const double rows = static_cast<double>(x[0]) * static_cast<double>(oh) * static_cast<double>(ow);
  const double depth = static_cast<double>(w[0]) * static_cast<double>(w[1] * w[2]);
  const double padded = static_cast<double>(x[0]) * static_cast<double>(x[1] + 2 * c.pad_h) *
                        static_cast<double>((x[2] + 2 * c.pad_w) * x[3]);
  if (!r.check(depth <= kSizeMax && static_cast<double>(w[0] * w[1]) * w[3] <= kSizeMax &&
                   padded <= 4.0 * kSizeMax,
               "the convolution is too large"))
    return false;
  c.n = static_cast<int32_t>(x[0]);
  c.h = static_cast<int32_t>(x[1]);
  c.w_ = static_cast<int32_t>(x[2]);
  c.c = static_cast<int32_t>(x[3]);
  c.kh = static_cast<int32_t>(w[0]);
  c.kw = static_cast<int32_t>(w[1]);
  c.oc = static_cast<int32_t>(w[3]);
  c.oh = static_cast<int32_t>(oh);
  c.ow = static_cast<int32_t>(ow);
  *macs = rows * depth * static_cast<double>(w[3]);
  return true;
}

bool build_conv(OpReader& r, tesra_op* op, double* macs) {
  if (!r.arity(2, 3, 1)) return false;
  tesra_conv& c = op->u.conv;
  c.relu = r.flag("relu");
  const Tensor &x = r.in(0), &w = r.in(1), &y = r.out(0);
  if (!r.rank(x, 4) || !r.rank(w, 4) || !r.rank(y, 4) ||
      !conv_geometry(r, c, x.shape, w.shape, y.shape, macs))
    return false;
  if (r.inputs() == 3 && !r.elements(r.in(2), static_cast<uint64_t>(c.oc))) return false;
  c.x = r.f32(x);
  c.w = r.f32(w);
  c.bias = r.inputs() == 3 ? r.f32(r.in(2)) : nullptr;
  c.out = r.f32(y);
  return r.separate();
}

bool build_conv_dx(OpReader& r, tesra_op* op, double* macs) {
  if (!r.arity(2, 2, 1)) return false;
  tesra_conv& c = op->u.conv;
  r.flag("relu");  // "same attributes as the forward operation": means nothing here
  const Tensor &dy = r.in(0), &w = r.in(1), &dx = r.out(0);
  if (!r.rank(dy, 4) || !r.rank(w, 4) || !r.rank(dx, 4) ||
      !conv_geometry(r, c, dx.shape, w.shape, dy.shape, macs))
    return false;
  c.dy = r.f32(dy);
  c.w = r.f32(w);
  c.out = r.f32(dx);
  return r.separate();
}

bool build_conv_dw(OpReader& r, tesra_op* op, double* macs) {
  if (!r.arity(2, 2, 1)) return false;
  tesra_conv& c = op->u.conv;
  r.flag("relu");
  const Tensor &x = r.in(0), &dy = r.in(1), &dw = r.out(0);
  if (!r.rank(x, 4) || !r.rank(dy, 4) || !r.rank(dw, 4) ||
      !conv_geometry(r, c, x.shape, dw.shape, dy.shape, macs))
    return false;
  c.x = r.f32(x);
  c.dy = r.f32(dy);
  c.out = r.f32(dw);
  return r.separate();
}

bool pool_geometry(OpReader& r, tesra_pool& p, const Tensor& x, const Tensor& y) {
  if (!r.rank(x, 4) || !r.rank(y, 4)) return false;
  p.kernel = r.integer("kernel", 1, 4096, true, 1);
  p.stride = r.integer("stride", 1, 4096, false, p.kernel ? p.kernel : 1);
  if (!r.ok() || !r.check(x.shape[1] >= p.kernel && x.shape[2] >= p.kernel,
                          "the window is larger than the image"))
    return false;
  const int64_t oh = (x.shape[1] - p.kernel) / p.stride + 1;
  const int64_t ow = (x.shape[2] - p.kernel) / p.stride + 1;
  if (!r.shape(y, {x.shape[0], oh, ow, x.shape[3]}) ||
      !r.check(x.elements <= static_cast<uint64_t>(kSizeMax), "the images are too large"))
    return false;
  p.n = static_cast<int32_t>(x.shape[0]);
  p.h = static_cast<int32_t>(x.shape[1]);
  p.w = static_cast<int32_t>(x.shape[2]);
  p.c = static_cast<int32_t>(x.shape[3]);
  p.oh = static_cast<int32_t>(oh);
  p.ow = static_cast<int32_t>(ow);
  return true;
}

bool build_maxpool(OpReader& r, tesra_op* op, double*) {
  tesra_pool& p = op->u.pool;
  if (!r.arity(1, 1, 2) || !pool_geometry(r, p, r.in(0), r.out(0)) ||
      !r.elements(r.out(1), r.out(0).elements))
    return false;
  p.x = r.f32(r.in(0));
  p.out = r.f32(r.out(0));
  p.index_out = r.i32(r.out(1));
  return r.separate();
}
bool build_maxpool_grad(OpReader& r, tesra_op* op, double*) {
  tesra_pool& p = op->u.pool;
  if (!r.arity(2, 2, 1) || !pool_geometry(r, p, r.out(0), r.in(0)) ||
      !r.elements(r.in(1), r.in(0).elements))
    return false;
  p.dy = r.f32(r.in(0));
  p.index = r.i32(r.in(1));
  p.out = r.f32(r.out(0));
  return r.separate();
}
bool build_avgpool(OpReader& r, tesra_op* op, double*) {
  tesra_pool& p = op->u.pool;
  if (!r.arity(1, 1, 1) || !pool_geometry(r, p, r.in(0), r.out(0))) return false;
  p.x = r.f32(r.in(0));
  p.out = r.f32(r.out(0));
  return r.separate();
}
bool build_avgpool_grad(OpReader& r, tesra_op* op, double*) {
  tesra_pool& p = op->u.pool;
  if (!r.arity(1, 1, 1) || !pool_geometry(r, p, r.out(0), r.in(0))) return false;
  p.dy = r.f32(r.in(0));
  p.out = r.f32(r.out(0));
  return r.separate();
}

bool build_softmax_xent(OpReader& r, tesra_op* op, double*) {
  if (!r.arity(2, 2, 2)) return false;
  const Tensor& x = r.in(0);
  if (!r.rank(x, 2) || !r.check(x.shape[1] >= 1, "there must be a class") ||
      !r.elements(r.in(1), static_cast<uint64_t>(x.shape[0])) || !r.elements(r.out(0), 1) ||
      !r.elements(r.out(1), x.elements))
    return false;
  tesra_softmax_xent& s = op->u.softmax_xent;
  s.logits = r.f32(x);
  s.labels = r.i32(r.in(1));
  s.loss = r.f32(r.out(0));
  s.dlogits = r.f32(r.out(1));
  s.rows = static_cast<int32_t>(x.shape[0]);
  s.classes = static_cast<int32_t>(x.shape[1]);
  return r.separate();
}

bool build_count_correct(OpReader& r, tesra_op* op, double*) {
  if (!r.arity(2, 2, 1)) return false;
  const Tensor& x = r.in(0);
  if (!r.rank(x, 2) || !r.check(x.shape[1] >= 1, "there must be a class") ||
      !r.elements(r.in(1), static_cast<uint64_t>(x.shape[0])) || !r.elements(r.out(0), 1))
    return false;
  tesra_count_correct& c = op->u.count_correct;
  c.logits = r.f32(x);
  c.labels = r.i32(r.in(1));
  c.count = r.f32(r.out(0));
  c.rows = static_cast<int32_t>(x.shape[0]);
  c.classes = static_cast<int32_t>(x.shape[1]);
  return r.separate();
}

bool build_sgd(OpReader& r, tesra_op* op, double*) {
  if (!r.arity(2, 2, 1) || !r.elements(r.in(1), r.in(0).elements)) return false;
  tesra_sgd& s = op->u.sgd;
  s.p = r.f32(r.in(0));
  s.g = r.f32(r.in(1));
  r.f32(r.out(0));
  s.n = static_cast<int64_t>(r.in(0).elements);
  s.learning_rate = r.number("learningRate", true, 0);
  s.weight_decay = r.at_least_zero("weightDecay", false, 0);
  return r.in_place(0, 0) && r.inputs_apart();
}

bool build_momentum(OpReader& r, tesra_op* op, double*) {
  if (!r.arity(3, 3, 2)) return false;
  for (size_t i = 1; i < 3; ++i)
    if (!r.elements(r.in(i), r.in(0).elements)) return false;
  tesra_sgd& s = op->u.sgd;
  s.p = r.f32(r.in(0));
  s.g = r.f32(r.in(1));
  s.m = r.f32(r.in(2));
  r.f32(r.out(0));
  r.f32(r.out(1));
  s.n = static_cast<int64_t>(r.in(0).elements);
  s.learning_rate = r.number("learningRate", true, 0);
  s.weight_decay = r.at_least_zero("weightDecay", false, 0);
  s.momentum = r.fraction("momentum");
  s.nesterov = r.flag("nesterov");
  return r.in_place(0, 0) && r.in_place(1, 2) && r.inputs_apart();
}

bool build_adam(OpReader& r, tesra_op* op, double*) {
  if (!r.arity(5, 5, 4)) return false;
  for (size_t i = 1; i < 4; ++i)
    if (!r.elements(r.in(i), r.in(0).elements)) return false;
  if (!r.elements(r.in(4), 1)) return false;
  tesra_adam& a = op->u.adam;
  a.p = r.f32(r.in(0));
  a.g = r.f32(r.in(1));
  a.m = r.f32(r.in(2));
  a.v = r.f32(r.in(3));
  a.step_counter = r.f32(r.in(4));
  for (size_t i = 0; i < 4; ++i) r.f32(r.out(i));
  a.n = static_cast<int64_t>(r.in(0).elements);
  a.learning_rate = r.number("learningRate", true, 0);
  a.beta1 = r.fraction("beta1");
  a.beta2 = r.fraction("beta2");
  a.epsilon = r.at_least_zero("epsilon", true, 0);
  a.weight_decay = r.at_least_zero("weightDecay", false, 0);
  return r.in_place(0, 0) && r.in_place(1, 2) && r.in_place(2, 3) && r.in_place(3, 4) &&
         r.inputs_apart();
}

bool build_delay(OpReader& r, tesra_op* op, double*) {
  if (!r.arity(3, 3, 1)) return false;
  for (size_t i = 1; i < 3; ++i)
    if (!r.elements(r.in(i), r.in(0).elements)) return false;
  tesra_delay_compensate& d = op->u.delay_compensate;
  d.g = r.f32(r.in(0));
  d.w_now = r.f32(r.in(1));
  d.w_base = r.f32(r.in(2));
  r.f32(r.out(0));
  d.n = static_cast<int64_t>(r.in(0).elements);
  d.lambda = static_cast<float>(r.number("lambda", true, 0));
  return r.in_place(0, 0) && r.separate({{0, 0}});
}

struct OpEntry {
  const char* name;
  tesra_op_kind kind;
  Build build;
};

const OpEntry kOps[] = {
    {"gemm", TESRA_OP_GEMM, build_gemm},
    {"bias_grad", TESRA_OP_BIAS_GRAD, build_bias_grad},
    {"relu", TESRA_OP_RELU, build_one},
    {"relu_grad", TESRA_OP_RELU_GRAD, build_two},
    {"add", TESRA_OP_ADD, build_two},
    {"scale", TESRA_OP_SCALE, build_scale},
    {"u8_to_f32", TESRA_OP_U8_TO_F32, build_u8},
    {"finite", TESRA_OP_FINITE, build_finite},
    {"conv2d", TESRA_OP_CONV2D, build_conv},
    {"conv2d_dx", TESRA_OP_CONV2D_DX, build_conv_dx},
    {"conv2d_dw", TESRA_OP_CONV2D_DW, build_conv_dw},
    {"maxpool", TESRA_OP_MAXPOOL, build_maxpool},
    {"maxpool_grad", TESRA_OP_MAXPOOL_GRAD, build_maxpool_grad},
    {"avgpool", TESRA_OP_AVGPOOL, build_avgpool},
    {"avgpool_grad", TESRA_OP_AVGPOOL_GRAD, build_avgpool_grad},
    {"softmax_xent", TESRA_OP_SOFTMAX_XENT, build_softmax_xent},
    {"count_correct", TESRA_OP_COUNT_CORRECT, build_count_correct},
    {"sgd", TESRA_OP_SGD, build_sgd},
    {"momentum", TESRA_OP_MOMENTUM, build_momentum},
    {"adam", TESRA_OP_ADAM, build_adam},
    {"delay_compensate", TESRA_OP_DELAY_COMPENSATE, build_delay},
};

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
    const OpEntry* entry = nullptr;
    for (const OpEntry& e : kOps)
      if (name == e.name) entry = &e;
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
