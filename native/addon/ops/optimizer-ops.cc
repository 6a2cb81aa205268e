// Owns: the plan operations of optimizer.h: updates in place, delay compensation.
#include "op-reader.h"

namespace tesra {
namespace {

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

bool build_global_norm(OpReader& r, tesra_op* op, double*) {
  if (!r.arity(1, 1, 1) || !r.elements(r.out(0), 1)) return false;
  tesra_global_norm& o = op->u.global_norm;
  o.x = r.f32(r.in(0));
  o.norm = r.f32(r.out(0));
  o.n = static_cast<int64_t>(r.in(0).elements);
  return r.separate();
}

bool build_clip(OpReader& r, tesra_op* op, double*) {
  if (!r.arity(2, 2, 1) || !r.elements(r.in(1), 1)) return false;
  tesra_clip& o = op->u.clip;
  o.x = r.f32(r.in(0));
  o.norm = r.f32(r.in(1));
  r.f32(r.out(0));
  o.n = static_cast<int64_t>(r.in(0).elements);
  o.limit = static_cast<float>(r.at_least_zero("limit", true, 0));
  o.normalize = r.flag("normalize");
  return r.in_place(0, 0) && r.inputs_apart();
}

const OpEntry kEntries[] = {
    {"global_norm", TESRA_OP_GLOBAL_NORM, build_global_norm},
    {"clip", TESRA_OP_CLIP, build_clip},
    {"sgd", TESRA_OP_SGD, build_sgd},
    {"momentum", TESRA_OP_MOMENTUM, build_momentum},
    {"adam", TESRA_OP_ADAM, build_adam},
    {"delay_compensate", TESRA_OP_DELAY_COMPENSATE, build_delay},
};

}  // namespace

OpTable optimizer_ops() {
  return {kEntries, std::size(kEntries)};
}

}  // namespace tesra
