// Owns: the plan operations of conv.h and pool.h, over NHWC images.
#include "op-reader.h"

namespace tesra {
namespace {

// x (n,h,w,c), w (kh,kw,c,oc), y (n,oh,ow,oc)
bool conv_geometry(OpReader& r, tesra_conv& c, const std::vector<int64_t>& x,
                   const std::vector<int64_t>& w, const std::vector<int64_t>& y, double* macs) {
  c.stride_h = r.integer("strideH", 1, 1 << 16, false, 1);
  c.stride_w = r.integer("strideW", 1, 1 << 16, false, 1);
  c.pad_h = r.integer("padH", 0, 1 << 16, false, 0);
  c.pad_w = r.integer("padW", 0, 1 << 16, false, 0);
  if (!r.ok()) return false;
  if (!r.check(w[0] >= 1 && w[1] >= 1, "the kernel must be at least 1 x 1") ||
      !r.check(c.pad_h < w[0] && c.pad_w < w[1], "padding must be smaller than the kernel") ||
      !r.check(w[2] == x[3], "channels of images and weights differ"))
    return false;
  const int64_t h = x[1] + 2 * c.pad_h - w[0], v = x[2] + 2 * c.pad_w - w[1];
  if (!r.check(h >= 0 && v >= 0, "the kernel is larger than the padded image")) return false;
  const int64_t oh = h / c.stride_h + 1, ow = v / c.stride_w + 1;
  if (!r.check(y[0] == x[0] && y[1] == oh && y[2] == ow && y[3] == w[3],
               "the output must be " + std::to_string(x[0]) + " x " + std::to_string(oh) + " x " +
                   std::to_string(ow) + " x " + std::to_string(w[3])))
    return false;
  const double rows = static_cast<double>(x[0]) * static_cast<double>(oh) * static_cast<double>(ow);
  const double depth = static_cast<double>(w[0]) * static_cast<double>(w[1] * w[2]);
  const double padded = static_cast<double>(x[0]) * static_cast<double>(x[1] + 2 * c.pad_h) *
                        static_cast<double>((x[2] + 2 * c.pad_w) * x[3]);
  if (!r.check(depth <= kSizeMax && static_cast<double>(w[0] * w[1]) * w[3] <= kSizeMax &&
                   padded <= 4.0 * kSizeMax,
               "the convolution is too large"))
    return false;
  c.n = static_cast<int32_t>(x[0]);
  c.h = static_cast<int32_t>(x[1]);
  c.w_ = static_cast<int32_t>(x[2]);
  c.c = static_cast<int32_t>(x[3]);
  c.kh = static_cast<int32_t>(w[0]);
  c.kw = static_cast<int32_t>(w[1]);
  c.oc = static_cast<int32_t>(w[3]);
  c.oh = static_cast<int32_t>(oh);
  c.ow = static_cast<int32_t>(ow);
  *macs = rows * depth * static_cast<double>(w[3]);
  return true;
}

bool build_conv(OpReader& r, tesra_op* op, double* macs) {
  if (!r.arity(2, 3, 1)) return false;
  tesra_conv& c = op->u.conv;
  c.relu = r.flag("relu");
  const Tensor &x = r.in(0), &w = r.in(1), &y = r.out(0);
  if (!r.rank(x, 4) || !r.rank(w, 4) || !r.rank(y, 4) ||
      !conv_geometry(r, c, x.shape, w.shape, y.shape, macs))
    return false;
  if (r.inputs() == 3 && !r.elements(r.in(2), static_cast<uint64_t>(c.oc))) return false;
  c.x = r.f32(x);
  c.w = r.f32(w);
  c.bias = r.inputs() == 3 ? r.f32(r.in(2)) : nullptr;
  c.out = r.f32(y);
  return r.separate();
}

bool build_conv_dx(OpReader& r, tesra_op* op, double* macs) {
  if (!r.arity(2, 2, 1)) return false;
  tesra_conv& c = op->u.conv;
  r.flag("relu");  // "same attributes as the forward operation": means nothing here
  const Tensor &dy = r.in(0), &w = r.in(1), &dx = r.out(0);
  if (!r.rank(dy, 4) || !r.rank(w, 4) || !r.rank(dx, 4) ||
      !conv_geometry(r, c, dx.shape, w.shape, dy.shape, macs))
    return false;
  c.dy = r.f32(dy);
  c.w = r.f32(w);
  c.out = r.f32(dx);
  return r.separate();
}

bool build_conv_dw(OpReader& r, tesra_op* op, double* macs) {
  if (!r.arity(2, 2, 1)) return false;
  tesra_conv& c = op->u.conv;
  r.flag("relu");
  const Tensor &x = r.in(0), &dy = r.in(1), &dw = r.out(0);
  if (!r.rank(x, 4) || !r.rank(dy, 4) || !r.rank(dw, 4) ||
      !conv_geometry(r, c, x.shape, dw.shape, dy.shape, macs))
    return false;
  c.x = r.f32(x);
  c.dy = r.f32(dy);
  c.out = r.f32(dw);
  return r.separate();
}

bool pool_geometry(OpReader& r, tesra_pool& p, const Tensor& x, const Tensor& y) {
  if (!r.rank(x, 4) || !r.rank(y, 4)) return false;
  p.kernel = r.integer("kernel", 1, 4096, true, 1);
  p.stride = r.integer("stride", 1, 4096, false, p.kernel ? p.kernel : 1);
  if (!r.ok() || !r.check(x.shape[1] >= p.kernel && x.shape[2] >= p.kernel,
                          "the window is larger than the image"))
    return false;
  const int64_t oh = (x.shape[1] - p.kernel) / p.stride + 1;
  const int64_t ow = (x.shape[2] - p.kernel) / p.stride + 1;
  if (!r.shape(y, {x.shape[0], oh, ow, x.shape[3]}) ||
      !r.check(x.elements <= static_cast<uint64_t>(kSizeMax), "the images are too large"))
    return false;
  p.n = static_cast<int32_t>(x.shape[0]);
  p.h = static_cast<int32_t>(x.shape[1]);
  p.w = static_cast<int32_t>(x.shape[2]);
  p.c = static_cast<int32_t>(x.shape[3]);
  p.oh = static_cast<int32_t>(oh);
  p.ow = static_cast<int32_t>(ow);
  return true;
}

bool build_maxpool(OpReader& r, tesra_op* op, double*) {
  tesra_pool& p = op->u.pool;
  if (!r.arity(1, 1, 2) || !pool_geometry(r, p, r.in(0), r.out(0)) ||
      !r.elements(r.out(1), r.out(0).elements))
    return false;
  p.x = r.f32(r.in(0));
  p.out = r.f32(r.out(0));
  p.index_out = r.i32(r.out(1));
  return r.separate();
}
bool build_maxpool_grad(OpReader& r, tesra_op* op, double*) {
  tesra_pool& p = op->u.pool;
  if (!r.arity(2, 2, 1) || !pool_geometry(r, p, r.out(0), r.in(0)) ||
      !r.elements(r.in(1), r.in(0).elements))
    return false;
  p.dy = r.f32(r.in(0));
  p.index = r.i32(r.in(1));
  p.out = r.f32(r.out(0));
  return r.separate();
}
bool build_avgpool(OpReader& r, tesra_op* op, double*) {
  tesra_pool& p = op->u.pool;
  if (!r.arity(1, 1, 1) || !pool_geometry(r, p, r.in(0), r.out(0))) return false;
  p.x = r.f32(r.in(0));
  p.out = r.f32(r.out(0));
  return r.separate();
}
bool build_avgpool_grad(OpReader& r, tesra_op* op, double*) {
  tesra_pool& p = op->u.pool;
  if (!r.arity(1, 1, 1) || !pool_geometry(r, p, r.out(0), r.in(0))) return false;
  p.dy = r.f32(r.in(0));
  p.out = r.f32(r.out(0));
  return r.separate();
}

const OpEntry kEntries[] = {
    {"conv2d", TESRA_OP_CONV2D, build_conv},
    {"conv2d_dx", TESRA_OP_CONV2D_DX, build_conv_dx},
    {"conv2d_dw", TESRA_OP_CONV2D_DW, build_conv_dw},
    {"maxpool", TESRA_OP_MAXPOOL, build_maxpool},
    {"maxpool_grad", TESRA_OP_MAXPOOL_GRAD, build_maxpool_grad},
    {"avgpool", TESRA_OP_AVGPOOL, build_avgpool},
    {"avgpool_grad", TESRA_OP_AVGPOOL_GRAD, build_avgpool_grad},
};

}  // namespace

OpTable image_ops() {
  return {kEntries, std::size(kEntries)};
}

}  // namespace tesra
