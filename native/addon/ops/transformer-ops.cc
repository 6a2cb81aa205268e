// Owns: the plan operations of norm.h, embedding.h, attention.h and random.h.
#include "op-reader.h"

namespace tesra {
namespace {

// The last dimension is a row's length, at least 1; all before it count rows.
bool rows_of(OpReader& r, const Tensor& x, int64_t* rows, int32_t* columns) {
  if (!r.check(!x.shape.empty() && x.shape.back() >= 1, x.name + " must have rows of at least 1"))
    return false;
  *columns = static_cast<int32_t>(x.shape.back());
  *rows = static_cast<int64_t>(x.elements) / x.shape.back();
  return true;
}

bool build_bias_add(OpReader& r, tesra_op* op, double*) {
  if (!r.arity(2, 2, 1)) return false;
  tesra_bias_add& b = op->u.bias_add;
  const uint64_t n = r.in(1).elements;
  if (!r.elements(r.in(0), r.out(0).elements) ||
      !r.check(n ? r.out(0).elements % n == 0 : r.out(0).elements == 0,
               "the bias must fit the output a whole number of times"))
    return false;
  b.x = r.f32(r.in(0));
  b.bias = r.f32(r.in(1));
  b.out = r.f32(r.out(0));
  b.n = static_cast<int64_t>(n);
  b.m = n ? static_cast<int64_t>(r.out(0).elements / n) : 0;
  return r.separate({{0, 0}});
}

// in: x, gamma, beta (layer norm); out: y, mean (layer norm), rstd
bool build_norm(OpReader& r, tesra_op* op, bool centred) {
  const size_t last = centred ? 2 : 1;
  if (!r.arity(last + 1, last + 1, last + 1)) return false;
  tesra_norm& o = op->u.norm;
  const Tensor& x = r.in(0);
  if (!rows_of(r, x, &o.rows, &o.columns) || !r.elements(r.out(0), x.elements)) return false;
  for (size_t i = 1; i <= last; ++i)
    if (!r.elements(r.in(i), static_cast<uint64_t>(o.columns)) ||
        !r.elements(r.out(i), static_cast<uint64_t>(o.rows)))
      return false;
  o.x = r.f32(x);
  o.gamma = r.f32(r.in(1));
  o.beta = centred ? r.f32(r.in(2)) : nullptr;
  o.y = r.f32(r.out(0));
  o.mean = centred ? r.f32(r.out(1)) : nullptr;
  o.rstd = r.f32(r.out(last));
  o.epsilon = static_cast<float>(r.at_least_zero("epsilon", true, 0));
  return r.separate({{0, 0}});
}
bool build_layer_norm(OpReader& r, tesra_op* op, double*) { return build_norm(r, op, true); }
bool build_rms_norm(OpReader& r, tesra_op* op, double*) { return build_norm(r, op, false); }

// in: dy, x, gamma, mean (layer norm), rstd; out: dx, dgamma, dbeta (layer norm)
bool build_norm_grad(OpReader& r, tesra_op* op, bool centred) {
  const size_t inputs = centred ? 5 : 4, outputs = centred ? 3 : 2;
  if (!r.arity(inputs, inputs, outputs)) return false;
  tesra_norm_grad& o = op->u.norm_grad;
  const Tensor& x = r.in(1);
  if (!rows_of(r, x, &o.rows, &o.columns) || !r.elements(r.in(0), x.elements) ||
      !r.elements(r.out(0), x.elements) || !r.elements(r.in(2), static_cast<uint64_t>(o.columns)))
    return false;
  for (size_t i = 3; i < inputs; ++i)
    if (!r.elements(r.in(i), static_cast<uint64_t>(o.rows))) return false;
  for (size_t i = 1; i < outputs; ++i)
    if (!r.elements(r.out(i), static_cast<uint64_t>(o.columns))) return false;
  o.dy = r.f32(r.in(0));
  o.x = r.f32(x);
  o.gamma = r.f32(r.in(2));
  o.mean = centred ? r.f32(r.in(3)) : nullptr;
  o.rstd = r.f32(r.in(inputs - 1));
  o.dx = r.f32(r.out(0));
  o.dgamma = r.f32(r.out(1));
  o.dbeta = centred ? r.f32(r.out(2)) : nullptr;
  return r.separate({{0, 0}});
}
bool build_layer_norm_grad(OpReader& r, tesra_op* op, double*) {
  return build_norm_grad(r, op, true);
}
bool build_rms_norm_grad(OpReader& r, tesra_op* op, double*) {
  return build_norm_grad(r, op, false);
}

bool build_softmax_of(OpReader& r, tesra_op* op, size_t inputs) {
  if (!r.arity(inputs, inputs, 1)) return false;
  tesra_softmax& o = op->u.softmax;
  if (!rows_of(r, r.in(0), &o.rows, &o.columns) || !r.elements(r.out(0), r.in(0).elements) ||
      (inputs == 2 && !r.elements(r.in(1), r.in(0).elements)))
    return false;
  o.x = r.f32(r.in(0));
  o.y = inputs == 2 ? r.f32(r.in(1)) : nullptr;
  o.out = r.f32(r.out(0));
  return r.separate({{0, 0}});
}
bool build_softmax(OpReader& r, tesra_op* op, double*) { return build_softmax_of(r, op, 1); }
bool build_softmax_grad(OpReader& r, tesra_op* op, double*) { return build_softmax_of(r, op, 2); }

// table (vocabulary, columns); rows (ids, columns) in any leading shape
bool table_of(OpReader& r, const Tensor& table, const Tensor& ids, const Tensor& rows,
              int32_t* vocabulary, int32_t* columns) {
  if (!r.rank(table, 2) ||
      !r.check(rows.elements == ids.elements * static_cast<uint64_t>(table.shape[1]),
               "there must be a row of the table's width for each id"))
    return false;
  *vocabulary = static_cast<int32_t>(table.shape[0]);
  *columns = static_cast<int32_t>(table.shape[1]);
  return true;
}

bool build_embedding(OpReader& r, tesra_op* op, double*) {
  if (!r.arity(2, 2, 1)) return false;
  tesra_embedding& o = op->u.embedding;
  if (!table_of(r, r.in(0), r.in(1), r.out(0), &o.vocabulary, &o.columns)) return false;
  o.table = r.f32(r.in(0));
  o.ids = r.i32(r.in(1));
  o.out = r.f32(r.out(0));
  o.rows = static_cast<int64_t>(r.in(1).elements);
  return r.separate();
}

bool build_embedding_grad(OpReader& r, tesra_op* op, double*) {
  if (!r.arity(2, 2, 1)) return false;
  tesra_embedding_grad& o = op->u.embedding_grad;
  if (!table_of(r, r.out(0), r.in(1), r.in(0), &o.vocabulary, &o.columns)) return false;
  o.dy = r.f32(r.in(0));
  o.ids = r.i32(r.in(1));
  o.dtable = r.f32(r.out(0));
  o.rows = static_cast<int64_t>(r.in(1).elements);
  o.accumulate = r.flag("accumulate");
  return r.separate();
}

// qkv (batch, length, 3 * heads * head size), out (batch, length, heads * head size),
// lse (batch, heads, length)
template <class Op>
bool attention_geometry(OpReader& r, Op& o, const Tensor& qkv, const Tensor& out, const Tensor& lse,
                        double* macs, double products) {
  if (!r.rank(qkv, 3) || !r.rank(out, 3)) return false;
  o.heads = r.integer("heads", 1, 65536, true, 1);
  o.causal = r.flag("causal");
  if (!r.ok()) return false;
  const int64_t batch = qkv.shape[0], length = qkv.shape[1], width = out.shape[2];
  const int64_t head = width / o.heads;
  if (!r.check(width % o.heads == 0 && head >= 1 && head <= TESRA_HEAD_SIZE_MAX,
               "a head must be from 1 to " + std::to_string(TESRA_HEAD_SIZE_MAX) + " wide") ||
      !r.shape(qkv, {batch, length, 3 * width}) || !r.shape(out, {batch, length, width}) ||
      !r.elements(lse, static_cast<uint64_t>(batch) * static_cast<uint64_t>(length) *
                           static_cast<uint64_t>(o.heads)) ||
      !r.check(length <= kSizeMax / 256 && (length / TESRA_ATTENTION_BLOCK + 1) * batch * o.heads <= kSizeMax,
               "attention is too large"))
    return false;
  o.batch = static_cast<int32_t>(batch);
  o.length = static_cast<int32_t>(length);
  o.head_size = static_cast<int32_t>(head);
  const double pairs = static_cast<double>(length) * static_cast<double>(o.causal ? length + 1 : 2 * length) / 2;
  *macs = products * pairs * static_cast<double>(batch) * static_cast<double>(width);
  return true;
}

bool build_attention(OpReader& r, tesra_op* op, double* macs) {
  if (!r.arity(1, 1, 2)) return false;
  tesra_attention& o = op->u.attention;
  if (!attention_geometry(r, o, r.in(0), r.out(0), r.out(1), macs, 2)) return false;
  o.qkv = r.f32(r.in(0));
  o.out = r.f32(r.out(0));
  o.lse = r.f32(r.out(1));
  return r.separate();
}

// in: dout, qkv, out, lse; out: dqkv
bool build_attention_grad(OpReader& r, tesra_op* op, double* macs) {
  if (!r.arity(4, 4, 1)) return false;
  tesra_attention_grad& o = op->u.attention_grad;
  if (!attention_geometry(r, o, r.in(1), r.in(2), r.in(3), macs, 5) ||
      !r.elements(r.in(0), r.in(2).elements) || !r.elements(r.out(0), r.in(1).elements))
    return false;
  o.dout = r.f32(r.in(0));
  o.qkv = r.f32(r.in(1));
  o.out = r.f32(r.in(2));
  o.lse = r.f32(r.in(3));
  o.dqkv = r.f32(r.out(0));
  return r.separate();
}

// in: x, step (the run's number, in a float); attrs: rate, and stream and seed as 32-bit words
bool build_dropout(OpReader& r, tesra_op* op, double*) {
  if (!r.arity(2, 2, 1) || !r.elements(r.out(0), r.in(0).elements) || !r.elements(r.in(1), 1))
    return false;
  tesra_dropout& o = op->u.dropout;
  const double rate = r.fraction("rate");
  o.x = r.f32(r.in(0));
  o.step = r.f32(r.in(1));
  o.out = r.f32(r.out(0));
  o.n = static_cast<int64_t>(r.in(0).elements);
  o.key_low = r.word("seedLow");
  o.key_high = r.word("seedHigh");
  o.stream = r.word("stream");
  o.threshold = static_cast<uint32_t>(rate * 16777216.0);
  o.scale = static_cast<float>(1.0 / (1.0 - o.threshold / 16777216.0));
  return r.separate({{0, 0}});
}

// out alone; attrs: scale, normal, and stream and seed as 32-bit words
bool build_fill(OpReader& r, tesra_op* op, double*) {
  if (!r.arity(0, 0, 1)) return false;
  tesra_fill& o = op->u.fill;
  o.out = r.f32(r.out(0));
  o.n = static_cast<int64_t>(r.out(0).elements);
  o.key_low = r.word("seedLow");
  o.key_high = r.word("seedHigh");
  o.stream = r.word("stream");
  o.normal = r.flag("normal");
  o.scale = r.number("scale", true, 0);
  return r.ok();
}

const OpEntry kEntries[] = {
    {"fill", TESRA_OP_FILL, build_fill},
    {"dropout", TESRA_OP_DROPOUT, build_dropout},
    {"bias_add", TESRA_OP_BIAS_ADD, build_bias_add},
    {"layer_norm", TESRA_OP_LAYER_NORM, build_layer_norm},
    {"layer_norm_grad", TESRA_OP_LAYER_NORM_GRAD, build_layer_norm_grad},
    {"rms_norm", TESRA_OP_RMS_NORM, build_rms_norm},
    {"rms_norm_grad", TESRA_OP_RMS_NORM_GRAD, build_rms_norm_grad},
    {"softmax", TESRA_OP_SOFTMAX, build_softmax},
    {"softmax_grad", TESRA_OP_SOFTMAX_GRAD, build_softmax_grad},
    {"embedding", TESRA_OP_EMBEDDING, build_embedding},
    {"embedding_grad", TESRA_OP_EMBEDDING_GRAD, build_embedding_grad},
    {"attention", TESRA_OP_ATTENTION, build_attention},
    {"attention_grad", TESRA_OP_ATTENTION_GRAD, build_attention_grad},
};

}  // namespace

OpTable transformer_ops() {
  return {kEntries, std::size(kEntries)};
}

}  // namespace tesra
