// Owns the oneDNN side: matrix products (f32, s8 x s8 -> s32) and convolutions in the layouts oneDNN chooses for
// itself (weights are reordered before the clock starts), threads by OpenMP.
#include <omp.h>

#include <oneapi/dnnl/dnnl.hpp>
#include <unordered_map>

#include "side.h"

namespace {

using namespace dnnl;
using tag = memory::format_tag;
using type = memory::data_type;

engine& cpu() {
  static engine e(engine::kind::cpu, 0);
  return e;
}

memory filled(const memory::desc& d) {
  memory m(d, cpu());
  const size_t bytes = d.get_size();
  if (d.data_type() == type::f32) {
    auto from = side::random_floats(bytes / 4);
    std::copy_n(reinterpret_cast<char*>(from.get()), bytes, static_cast<char*>(m.get_data_handle()));
  } else {
    auto from = side::random_bytes(bytes);
    std::copy_n(reinterpret_cast<char*>(from.get()), bytes, static_cast<char*>(m.get_data_handle()));
  }
  return m;
}

side::Body run(const primitive& p, const std::unordered_map<int, memory>& arguments, int threads) {
  auto s = std::make_shared<stream>(cpu());
  return [=] {
    omp_set_num_threads(threads);
    p.execute(*s, arguments);
    s->wait();
  };
}

// Plain row-major operands on both sides, as ours takes them.
side::Body product(const side::Case& c, type operand, type result, bool b_transposed) {
  const int m = c.integer("m"), n = c.integer("n"), k = c.integer("k");
  memory::desc a({m, k}, operand, c.integer("transA") ? tag::ba : tag::ab);
  memory::desc b({k, n}, operand, b_transposed ? tag::ba : tag::ab), out({m, n}, result, tag::ab);
  matmul::primitive_desc d(matmul::desc(a, b, out), cpu());
  return run(matmul(d), {{DNNL_ARG_SRC, filled(a)}, {DNNL_ARG_WEIGHTS, filled(b)}, {DNNL_ARG_DST, filled(out)}},
             c.integer("threads", 1));
}

struct Shapes {
  memory::dims x, w, y, stride, pad;
};

Shapes shapes_of(const side::Case& c) {
  const int n = c.integer("n"), h = c.integer("h"), ic = c.integer("c"), kernel = c.integer("kernel");
  const int oc = c.integer("oc"), stride = c.integer("stride", 1), pad = c.integer("pad");
  const int oh = (h + 2 * pad - kernel) / stride + 1;
  return {{n, ic, h, h}, {oc, ic, kernel, kernel}, {n, oc, oh, oh}, {stride, stride}, {pad, pad}};
}

side::Body convolution(const side::Case& c, const std::string& op) {
  const Shapes s = shapes_of(c);
  // Images as ours: NHWC. Weights in whatever order the primitive likes best.
  const memory::desc x(s.x, type::f32, tag::nhwc), y(s.y, type::f32, tag::nhwc), w(s.w, type::f32, tag::any);
  const auto direct = algorithm::convolution_direct;
  const int threads = c.integer("threads", 1);
  const convolution_forward::primitive_desc f(
      convolution_forward::desc(prop_kind::forward_training, direct, x, w, y, s.stride, s.pad, s.pad), cpu());
  if (op == "conv")
    return run(convolution_forward(f),
               {{DNNL_ARG_SRC, filled(x)}, {DNNL_ARG_WEIGHTS, filled(f.weights_desc())}, {DNNL_ARG_DST, filled(y)}},
               threads);
  if (op == "conv-dx") {
    convolution_backward_data::primitive_desc d(
        convolution_backward_data::desc(direct, x, w, y, s.stride, s.pad, s.pad), cpu(), f);
    return run(convolution_backward_data(d),
               {{DNNL_ARG_DIFF_SRC, filled(x)},
                {DNNL_ARG_WEIGHTS, filled(d.weights_desc())},
                {DNNL_ARG_DIFF_DST, filled(y)}},
               threads);
  }
  convolution_backward_weights::primitive_desc d(
      convolution_backward_weights::desc(direct, x, w, y, s.stride, s.pad, s.pad), cpu(), f);
  return run(convolution_backward_weights(d),
             {{DNNL_ARG_SRC, filled(x)},
              {DNNL_ARG_DIFF_WEIGHTS, filled(d.diff_weights_desc())},
              {DNNL_ARG_DIFF_DST, filled(y)}},
             threads);
}

side::Body prepare(const side::Case& c) {
  omp_set_num_threads(c.integer("threads", 1));  // also what a primitive plans for
  const std::string op = c.word("op");
  if (op == "sgemm") return product(c, type::f32, type::f32, c.integer("transB") != 0);
  if (op == "int8") return product(c, type::s8, type::s32, true);
  if (op == "conv" || op == "conv-dx" || op == "conv-dw") return convolution(c, op);
  return nullptr;
}

}  // namespace

int main() {
  const auto* v = dnnl_version();
  return side::serve(std::to_string(v->major) + "." + std::to_string(v->minor) + "." + std::to_string(v->patch),
                     prepare);
}
