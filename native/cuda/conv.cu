// Owns 2-D convolution forward, input gradient and weight gradient, as products of gathered
// operands. Invariant: conv.h's K orders; a tap outside the image enters the chain as +0
// (zero-filled copy).
#include "product.h"

namespace tesra::cuda {
namespace {

struct Shape {
  int h, w, c, kh, kw, oc, oh, ow, strideH, strideW, padH, padW;
};

// Forward A: row = (n, oh, ow), k = (kh, kw, c).
struct Patches {
  static constexpr bool kAlongK = true;
  static constexpr bool kIsDense = false;
  const float* x;
  Shape s;
  FastDivide byOw, byOh, byC, byKw;
  __device__ __forceinline__ const float* base() const { return x; }
  __device__ __forceinline__ const float* at(int row, int k) const {
    int i, j, channel, tapH, tapW;
    const int n = byOh.divide(byOw.divide(row, j), i);
    tapH = byKw.divide(byC.divide(k, channel), tapW);
    const int h = i * s.strideH + tapH - s.padH, w = j * s.strideW + tapW - s.padW;
    if (static_cast<unsigned>(h) >= static_cast<unsigned>(s.h)) return nullptr;
    if (static_cast<unsigned>(w) >= static_cast<unsigned>(s.w)) return nullptr;
    return x + ((static_cast<int64_t>(n) * s.h + h) * s.w + w) * s.c + channel;
  }
};

// Input gradient A: row = (n, h, w), k = (kh, kw, oc).
struct GradientPatches {
  static constexpr bool kAlongK = true;
  static constexpr bool kIsDense = false;
  const float* dy;
  Shape s;
  FastDivide byW, byH, byOc, byKw, byStrideH, byStrideW;
  __device__ __forceinline__ const float* base() const { return dy; }
  __device__ __forceinline__ const float* at(int row, int k) const {
    int h, w, channel, tapH, tapW, restH, restW;
    const int n = byH.divide(byW.divide(row, w), h);
    tapH = byKw.divide(byOc.divide(k, channel), tapW);
    const int up = h + s.padH - tapH, left = w + s.padW - tapW;
    if (up < 0 || left < 0) return nullptr;
    const int i = byStrideH.divide(up, restH), j = byStrideW.divide(left, restW);
    if (restH != 0 || restW != 0 || i >= s.oh || j >= s.ow) return nullptr;
    return dy + ((static_cast<int64_t>(n) * s.oh + i) * s.ow + j) * s.oc + channel;
  }
};

// Input gradient B: row = c, k = (kh, kw, oc): w[kh][kw][c][oc].
struct WeightsByInput {
  static constexpr bool kAlongK = true;
  static constexpr bool kIsDense = false;
  const float* w;
  Shape s;
  FastDivide byOc;
  __device__ __forceinline__ const float* base() const { return w; }
  __device__ __forceinline__ const float* at(int row, int k) const {
    int channel;
    const int tap = byOc.divide(k, channel);
    return w + (static_cast<int64_t>(tap) * s.c + row) * s.oc + channel;
  }
};

// Weight gradient A: row = (kh, kw, c), k = (n, oh, ow): the patches with the two indices
// exchanged.
struct PatchesTransposed {
  static constexpr bool kAlongK = false;
  static constexpr bool kIsDense = false;
  Patches patches;
  __device__ __forceinline__ const float* base() const { return patches.x; }
  __device__ __forceinline__ const float* at(int row, int k) const { return patches.at(k, row); }
};

Shape shapeOf(const tesra_conv& op) {
  return Shape{op.h,  op.w_, op.c,        op.kh,       op.kw,    op.oc,
               op.oh, op.ow, op.stride_h, op.stride_w, op.pad_h, op.pad_w};
}
FastDivide by(int d) {
  return FastDivide(static_cast<uint32_t>(d));
}
Patches patchesOf(const tesra_conv& op) {
  return Patches{op.x, shapeOf(op), by(op.ow), by(op.oh), by(op.c), by(op.kw)};
}

struct Extent {
  int m, n, k;
};
Extent extentOf(int32_t kind, const tesra_conv& op) {
  const int outputs = op.n * op.oh * op.ow, inputs = op.n * op.h * op.w_, taps = op.kh * op.kw;
  if (kind == TESRA_OP_CONV2D) return {outputs, op.oc, taps * op.c};
  if (kind == TESRA_OP_CONV2D_DX) return {inputs, op.c, taps * op.oc};
  return {taps * op.c, op.oc, outputs};
}

}  // namespace

size_t convScratch(int32_t kind, const tesra_conv& op, int multiprocessors) {
  const Extent x = extentOf(kind, op);
  return productScratch(x.m, x.n, x.k, multiprocessors);
}

cudaError_t launchConv(const Launch& launch, int32_t kind, const tesra_conv& op) {
  const Extent x = extentOf(kind, op);
  Epilogue e{op.out, nullptr, nullptr, x.m, x.n, x.k, false, false};
  if (kind == TESRA_OP_CONV2D) {
    e.bias = op.bias;
    e.relu = op.relu != 0;
    return launchProduct(launch, patchesOf(op), dense<false>(op.w, op.oc, op.oc), e);
  }
  if (kind == TESRA_OP_CONV2D_DX) {
    const GradientPatches a{op.dy,     shapeOf(op), by(op.w_),       by(op.h),
                            by(op.oc), by(op.kw),   by(op.stride_h), by(op.stride_w)};
    return launchProduct(launch, a, WeightsByInput{op.w, shapeOf(op), by(op.oc)}, e);
  }
  return launchProduct(launch, PatchesTransposed{patchesOf(op)}, dense<false>(op.dy, op.oc, op.oc),
                       e);
}

}  // namespace tesra::cuda
