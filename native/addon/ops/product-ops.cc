// Owns: the plan operations of gemm.h and exact.h: the matrix product and the bias gradient.
#include "op-reader.h"

namespace tesra {
namespace {

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
  const int32_t slices = r.integer("slices", 0, TESRA_EXACT_SLICES_MAX, false, 0);
  if (slices == 1) return r.fail("argument", "attribute slices must be 2 or 3, or 0 for repro-f32");
  const bool bf16 = r.flag("bf16");
  if (slices && bf16) return r.fail("argument", "attributes slices and bf16 exclude each other");
  // Rows of bf16 are counted in bytes, in int32.
  if (bf16 && !r.check(k < (1 << 30), "k must be below 2^30 in bf16")) return false;
  if (bf16) op->kind = TESRA_OP_BF16_GEMM;
  if (slices) {
    op->kind = TESRA_OP_EXACT_GEMM;
    op->u.exact_gemm.slices = slices;
  }
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

const OpEntry kEntries[] = {
    {"gemm", TESRA_OP_GEMM, build_gemm},
    {"bias_grad", TESRA_OP_BIAS_GRAD, build_bias_grad},
};

}  // namespace

OpTable product_ops() {
  return {kEntries, std::size(kEntries)};
}

}  // namespace tesra
