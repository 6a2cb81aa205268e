// Owns: the plan operations of gemm.h and exact.h: the matrix product and the bias gradient.
#include "op-reader.h"

namespace tesra {
namespace {

// Which activation the attributes name: at most one of the flags.
bool read_activation(OpReader& r, uint8_t* out) {
  static const char* const names[] = {"relu", "gelu", "geluTanh", "silu"};
  for (size_t i = 0; i < std::size(names); ++i)
    if (r.flag(names[i])) {
      if (*out) return r.fail("argument", "takes one activation, not two");
      *out = static_cast<uint8_t>(TESRA_ACTIVATION_RELU + i);
    }
  return r.ok();
}

// in: A, B[, bias][, before where `gradient` is][, residual where `residual` is]; out: C[, saved].
bool build_gemm(OpReader& r, tesra_op* op, double* macs) {
  const size_t outputs = r.outputs() == 2 ? 2 : 1;
  const size_t gradient = r.flag("gradient"), residual = r.flag("residual");
  const size_t least = 2 + gradient + residual;
  if (!r.ok() || !r.arity(least, least + 1, outputs)) return false;
  tesra_gemm& g = op->u.gemm;
  g.trans_a = r.flag("transA");
  g.trans_b = r.flag("transB");
  g.accumulate = r.flag("accumulate");
  if (!read_activation(r, &g.activation)) return false;
  if (gradient && (!g.activation || outputs == 2))
    return r.fail("argument", "a gradient takes an activation and saves nothing");
  const Tensor &a = r.in(0), &b = r.in(1), &c = r.out(0);
  if (!r.ok() || !r.rank(a, 2) || !r.rank(b, 2) || !r.rank(c, 2)) return false;
  const int64_t m = a.shape[g.trans_a], k = a.shape[1 - g.trans_a], n = b.shape[1 - g.trans_b];
  if (!r.check(b.shape[g.trans_b] == k, "inner sizes differ") || !r.shape(c, {m, n})) return false;
  size_t next = 2;
  if (r.inputs() > least) {
    if (!r.elements(r.in(next), static_cast<uint64_t>(n))) return false;
    g.bias = r.f32(r.in(next++));
  }
  const auto read = [&](bool wanted, const float** to) {
    if (!wanted) return true;
    if (!r.shape(r.in(next), {m, n})) return false;
    *to = r.f32(r.in(next++));
    return true;
  };
  if (!read(gradient, &g.before) || !read(residual, &g.residual)) return false;
  if (outputs == 2) {
    if (!r.shape(r.out(1), {m, n})) return false;
    g.saved = r.f32(r.out(1));
  }
  g.a = r.f32(a);
  g.b = r.f32(b);
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
