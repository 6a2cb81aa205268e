// Owns: the plan operations of loss.h.
#include "op-reader.h"

namespace tesra {
namespace {

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
  return r.separate({{1, 0}});
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

const OpEntry kEntries[] = {
    {"softmax_xent", TESRA_OP_SOFTMAX_XENT, build_softmax_xent},
    {"count_correct", TESRA_OP_COUNT_CORRECT, build_count_correct},
};

}  // namespace

OpTable loss_ops() {
  return {kEntries, std::size(kEntries)};
}

}  // namespace tesra
