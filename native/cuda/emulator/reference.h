// Owns the plain loops that say what each operation must compute, written from native/kernels/*.h
// alone. Invariant: no code is shared with the kernels but exact-math.h; bits are compared, so
// orders matter.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "../../kernels/backend.h"

namespace reference {

using Floats = std::vector<float>;
using Words = std::vector<uint32_t>;

// at(i, j, k, a, b) gives the two factors of output (i, j) at k.
template <class At>
float chain(int depth, bool accumulate, float c, At at) {
  float sum = accumulate ? c : 0.0f;
  for (int begin = 0; begin < depth; begin += TESRA_K_CHUNK) {
    float chunk = 0.0f;
    for (int k = begin; k < depth && k < begin + TESRA_K_CHUNK; k++) {
      float a = 0.0f, b = 0.0f;
      at(k, a, b);
      chunk = fmaf(a, b, chunk);
    }
    sum = begin == 0 && !accumulate ? chunk : sum + chunk;
  }
  return sum;
}
inline float activated(int activation, float s, const float* before) {
  const auto derivative = [&](float slope) { return s * slope; };
  if (activation == TESRA_ACTIVATION_RELU)
    return before ? (*before > 0.0f ? s : 0.0f) : tesra_relu(s);
  if (activation == TESRA_ACTIVATION_GELU)
    return before ? derivative(tesra_gelu_derivative(*before)) : tesra_gelu(s);
  if (activation == TESRA_ACTIVATION_GELU_TANH)
    return before ? derivative(tesra_gelu_tanh_derivative(*before)) : tesra_gelu_tanh(s);
  if (activation == TESRA_ACTIVATION_SILU)
    return before ? derivative(tesra_silu_derivative(*before)) : tesra_silu(s);
  return s;
}
// All that gemm.h has behind the sum of output i, in the given column.
inline float fused(const tesra_gemm& o, size_t i, int column, float s) {
  if (o.bias) s = s + o.bias[column];
  if (o.saved) o.saved[i] = s;
  s = activated(o.activation, s, o.before ? o.before + i : nullptr);
  return o.residual ? s + o.residual[i] : s;
}
inline float finish(float sum, const float* bias, int column, bool relu) {
  if (bias) sum = sum + bias[column];
  return relu ? tesra_relu(sum) : sum;
}

// One run by the definition in exact.h, in doubles, which hold every step exactly.
struct CutRun {
  std::vector<std::vector<double>> slices;
  double scale;
};
inline CutRun cut(const std::vector<float>& x, int slices) {
  uint32_t largest = 0;
  for (const float f : x) largest = std::max(largest, tesra_float_bits(f) & 0x7fffffffu);
  CutRun out{std::vector<std::vector<double>>(slices, std::vector<double>(x.size())), NAN};
  if (largest >= 0x7f800000u) return out;
  const int e = std::max<int>(largest >> 23, 1) - 126;
  out.scale = std::ldexp(1.0, e - 6);
  for (size_t i = 0; i < x.size(); i++) {
    double t = std::ldexp(static_cast<double>(x[i]), 6 - e);
    for (int s = 0; s < slices; s++) {
      out.slices[s][i] = std::rint(t);
      t = (t - out.slices[s][i]) * 128;
    }
  }
  return out;
}
inline void exactGemm(const tesra_exact_gemm& e) {
  const tesra_gemm& o = e.gemm;
  const auto runs = [&](const float* p, int count, int64_t apart, int64_t step) {
    std::vector<CutRun> out;
    for (int r = 0; r < count; r++) {
      std::vector<float> x(o.k);
      for (int i = 0; i < o.k; i++) x[i] = p[r * apart + i * step];
      out.push_back(cut(x, e.slices));
    }
    return out;
  };
  const auto rows = runs(o.a, o.m, o.trans_a ? 1 : o.k, o.trans_a ? o.m : 1);
  const auto columns = runs(o.b, o.n, o.trans_b ? o.k : 1, o.trans_b ? 1 : o.n);
  for (int i = 0; i < o.m; i++)
    for (int j = 0; j < o.n; j++) {
      double q = 0;
      for (int order = 0; order < e.slices; order++) {
        q *= 128;
        for (int s = 0; s <= order; s++)
          for (int l = 0; l < o.k; l++) q += rows[i].slices[s][l] * columns[j].slices[order - s][l];
      }
      const size_t at = static_cast<size_t>(i) * o.n + j;
      float& c = o.c[at];
      const float value = static_cast<float>(q * rows[i].scale * columns[j].scale *
                                             std::ldexp(1.0, -7 * (e.slices - 1)));
      c = fused(o, at, j, o.accumulate ? c + value : value);
    }
}

inline void gemm(const tesra_gemm& o) {
  for (int i = 0; i < o.m; i++)
    for (int j = 0; j < o.n; j++) {
      const size_t at = static_cast<size_t>(i) * o.n + j;
      float& c = o.c[at];
      c = fused(o, at, j, chain(o.k, o.accumulate, c,
                       [&](int k, float& a, float& b) {
                         a = o.trans_a ? o.a[static_cast<int64_t>(k) * o.m + i]
                                       : o.a[static_cast<int64_t>(i) * o.k + k];
                         b = o.trans_b ? o.b[static_cast<int64_t>(j) * o.k + k]
                                       : o.b[static_cast<int64_t>(k) * o.n + j];
                       }));
    }
}

// The result in doubles from operands rounded to bf16, and how far fp32 sums may lie from it.
inline void bf16Gemm(const tesra_gemm& o, float* out, float* margin) {
  for (int i = 0; i < o.m; i++)
    for (int j = 0; j < o.n; j++) {
      float& c = out[static_cast<int64_t>(i) * o.n + j];
      double sum = o.accumulate ? c : 0.0, size = std::fabs(sum);
      for (int k = 0; k < o.k; k++) {
        const double a = tesra_bf16_round(o.trans_a ? o.a[static_cast<int64_t>(k) * o.m + i]
                                           : o.a[static_cast<int64_t>(i) * o.k + k]);
        const double b = tesra_bf16_round(o.trans_b ? o.b[static_cast<int64_t>(j) * o.k + k]
                                           : o.b[static_cast<int64_t>(k) * o.n + j]);
        sum += a * b;
        size += std::fabs(a * b);
      }
      if (o.bias) sum += o.bias[j], size += std::fabs(o.bias[j]);
      c = static_cast<float>(sum);
      if (o.activation == TESRA_ACTIVATION_RELU) c = tesra_relu(c);
      margin[static_cast<int64_t>(i) * o.n + j] =
          static_cast<float>((o.k + 8) * 0x1p-23 * size) + 0x1p-126f;
    }
}

inline void biasGrad(const tesra_bias_grad& o) {
  for (int j = 0; j < o.n; j++) {
    float sum = 0.0f;
    for (int64_t begin = 0; begin < o.m; begin += TESRA_ROW_CHUNK) {
      float chunk = 0.0f;
      for (int64_t i = begin; i < o.m && i < begin + TESRA_ROW_CHUNK; i++)
        chunk = chunk + o.dy[i * o.n + j];
      sum = begin == 0 ? chunk : sum + chunk;
    }
    o.db[j] = sum;
  }
}

inline float pixel(const float* x, const tesra_conv& o, int n, int h, int w, int c) {
  if (h < 0 || w < 0 || h >= o.h || w >= o.w_) return 0.0f;
  return x[((static_cast<int64_t>(n) * o.h + h) * o.w_ + w) * o.c + c];
}
inline float weight(const tesra_conv& o, int kh, int kw, int c, int oc) {
  return o.w[((kh * o.kw + kw) * o.c + c) * o.oc + oc];
}
inline float outputGradient(const tesra_conv& o, int n, int i, int j, int oc) {
  return o.dy[((static_cast<int64_t>(n) * o.oh + i) * o.ow + j) * o.oc + oc];
}
inline void conv(int kind, const tesra_conv& o) {
  if (kind == TESRA_OP_CONV2D) {
    for (int row = 0; row < o.n * o.oh * o.ow; row++)
      for (int oc = 0; oc < o.oc; oc++) {
        const int j = row % o.ow, i = row / o.ow % o.oh, n = row / o.ow / o.oh;
        const float sum = chain(o.kh * o.kw * o.c, false, 0, [&](int k, float& a, float& b) {
          const int c = k % o.c, kw = k / o.c % o.kw, kh = k / o.c / o.kw;
          a = pixel(o.x, o, n, i * o.stride_h + kh - o.pad_h, j * o.stride_w + kw - o.pad_w, c);
          b = weight(o, kh, kw, c, oc);
        });
        o.out[static_cast<int64_t>(row) * o.oc + oc] = finish(sum, o.bias, oc, o.relu);
      }
  } else if (kind == TESRA_OP_CONV2D_DX) {
    for (int row = 0; row < o.n * o.h * o.w_; row++)
      for (int c = 0; c < o.c; c++) {
        const int w = row % o.w_, h = row / o.w_ % o.h, n = row / o.w_ / o.h;
        o.out[static_cast<int64_t>(row) * o.c + c] =
            chain(o.kh * o.kw * o.oc, false, 0, [&](int k, float& a, float& b) {
              const int oc = k % o.oc, kw = k / o.oc % o.kw, kh = k / o.oc / o.kw;
              const int up = h + o.pad_h - kh, left = w + o.pad_w - kw;
              if (up >= 0 && left >= 0 && up % o.stride_h == 0 && left % o.stride_w == 0 &&
                  up / o.stride_h < o.oh && left / o.stride_w < o.ow)
                a = outputGradient(o, n, up / o.stride_h, left / o.stride_w, oc);
              b = weight(o, kh, kw, c, oc);
            });
      }
  } else {
    for (int row = 0; row < o.kh * o.kw * o.c; row++)
      for (int oc = 0; oc < o.oc; oc++) {
        const int c = row % o.c, kw = row / o.c % o.kw, kh = row / o.c / o.kw;
        o.out[row * o.oc + oc] = chain(o.n * o.oh * o.ow, false, 0, [&](int k, float& a, float& b) {
          const int j = k % o.ow, i = k / o.ow % o.oh, n = k / o.ow / o.oh;
          a = pixel(o.x, o, n, i * o.stride_h + kh - o.pad_h, j * o.stride_w + kw - o.pad_w, c);
          b = outputGradient(o, n, i, j, oc);
        });
      }
  }
}

inline void pool(int kind, const tesra_pool& o) {
  const int64_t inputs = static_cast<int64_t>(o.n) * o.h * o.w * o.c,
                outputs = static_cast<int64_t>(o.n) * o.oh * o.ow * o.c;
  const float cells = static_cast<float>(o.kernel * o.kernel);
  const bool forward = kind == TESRA_OP_MAXPOOL || kind == TESRA_OP_AVGPOOL;
  if (!forward)
    for (int64_t i = 0; i < inputs; i++) o.out[i] = 0.0f;
  for (int64_t at = 0; at < outputs; at++) {
    if (kind == TESRA_OP_MAXPOOL_GRAD) {
      const int64_t index = o.index[at], n = at / (outputs / o.n), image = inputs / o.n;
      if (index >= n * image && index < (n + 1) * image) o.out[index] += o.dy[at];
      continue;
    }
    const int c = at % o.c, x = at / o.c % o.ow, y = at / o.c / o.ow % o.oh,
              n = at / o.c / o.ow / o.oh;
    float value = 0.0f;
    int index = -1;
    for (int i = 0; i < o.kernel; i++)
      for (int j = 0; j < o.kernel; j++) {
        const int from = ((n * o.h + y * o.stride + i) * o.w + x * o.stride + j) * o.c + c;
        if (kind == TESRA_OP_AVGPOOL_GRAD) o.out[from] += o.dy[at] / cells;
        if (kind == TESRA_OP_AVGPOOL) value += o.x[from];
        if (kind == TESRA_OP_MAXPOOL && (index < 0 || o.x[from] > value || std::isnan(o.x[from])))
          value = o.x[from], index = from;
      }
    if (kind == TESRA_OP_AVGPOOL) o.out[at] = value / cells;
    if (kind == TESRA_OP_MAXPOOL) o.out[at] = value, o.index_out[at] = index;
  }
}

// Element i of n by its lane; the lanes fold by 8, 4, 2, 1.
template <class At>
float laneSum(int64_t n, At at) {
  float lanes[TESRA_LANES] = {};
  for (int64_t i = 0; i < n; i++) lanes[i % TESRA_LANES] += at(i);
  for (int apart = TESRA_LANES / 2; apart > 0; apart /= 2)
    for (int i = 0; i < apart; i++) lanes[i] += lanes[i + apart];
  return lanes[0];
}
inline int firstMaximum(const float* x, int classes) {
  int best = 0;
  for (int c = 1; c < classes; c++)
    if (x[c] > x[best]) best = c;
  return best;
}
inline void softmaxXent(const tesra_softmax_xent& o) {
  Floats losses(o.rows);
  for (int row = 0; row < o.rows; row++) {
    const float* x = o.logits + static_cast<int64_t>(row) * o.classes;
    const int label = o.labels[row];
    const bool known = label >= 0 && label < o.classes;
    const float mx = x[firstMaximum(x, o.classes)];
    const float sum = laneSum(o.classes, [&](int64_t c) { return tesra_exp(x[c] - mx); });
    losses[row] = known ? (mx - x[label]) + tesra_log(sum) : NAN;
    for (int c = 0; o.dlogits && c < o.classes; c++)
      o.dlogits[static_cast<int64_t>(row) * o.classes + c] =
          known ? ((tesra_exp(x[c] - mx) / sum) - (c == label ? 1.0f : 0.0f)) *
                      (1.0f / static_cast<float>(o.rows))
                : 0.0f;
  }
  float total = 0.0f;
  for (int begin = 0; begin < o.rows; begin += TESRA_FLAT_CHUNK) {
    const int n = std::min(o.rows - begin, TESRA_FLAT_CHUNK);
    const float sum = laneSum(n, [&](int64_t i) { return losses[begin + i]; });
    total = begin == 0 ? sum : total + sum;
  }
  o.loss[0] = o.rows ? total / static_cast<float>(o.rows) : 0.0f;
}
inline void countCorrect(const tesra_count_correct& o) {
  int count = 0;
  for (int row = 0; row < o.rows; row++)
    count +=
        firstMaximum(o.logits + static_cast<int64_t>(row) * o.classes, o.classes) == o.labels[row];
  o.count[0] = static_cast<float>(count);
}

inline float flush(float x) {
  return std::fabs(x) < TESRA_FLOAT_TINY ? 0.0f : x;
}
inline void sgd(int kind, const tesra_sgd& o) {
  const float rate = static_cast<float>(-o.learning_rate), mu = static_cast<float>(o.momentum);
  for (int64_t i = 0; i < o.n; i++) {
    const float gd =
        o.weight_decay != 0 ? fmaf(static_cast<float>(o.weight_decay), o.p[i], o.g[i]) : o.g[i];
    float u = gd;
    if (kind == TESRA_OP_MOMENTUM) {
      o.m[i] = flush(fmaf(mu, o.m[i], gd));
      u = o.nesterov ? fmaf(mu, o.m[i], gd) : o.m[i];
    }
    o.p[i] = fmaf(rate, u, o.p[i]);
  }
}
inline void adam(const tesra_adam& o) {
  uint32_t t = o.step;
  if (o.step_counter) t = static_cast<uint32_t>(o.step_counter[0] += 1.0f);
  const tesra_adam_coefficients_t k = tesra_adam_coefficients(&o, t);
  for (int64_t i = 0; i < o.n; i++) {
    if (o.weight_decay != 0) o.p[i] = o.p[i] * k.decay;
    o.m[i] = flush(fmaf(k.beta1, o.m[i], k.omb1 * o.g[i]));
    o.v[i] = flush(fmaf(k.beta2, o.v[i], k.omb2 * (o.g[i] * o.g[i])));
    const float d = fmaf(sqrtf(o.v[i]), k.root, k.epsilon);
    o.p[i] = fmaf(-k.alpha, o.m[i] / d, o.p[i]);
  }
}
inline void delayCompensate(const tesra_delay_compensate& o) {
  for (int64_t i = 0; i < o.n; i++)
    o.g[i] = fmaf(o.lambda * (o.g[i] * o.g[i]), o.w_now[i] - o.w_base[i], o.g[i]);
}

// BLAKE3, recursive, as in the specification's section 2: chunks, then left subtrees of a power of
// two.
class Blake3 {
 public:
  Blake3(const uint8_t* data, size_t size, const uint8_t* key) : data_(data), size_(size) {
    const uint32_t iv[8] = TESRA_BLAKE3_IV;
    memcpy(key_, iv, 32);
    if (key) memcpy(key_, key, 32), mode_ = TESRA_BLAKE3_KEYED;
  }
  Words hash() { return node(0, size_, TESRA_BLAKE3_ROOT); }

