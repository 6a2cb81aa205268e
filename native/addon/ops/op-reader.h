// Owns: what every plan operation's builder is given: the reader of one operation's tensors and
// attributes, with the checks that builders share, and the table that a family of builders makes.
// Invariant: the first failure is the one that JavaScript sees; later checks do nothing.
#pragma once
#include <cstddef>
#include <initializer_list>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "../plan-spec.h"

namespace tesra {

// Sizes that the kernels hold in int32.
constexpr double kSizeMax = 2147483647;

class OpReader {
 public:
  OpReader(Napi::Env env, const std::vector<Tensor>& tensors, uint8_t* base, std::string name,
           int index)
      : env_(env), tensors_(tensors), base_(base), name_(std::move(name)), index_(index) {}

  bool read_lists(Napi::Object op);
  bool finish();  // fails on an attribute that no builder asked for

  bool fail(const char* code, const std::string& message);
  bool ok() const { return ok_; }
  bool check(bool condition, const std::string& message);
  bool arity(size_t in_least, size_t in_most, size_t out);

  size_t inputs() const { return in_.size(); }
  const Tensor& in(size_t i) const { return tensors_[in_[i]]; }
  const Tensor& out(size_t i) const { return tensors_[out_[i]]; }
  float* f32(const Tensor& t) { return typed<float>(t, Dtype::f32, "f32"); }
  int32_t* i32(const Tensor& t) { return typed<int32_t>(t, Dtype::i32, "i32"); }
  uint8_t* u8(const Tensor& t) { return typed<uint8_t>(t, Dtype::u8, "u8"); }

  bool rank(const Tensor& t, size_t rank);
  bool elements(const Tensor& t, uint64_t n);
  bool shape(const Tensor& t, std::initializer_list<int64_t> want);

  // Numbers named in attrs; each is taken once.
  double number(const char* key, bool required, double fallback);
  int32_t integer(const char* key, double low, double high, bool required, double fallback);
  int64_t count(const char* key, double most, double fallback);  // a whole number from 0
  uint32_t word(const char* key);  // 32 bits, 0 when missing
  uint8_t flag(const char* key) { return static_cast<uint8_t>(integer(key, 0, 1, false, 0)); }
  double at_least_zero(const char* key, bool required, double fallback);
  double fraction(const char* key);

  // Each output may coincide exactly with the inputs that `same` pairs it with (output, input),
  // and touch nothing else.
  bool separate(std::initializer_list<std::pair<size_t, size_t>> same = {});
  bool in_place(size_t o, size_t i);
  bool inputs_apart();

 private:
  struct Attribute {
    std::string key;
    double value;
    bool used;
  };

  template <class T>
  T* typed(const Tensor& t, Dtype want, const char* text) {
    if (t.dtype != want) fail("argument", t.name + " must be of type " + text);
    return reinterpret_cast<T*>(base_ + t.offset);
  }
  std::string shapes() const;
  bool read_list(Napi::Object op, const char* key, std::vector<uint32_t>* out);
  bool read_attributes(Napi::Object op);

  Napi::Env env_;
  const std::vector<Tensor>& tensors_;
  uint8_t* base_;
  std::string name_;
  int index_;
  bool ok_ = true;
  std::vector<uint32_t> in_, out_;
  std::vector<Attribute> attributes_;
};

// Fills one operation from its reader; `macs` takes its multiply-adds where it has any.
using Build = bool (*)(OpReader& r, tesra_op* op, double* macs);
struct OpEntry {
  const char* name;
  tesra_op_kind kind;
  Build build;
};
struct OpTable {
  const OpEntry* entries;
  size_t count;
};

OpTable product_ops();
OpTable elementwise_ops();
OpTable image_ops();
OpTable loss_ops();
OpTable optimizer_ops();
OpTable transformer_ops();
OpTable layout_ops();

}  // namespace tesra
