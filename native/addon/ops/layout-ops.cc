// Owns: the plan operations of copy.h and rope.h.
#include <algorithm>
#include <array>

#include "op-reader.h"

namespace tesra {
namespace {

constexpr size_t kRank = TESRA_COPY_RANK_MAX;
constexpr double kElementsMax = 9007199254740991;  // exact in an attribute

// The last place that sizes and strides reach, or -1 for none; false when it lies beyond `elements`.
bool reach(const int64_t* size, const int64_t* stride, int64_t offset, uint64_t elements, bool empty) {
  double last = static_cast<double>(offset);
  for (size_t d = 0; d < kRank; ++d)
    last += static_cast<double>(size[d] - 1) * static_cast<double>(stride[d]);
  return empty || last < static_cast<double>(elements);
}

// Whether each index has its own place: by ascending stride, each dimension steps over all before it.
bool apart(const int64_t* size, const int64_t* stride) {
  std::array<size_t, kRank> order{};
  for (size_t d = 0; d < kRank; ++d) order[d] = d;
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return stride[a] < stride[b]; });
  int64_t span = 1;
  for (const size_t d : order) {
    if (size[d] <= 1) continue;
    if (stride[d] < span) return false;
    span += (size[d] - 1) * stride[d];
  }
  return true;
}

// attrs: size0.., from0.., to0.. (1, 0 and 0 when missing), fromOffset, toOffset, accumulate, clear
bool build_copy(OpReader& r, tesra_op* op, double*) {
  if (!r.arity(1, 1, 1)) return false;
  tesra_copy& o = op->u.copy;
  bool empty = false;
  double places = 1;
  for (size_t d = 0; d < kRank; ++d) {
    const std::string digit = std::to_string(d);
    o.size[d] = r.count(("size" + digit).c_str(), kSizeMax, 1);
    o.from[d] = r.count(("from" + digit).c_str(), kElementsMax, 0);
    o.to[d] = r.count(("to" + digit).c_str(), kElementsMax, 0);
    empty = empty || o.size[d] == 0;
    places *= static_cast<double>(o.size[d]);
  }
  const int64_t from = r.count("fromOffset", kElementsMax, 0), to = r.count("toOffset", kElementsMax, 0);
  o.accumulate = r.flag("accumulate");
  o.clear = r.flag("clear");
  const Tensor &x = r.in(0), &out = r.out(0);
  if (!r.ok() || !r.check(places <= kElementsMax && reach(o.size, o.from, from, x.elements, empty),
                          "the strides reach beyond " + x.name) ||
      !r.check(reach(o.size, o.to, to, out.elements, empty), "the strides reach beyond " + out.name) ||
      !r.check(empty || apart(o.size, o.to), "two indices name one place of " + out.name))
    return false;
  o.all = r.f32(out);
  o.x = r.f32(x) + (empty ? 0 : from);
  o.out = o.all + (empty ? 0 : to);
  o.out_elements = static_cast<int64_t>(out.elements);
  return r.separate();
}

// in, out: (..., length, columns); attrs: heads, headSize, base, inverse
bool build_rope(OpReader& r, tesra_op* op, double*) {
  if (!r.arity(1, 1, 1)) return false;
  tesra_rope& o = op->u.rope;
  const Tensor& x = r.in(0);
  o.heads = r.integer("heads", 1, 65536, true, 1);
  o.head_size = r.integer("headSize", 2, 65536, true, 2);
  o.inverse = r.flag("inverse");
  const double base = r.number("base", true, 0);
  if (!r.ok() || !r.elements(r.out(0), x.elements) ||
      !r.check(x.shape.size() >= 2, x.name + " must have positions and columns"))
    return false;
  if (!(base >= 1 && base <= 1e12)) return r.fail("argument", "attribute base must be from 1 to 1e12");
  const int64_t length = x.shape[x.shape.size() - 2], columns = x.shape.back();
  if (!r.check(o.head_size % 2 == 0, "heads must be of even size to turn") ||
      !r.check(int64_t{o.heads} * o.head_size <= columns,
               x.name + " must be at least heads x headSize wide"))
    return false;
  o.length = static_cast<int32_t>(length);
  o.columns = static_cast<int32_t>(columns);
  o.rows = static_cast<int64_t>(x.elements) / columns;
  o.ratio = tesra_rope_ratio(base, o.head_size);
  o.x = r.f32(x);
  o.out = r.f32(r.out(0));
  return r.separate({{0, 0}});
}

const OpEntry kEntries[] = {
    {"copy", TESRA_OP_COPY, build_copy},
    {"rope", TESRA_OP_ROPE, build_rope},
};

}  // namespace

OpTable layout_ops() {
  return {kEntries, std::size(kEntries)};
}

}  // namespace tesra