 private:
  Words node(size_t begin, size_t size, uint32_t root) {
    Words cv(key_, key_ + 8);
    if (size <= TESRA_BLAKE3_CHUNK) {
      const size_t blocks = size ? (size + 63) / 64 : 1;
      for (size_t b = 0; b < blocks; b++) {
        uint32_t m[16] = {};
        const size_t length = std::min<size_t>(64, size - b * 64);
        if (length) memcpy(m, data_ + begin + b * 64, length);
        uint32_t flags = mode_ | (b == 0 ? TESRA_BLAKE3_CHUNK_START : 0);
        if (b + 1 == blocks) flags |= TESRA_BLAKE3_CHUNK_END | root;
        cv = compress(cv, m, begin / TESRA_BLAKE3_CHUNK, static_cast<uint32_t>(length), flags);
      }
      return cv;
    }
    size_t left = TESRA_BLAKE3_CHUNK;
    while (left * 2 < size) left *= 2;
    const Words l = node(begin, left, 0), r = node(begin + left, size - left, 0);
    uint32_t m[16];
    memcpy(m, l.data(), 32);
    memcpy(m + 8, r.data(), 32);
    return compress(cv, m, 0, 64, mode_ | TESRA_BLAKE3_PARENT | root);
  }
  static Words compress(const Words& cv, const uint32_t* message, uint64_t counter, uint32_t length,
                        uint32_t flags) {
    static const int order[16] = {2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8};
    static const int columns[8][4] = {{0, 4, 8, 12},  {1, 5, 9, 13},  {2, 6, 10, 14},
                                      {3, 7, 11, 15}, {0, 5, 10, 15}, {1, 6, 11, 12},
                                      {2, 7, 8, 13},  {3, 4, 9, 14}};
    const uint32_t iv[8] = TESRA_BLAKE3_IV;
    uint32_t v[16], m[16];
    for (int i = 0; i < 8; i++) v[i] = cv[i];
    for (int i = 0; i < 4; i++) v[8 + i] = iv[i];
    v[12] = static_cast<uint32_t>(counter), v[13] = static_cast<uint32_t>(counter >> 32),
    v[14] = length, v[15] = flags;
    memcpy(m, message, 64);
    const auto turn = [](uint32_t x, int by) { return x >> by | x << (32 - by); };
    for (int round = 0; round < 7; round++) {
      for (int g = 0; g < 8; g++) {
        uint32_t &a = v[columns[g][0]], &b = v[columns[g][1]], &c = v[columns[g][2]],
                 &d = v[columns[g][3]];
        a += b + m[2 * g], d = turn(d ^ a, 16), c += d, b = turn(b ^ c, 12);
        a += b + m[2 * g + 1], d = turn(d ^ a, 8), c += d, b = turn(b ^ c, 7);
      }
      uint32_t next[16];
      for (int i = 0; i < 16; i++) next[i] = m[order[i]];
      memcpy(m, next, 64);
    }
    Words out(8);
    for (int i = 0; i < 8; i++) out[i] = v[i] ^ v[i + 8];
    return out;
  }
  const uint8_t* data_;
  size_t size_;
  uint32_t key_[8];
  uint32_t mode_ = 0;
};

// Transcript of one tile from its 8 rows of A and 16 rows of B-transposed.
inline Words transcript(const int8_t* const* rows, const int8_t* const* columns, int k) {
  int32_t sum[8][16] = {};
  Words j(16);
  for (int s = 0; s < k / TESRA_CRM_CHUNK; s++) {
    uint32_t x = 0;
    for (int r = 0; r < 8; r++)
      for (int c = 0; c < 16; c++) {
        for (int i = s * TESRA_CRM_CHUNK; i < (s + 1) * TESRA_CRM_CHUNK; i++)
          sum[r][c] += rows[r][i] * columns[c][i];
        x ^= static_cast<uint32_t>(sum[r][c]);
      }
    j[s % 16] = (j[s % 16] << TESRA_CRM_ROTATE | j[s % 16] >> (32 - TESRA_CRM_ROTATE)) ^ x;
  }
  return j;
}
// Appends one row of a challenge matrix, as pow.h defines it.
inline void challengeRow(const uint8_t* seed, uint32_t matrix, int row, int k,
                         std::vector<int8_t>& out) {
  const auto rotl = [](uint32_t x, int n) { return x << n | x >> (32 - n); };
  uint32_t start[16] = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574};
  memcpy(start + 4, seed, 32);
  start[13] = matrix, start[14] = static_cast<uint32_t>(row);
  const size_t end = out.size() + static_cast<size_t>(k);
  for (; out.size() < end; start[12]++) {
    uint32_t v[16];
    memcpy(v, start, sizeof v);
    const auto quarter = [&](int a, int b, int c, int d) {
      v[a] += v[b], v[d] = rotl(v[d] ^ v[a], 16), v[c] += v[d], v[b] = rotl(v[b] ^ v[c], 12);
      v[a] += v[b], v[d] = rotl(v[d] ^ v[a], 8), v[c] += v[d], v[b] = rotl(v[b] ^ v[c], 7);
    };
    for (int i = 0; i < 80; i++) {
      const int g = i % 8, turn = g / 4;
      quarter(g % 4, 4 + (g + turn) % 4, 8 + (g + 2 * turn) % 4, 12 + (g + 3 * turn) % 4);
    }
    for (int i = 0; i < 64 && out.size() < end; i++) {
      const uint8_t byte = static_cast<uint8_t>((v[i / 4] + start[i / 4]) >> (8 * (i % 4)));
      if (byte != 0x80) out.push_back(static_cast<int8_t>(byte));
    }
  }
}

inline Words tileTranscript(const tesra_crm_scan& o, uint32_t tile) {
  const uint32_t lane = tile % 32, g = lane / 4, t = lane % 4, block = tile / 32;
  const uint32_t b = block / (o.n / 64), c = block % (o.n / 64);
  const int8_t* rows[8];
  const int8_t* columns[16];
  for (uint32_t i = 0; i < 8; i++) rows[i] = o.a + static_cast<size_t>(64 * b + g + 8 * i) * o.k;
  for (uint32_t i = 0; i < 16; i++)
    columns[i] = o.bt + static_cast<size_t>(64 * c + 2 * t + 8 * (i / 2) + i % 2) * o.k;
  return transcript(rows, columns, o.k);
}

}  // namespace reference
