// Owns: the plan operations of activation.h: maps, casts, the test for finite values.
#include "op-reader.h"

namespace tesra {
namespace {

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

const OpEntry kEntries[] = {
    {"relu", TESRA_OP_RELU, build_one},
    {"relu_grad", TESRA_OP_RELU_GRAD, build_two},
    {"add", TESRA_OP_ADD, build_two},
    {"gelu", TESRA_OP_GELU, build_one},
    {"gelu_grad", TESRA_OP_GELU_GRAD, build_two},
    {"gelu_tanh", TESRA_OP_GELU_TANH, build_one},
    {"gelu_tanh_grad", TESRA_OP_GELU_TANH_GRAD, build_two},
    {"silu", TESRA_OP_SILU, build_one},
    {"silu_grad", TESRA_OP_SILU_GRAD, build_two},
    {"mul", TESRA_OP_MUL, build_two},
    {"div", TESRA_OP_DIV, build_two},
    {"exp", TESRA_OP_EXP, build_one},
    {"log", TESRA_OP_LOG, build_one},
    {"sqrt", TESRA_OP_SQRT, build_one},
    {"erf", TESRA_OP_ERF, build_one},
    {"sigmoid", TESRA_OP_SIGMOID, build_one},
    {"scale", TESRA_OP_SCALE, build_scale},
    {"u8_to_f32", TESRA_OP_U8_TO_F32, build_u8},
    {"finite", TESRA_OP_FINITE, build_finite},
};

}  // namespace

OpTable elementwise_ops() {
  return {kEntries, std::size(kEntries)};
}

}  // namespace tesra
