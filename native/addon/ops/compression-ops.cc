// Owns: the plan operations of compression.h: a gradient becomes a message where it lies, and a message
// vectors.
#include "op-reader.h"

namespace tesra {
namespace {

// The kinds by number: attributes are numbers. TOPK takes `parameter` entries, the others elements a
// block.
bool read_kind(OpReader& r, int64_t n, int32_t* kind, uint32_t* parameter) {
  *kind = r.integer("kind", TESRA_TOPK, TESRA_SIGN, true, 0);
  if (!r.check(n <= TESRA_COMPRESS_MAX, "the vector must have fewer than 2^31 elements")) return false;
  const bool blocks = *kind != TESRA_TOPK;
  const double most = blocks ? TESRA_COMPRESS_BLOCK_MAX : static_cast<double>(n);
  *parameter = static_cast<uint32_t>(r.integer("parameter", blocks ? 64 : 0, most, true, 0));
  if (r.ok() && blocks && *parameter % 64 != 0)
    return r.fail("argument", "attribute parameter must be a multiple of 64");
  return r.ok();
}

// (x, residual?) -> packed; the residual is updated in place.
bool build_compress(OpReader& r, tesra_op* op, double*) {
  tesra_compress& c = op->u.compress;
  if (!r.arity(1, 2, 1)) return false;
  const Tensor &x = r.in(0), &packed = r.out(0);
  c.n = static_cast<int64_t>(x.elements);
  if (!read_kind(r, c.n, &c.kind, &c.parameter)) return false;
  c.x = r.f32(x);
  c.residual = r.inputs() == 2 ? r.f32(r.in(1)) : nullptr;
  if (c.residual && !r.elements(r.in(1), x.elements)) return false;
  c.stochastic = r.flag("stochastic");
  if (r.ok() && c.stochastic && c.kind != TESRA_INT8)
    return r.fail("argument", "only int8 (kind 2) rounds at random");
  c.key_low = r.word("seedLow");
  c.key_high = r.word("seedHigh");
  c.stream = r.word("stream");
  c.out = r.u8(packed);
  return r.elements(packed, tesra_packed_size(c.kind, c.parameter, c.n)) && r.inputs_apart() &&
         r.separate();
}

// (packed) -> out; adds to it with `add`.
bool build_decompress(OpReader& r, tesra_op* op, double*) {
  tesra_decompress& d = op->u.decompress;
  if (!r.arity(1, 1, 1)) return false;
  const Tensor &packed = r.in(0), &out = r.out(0);
  d.n = static_cast<int64_t>(out.elements);
  if (!read_kind(r, d.n, &d.kind, &d.parameter)) return false;
  d.size = static_cast<size_t>(tesra_packed_size(d.kind, d.parameter, d.n));
  d.scale = static_cast<float>(r.number("scale", false, 1));
  d.add = r.flag("add");
  d.packed = r.u8(packed);
  d.out = r.f32(out);
  return r.elements(packed, d.size) && r.separate();
}

const OpEntry kEntries[] = {
    {"compress", TESRA_OP_COMPRESS, build_compress},
    {"decompress", TESRA_OP_DECOMPRESS, build_decompress},
};

}  // namespace

OpTable compression_ops() {
  return {kEntries, std::size(kEntries)};
}

}  // namespace tesra
