// Owns the checks of norms, activations, embedding and attention on the device, against plain loops
// written from the headers of native/kernels alone.
#pragma once
#include <algorithm>

#include "check-tools.h"

namespace {

float activation(int kind, float x, float y) {
  switch (kind) {
    case TESRA_OP_GELU: return tesra_gelu(x);
    case TESRA_OP_GELU_GRAD: return x * tesra_gelu_derivative(y);
    case TESRA_OP_GELU_TANH: return tesra_gelu_tanh(x);
    case TESRA_OP_GELU_TANH_GRAD: return x * tesra_gelu_tanh_derivative(y);
    case TESRA_OP_SILU: return tesra_silu(x);
    case TESRA_OP_MUL: return x * y;
    case TESRA_OP_DIV: return x / y;
    case TESRA_OP_EXP: return tesra_exp(x);
    case TESRA_OP_LOG: return tesra_natural_log(x);
    case TESRA_OP_SQRT: return sqrtf(x);
    case TESRA_OP_ERF: return tesra_erf(x);
    case TESRA_OP_SIGMOID: return tesra_sigmoid(x);
    default: return x * tesra_silu_derivative(y);
  }
}
void checkActivations() {
  const int n = pick(1, 700);
  static const int kinds[] = {TESRA_OP_GELU,           TESRA_OP_GELU_GRAD, TESRA_OP_GELU_TANH,
                              TESRA_OP_GELU_TANH_GRAD, TESRA_OP_SILU,      TESRA_OP_SILU_GRAD,
                              TESRA_OP_MUL,           TESRA_OP_DIV,       TESRA_OP_EXP,
                              TESRA_OP_LOG,           TESRA_OP_SQRT,      TESRA_OP_ERF,
                              TESRA_OP_SIGMOID};
  for (const int kind : kinds) {
    FloatTensor x(n), y(n), out(n);
    fill(x, Values::special), fill(y, Values::special), poison(out);
    for (float& v : x.host) v *= 4.0f;
    x.send();
    tesra_op op{};
    op.kind = kind;
    op.u.map = {x.on, y.on, out.on, n, 0, 0};
    run(op);
    for (int i = 0; i < n; i++) out.host[i] = activation(kind, x.host[i], y.host[i]);
    compare(out, "activation " + dims({kind, n}));
  }
}

template <class At>
float laneSum(int n, At at) {
  float lanes[TESRA_LANES] = {};
  for (int c = 0; c < n; c++) lanes[c % TESRA_LANES] = at(c, lanes[c % TESRA_LANES]);
  for (int step = TESRA_LANES / 2; step > 0; step /= 2)
    for (int l = 0; l < step; l++) lanes[l] = lanes[l] + lanes[l + step];
  return lanes[0];
}

void checkNorm(bool centred) {
  const int rows = pick(1, 75), n = pick(1, 90);
  const float count = static_cast<float>(n), epsilon = 1e-5f;
  FloatTensor x(static_cast<size_t>(rows) * n), y(x.host.size()), dy(x.host.size()), dx(x.host.size());
  FloatTensor gamma(n), beta(n), mean(rows), rstd(rows), dgamma(n), dbeta(n);
  fill(x, coin(4) ? Values::special : Values::finite), fill(dy), fill(gamma), fill(beta);
  poison(y), poison(mean), poison(rstd), poison(dx), poison(dgamma), poison(dbeta);
  const std::string shape = dims({centred, rows, n});
  tesra_op op{};
  op.kind = centred ? TESRA_OP_LAYER_NORM : TESRA_OP_RMS_NORM;
  op.u.norm = {x.on,    gamma.on, centred ? beta.on : nullptr, y.on, centred ? mean.on : nullptr,
               rstd.on, rows,     n,                           epsilon};
  run(op);
  const auto at = [&](FloatTensor& t, int r, int c) -> float& { return t.host[static_cast<size_t>(r) * n + c]; };
  for (int r = 0; r < rows; r++) {
    const float m = centred ? laneSum(n, [&](int c, float s) { return s + at(x, r, c); }) / count : 0.0f;
    const float square = laneSum(n, [&](int c, float s) {
      const float d = centred ? at(x, r, c) - m : at(x, r, c);
      return fmaf(d, d, s);
    });
    const float s = 1.0f / sqrtf(square / count + epsilon);
    if (centred) mean.host[r] = m;
    rstd.host[r] = s;
    for (int c = 0; c < n; c++)
      at(y, r, c) = centred ? fmaf((at(x, r, c) - m) * s, gamma.host[c], beta.host[c])
                            : at(x, r, c) * s * gamma.host[c];
  }
  compare(y, "norm " + shape), compare(rstd, "norm rstd " + shape);
  if (centred) compare(mean, "norm mean " + shape);

  op.kind = centred ? TESRA_OP_LAYER_NORM_GRAD : TESRA_OP_RMS_NORM_GRAD;
  op.u.norm_grad = {dy.on, x.on,      gamma.on,                     centred ? mean.on : nullptr, rstd.on,
                    dx.on, dgamma.on, centred ? dbeta.on : nullptr, rows,                        n};
  run(op);
  std::fill(dgamma.host.begin(), dgamma.host.end(), 0.0f);
  if (centred) std::fill(dbeta.host.begin(), dbeta.host.end(), 0.0f);
  for (int first = 0; first < rows; first += TESRA_NORM_ROWS) {
    std::vector<float> sumGamma(n), sumBeta(n);
    for (int r = first; r < std::min(rows, first + TESRA_NORM_ROWS); r++) {
      const auto h = [&](int c) {
        return (centred ? at(x, r, c) - mean.host[r] : at(x, r, c)) * rstd.host[r];
      };
      const auto g = [&](int c) { return at(dy, r, c) * gamma.host[c]; };
      const float a = laneSum(n, [&](int c, float s) { return s + g(c); }) / count;
      const float b = laneSum(n, [&](int c, float s) { return fmaf(g(c), h(c), s); }) / count;
      for (int c = 0; c < n; c++) {
        const float t = fmaf(-h(c), b, g(c));
        at(dx, r, c) = (centred ? t - a : t) * rstd.host[r];
        sumGamma[c] = fmaf(at(dy, r, c), h(c), sumGamma[c]);
        sumBeta[c] = sumBeta[c] + at(dy, r, c);
      }
    }
    for (int c = 0; c < n; c++) {
      dgamma.host[c] = first == 0 ? sumGamma[c] : dgamma.host[c] + sumGamma[c];
      if (centred) dbeta.host[c] = first == 0 ? sumBeta[c] : dbeta.host[c] + sumBeta[c];
    }
  }
  compare(dx, "norm dx " + shape), compare(dgamma, "norm dgamma " + shape);
  if (centred) compare(dbeta, "norm dbeta " + shape);
}

void checkSoftmax() {
  const int rows = pick(1, 40), n = pick(1, 70);
  FloatTensor x(static_cast<size_t>(rows) * n), y(x.host.size()), dy(x.host.size()), dx(x.host.size());
  fill(x, coin(4) ? Values::special : Values::finite), fill(dy), poison(y), poison(dx);
  tesra_op op{};
  op.kind = TESRA_OP_SOFTMAX;
  op.u.softmax = {x.on, nullptr, y.on, rows, n};
  run(op);
  for (int r = 0; r < rows; r++) {
    const float* row = &x.host[static_cast<size_t>(r) * n];
    float best = row[0];
    for (int c = 1; c < n; c++) best = row[c] > best ? row[c] : best;
    const float inverse = 1.0f / laneSum(n, [&](int c, float s) { return s + tesra_exp(row[c] - best); });
    for (int c = 0; c < n; c++) y.host[static_cast<size_t>(r) * n + c] = tesra_exp(row[c] - best) * inverse;
  }
  compare(y, "softmax " + dims({rows, n}));
  op.kind = TESRA_OP_SOFTMAX_GRAD;
  op.u.softmax = {dy.on, y.on, dx.on, rows, n};
  run(op);
  for (int r = 0; r < rows; r++) {
    const size_t from = static_cast<size_t>(r) * n;
    const float d = laneSum(n, [&](int c, float s) { return fmaf(y.host[from + c], dy.host[from + c], s); });
    for (int c = 0; c < n; c++) dx.host[from + c] = y.host[from + c] * (dy.host[from + c] - d);
  }
  compare(dx, "softmax_grad " + dims({rows, n}));
}

void checkEmbedding() {
  const int rows = pick(1, 600), vocabulary = pick(1, 30), n = pick(1, 40);
  FloatTensor table(static_cast<size_t>(vocabulary) * n), out(static_cast<size_t>(rows) * n), bias(n);
  Tensor<int32_t> ids(rows);
  for (int32_t& id : ids.host) id = coin(20) ? static_cast<int32_t>(random32()) : pick(0, vocabulary - 1);
  ids.send();
  fill(table), fill(bias), poison(out);
  const std::string shape = dims({rows, vocabulary, n});
  const auto known = [&](int r) { return ids.host[r] >= 0 && ids.host[r] < vocabulary; };
  tesra_op op{};
  op.kind = TESRA_OP_EMBEDDING;
  op.u.embedding = {table.on, ids.on, out.on, rows, vocabulary, n};
  run(op);
  for (int r = 0; r < rows; r++)
    for (int c = 0; c < n; c++)
      out.host[static_cast<size_t>(r) * n + c] =
          known(r) ? table.host[static_cast<size_t>(ids.host[r]) * n + c] : NAN;
  compare(out, "embedding " + shape);
  fill(out);
  const bool accumulate = coin();
  op.kind = TESRA_OP_EMBEDDING_GRAD;
  op.u.embedding_grad = {out.on, ids.on, table.on, rows, vocabulary, n, accumulate};
  runOp(op);
  if (!accumulate) std::fill(table.host.begin(), table.host.end(), 0.0f);
  for (int r = 0; r < rows; r++)
    for (int c = 0; known(r) && c < n; c++) {
      float& to = table.host[static_cast<size_t>(ids.host[r]) * n + c];
      to = to + out.host[static_cast<size_t>(r) * n + c];
    }
  compare(table, "embedding_grad " + shape);
  op.kind = TESRA_OP_BIAS_ADD;
  op.u.bias_add = {out.on, bias.on, out.on, rows, n};
  runOp(op);
  for (size_t i = 0; i < out.host.size(); i++) out.host[i] = out.host[i] + bias.host[i % n];
  compare(out, "bias_add " + shape);
}

void checkRope() {
  const int length = pick(1, 40), rows = length * pick(0, 3), heads = pick(1, 3), half = pick(1, 20);
  const int size = 2 * half, columns = heads * size + (coin() ? 0 : pick(1, 30));
  FloatTensor x(static_cast<size_t>(rows) * columns), out(x.host.size());
  fill(x, coin(4) ? Values::special : Values::finite), poison(out);
  tesra_op op{};
  op.kind = TESRA_OP_ROPE;
  const bool inPlace = coin(), inverse = coin();
  op.u.rope = {x.on, inPlace ? x.on : out.on, rows, length, columns, heads, size, tesra_rope_ratio(10000.0, size), inverse};
  runOp(op);
  for (int r = 0; r < rows; r++)
    for (int c = 0; c < columns; c++) {
      const size_t at = static_cast<size_t>(r) * columns + c;
      if (c >= heads * size) { out.host[at] = x.host[at]; continue; }
      float cosine, sine;
      const bool low = c % size < half;
      tesra_rotation(op.u.rope.ratio, r % length, c % half, &cosine, &sine);
      if (inverse) sine = -sine;
      out.host[at] = low ? fmaf(x.host[at], cosine, -(x.host[at + half] * sine))
                         : fmaf(x.host[at], cosine, x.host[at - half] * sine);
    }
  if (inPlace) x.host = out.host, compare(x, "rope in place " + dims({rows, length, columns, heads, size}));
  else compare(out, "rope " + dims({rows, length, columns, heads, size}));
}

void checkCopy() {
  const int a = pick(1, 9), b = pick(0, 40), c = pick(1, 20), offset = pick(0, 5);
  FloatTensor x(static_cast<size_t>(a) * b * c + 5), out(static_cast<size_t>(a) * b * (c + 1) + 5);
  fill(x), fill(out);
  tesra_op op{};
  op.kind = TESRA_OP_COPY;
  tesra_copy& o = op.u.copy;
  o = {x.on + offset, out.on + offset, out.on, static_cast<int64_t>(out.host.size()), {1, 1, 1, a, b, c}, {}, {}, coin(), coin(3)};
  // from (a, b, c), a broadcast where coin says so, to (c + 1, b, a)
  const bool repeat = coin(3);
  const int64_t from[] = {repeat ? 0 : b * c, c, 1}, to[] = {1, a, int64_t{b} * a};
  for (int d = 0; d < 3; d++) o.from[3 + d] = from[d], o.to[3 + d] = to[d];
  runOp(op);
  if (o.clear) std::fill(out.host.begin(), out.host.end(), 0.0f);
  for (int i = 0; i < a; i++)
    for (int j = 0; j < b; j++)
      for (int k = 0; k < c; k++) {
        const float v = x.host[offset + i * from[0] + j * from[1] + k * from[2]];
        float& p = out.host[offset + i * to[0] + j * to[1] + k * to[2]];
        p = o.accumulate ? p + v : v;
      }
  compare(out, "copy " + dims({a, b, c, o.accumulate, o.clear}));
}

void checkDropoutAndClip() {
  const int n = pick(1, 9000);
  FloatTensor x(n), out(n), step(1), norm(1);
  fill(x), poison(out), poison(norm);
  step.host[0] = static_cast<float>(pick(0, 70000));
  step.send();
  tesra_op op{};
  op.kind = TESRA_OP_DROPOUT;
  op.u.dropout = {x.on, step.on, out.on, n, random32(), random32(), random32(), 0x333333u, 1.25f};
  run(op);
  for (int i = 0; i < n; i++) {
    const uint32_t counter[4] = {static_cast<uint32_t>(i / 4), 0, op.u.dropout.stream,
                                 static_cast<uint32_t>(step.host[0])};
    uint32_t words[4];
    tesra_philox(counter, op.u.dropout.key_low, op.u.dropout.key_high, words);
    out.host[i] = words[i % 4] >> 8 >= 0x333333u ? x.host[i] * 1.25f : 0.0f;
  }
  compare(out, "dropout " + dims({n}));
  for (const bool normal : {false, true}) {
    op.kind = TESRA_OP_FILL;
    op.u.fill = {out.on, n, random32(), random32(), random32(), normal, 0.7};
    run(op);
    const auto uniform = [&](int64_t w) {
      double u[4];
      tesra_uniforms(&op.u.fill, static_cast<uint64_t>(w / 4), u);
      return u[w % 4];
    };
    for (int i = 0; i < n; i++) {
      double sum = normal ? -6.0 : 2.0 * uniform(i) - 1.0;
      for (int w = 0; normal && w < 12; w++) sum = sum + uniform(int64_t{12} * i + w);
      out.host[i] = static_cast<float>(sum * 0.7);
    }
    compare(out, "fill " + dims({n, normal}));
  }
  op.kind = TESRA_OP_GLOBAL_NORM;
  op.u.global_norm = {x.on, norm.on, n};
  run(op);
  double sum = 0.0;
  for (int first = 0; first < n; first += TESRA_FLAT_CHUNK)
    sum += static_cast<double>(laneSum(std::min(n - first, TESRA_FLAT_CHUNK), [&](int c, float s) {
      return fmaf(x.host[first + c], x.host[first + c], s);
    }));
  norm.host[0] = static_cast<float>(sqrt(sum));
  compare(norm, "global_norm " + dims({n}));
  const float limit = norm.host[0] * (coin() ? 0.5f : 2.0f);
  op.kind = TESRA_OP_CLIP;
  const bool normalize = coin();
  op.u.clip = {x.on, norm.on, n, limit, normalize};
  runOp(op);
  const float factor = limit / (norm.host[0] + 1e-6f);
  for (float& v : x.host)
    if (factor < 1.0f || normalize) v = v * factor;
  compare(x, "clip " + dims({n}));
}

void checkAttention() {
  const int batch = pick(1, 2), length = pick(1, 150), heads = pick(1, 2), n = coin(6) ? pick(65, 128) : pick(1, 40);
  const bool causal = coin(3) == false;
  const int width = heads * n, block = TESRA_ATTENTION_BLOCK;
  FloatTensor qkv(static_cast<size_t>(batch) * length * 3 * width), out(qkv.host.size() / 3), dout(out.host.size());
  FloatTensor dqkv(qkv.host.size()), lse(static_cast<size_t>(batch) * heads * length);
  fill(qkv, coin(6) ? Values::special : Values::finite), fill(dout), poison(out), poison(lse), poison(dqkv);
  const std::string shape = dims({batch, length, heads, n, causal});
  tesra_op op{};
  op.kind = TESRA_OP_ATTENTION;
  op.u.attention = {qkv.on, out.on, lse.on, batch, length, heads, n, causal};
  run(op);
  const float scale = tesra_attention_scale(n);
  for (int h = 0; h < batch * heads; h++) {
    const auto at = [&](int t, int part, int c) {
      return ((static_cast<size_t>(h / heads) * length + t) * 3 + part) * width + h % heads * n + c;
    };
    const auto to = [&](int t, int c) { return (static_cast<size_t>(h / heads) * length + t) * width + h % heads * n + c; };
    const auto q = [&](int t, int c) { return qkv.host[at(t, 0, c)] * scale; };
    const auto seen = [&](int i, int j) { return j < length && !(causal && j > i); };
    const auto joined = [&](int i, int first) { return !causal || first <= i / block * block; };
    const auto score = [&](int i, int j) {
      float s = 0.0f;
      for (int c = 0; c < n; c++) s = fmaf(q(i, c), qkv.host[at(j, 1, c)], s);
      return s;
    };
    for (int i = 0; i < length; i++) {
      float m = -INFINITY, lanes[TESRA_LANES] = {};
      std::vector<float> sum(n);
      for (int first = 0; first < length && joined(i, first); first += block) {
        float s[TESRA_ATTENTION_BLOCK], best = m;
        for (int j = 0; j < block; j++) {
          s[j] = seen(i, first + j) ? score(i, first + j) : -INFINITY;
          best = s[j] > best ? s[j] : best;
        }
        const float f = tesra_exp(m - best);
        for (float& p : s) p = tesra_exp(p - best);
        for (int l = 0; l < TESRA_LANES; l++)
          lanes[l] = fmaf(lanes[l], f, ((s[l] + s[l + 16]) + s[l + 32]) + s[l + 48]);
        for (int c = 0; c < n; c++) {
          float chain = 0.0f;
          for (int j = 0; j < block && first + j < length; j++) chain = fmaf(s[j], qkv.host[at(first + j, 2, c)], chain);
          sum[c] = fmaf(sum[c], f, chain);
        }
        m = best;
      }
      for (int step = TESRA_LANES / 2; step > 0; step /= 2)
        for (int l = 0; l < step; l++) lanes[l] = lanes[l] + lanes[l + step];
      const float inverse = 1.0f / lanes[0];
      for (int c = 0; c < n; c++) out.host[to(i, c)] = sum[c] * inverse;
      lse.host[static_cast<size_t>(h) * length + i] = m + tesra_log(lanes[0]);
    }
  }
  compare(out, "attention " + shape), compare(lse, "attention lse " + shape);

  op.kind = TESRA_OP_ATTENTION_GRAD;
  op.u.attention_grad = {dout.on, qkv.on, out.on, lse.on, dqkv.on, batch, length, heads, n, causal};
  run(op);
  for (int h = 0; h < batch * heads; h++) {
    const auto at = [&](int t, int part, int c) {
      return ((static_cast<size_t>(h / heads) * length + t) * 3 + part) * width + h % heads * n + c;
    };
    const auto to = [&](int t, int c) { return (static_cast<size_t>(h / heads) * length + t) * width + h % heads * n + c; };
    std::vector<float> e(length);
    for (int i = 0; i < length; i++)
      e[i] = laneSum(n, [&](int c, float s) { return fmaf(dout.host[to(i, c)], out.host[to(i, c)], s); });
    for (int keys = 0; keys < length; keys += block)
      for (int queries = causal ? keys : 0; queries < length; queries += block) {
        const int rows = std::min(block, length - queries), columns = std::min(block, length - keys);
        std::vector<float> p(static_cast<size_t>(block) * block), ds(p.size());
        for (int i = 0; i < rows; i++)
          for (int j = 0; j < columns; j++) {
            float s = 0.0f, dp = 0.0f;
            for (int c = 0; c < n; c++) {
              s = fmaf(qkv.host[at(queries + i, 0, c)] * scale, qkv.host[at(keys + j, 1, c)], s);
              dp = fmaf(dout.host[to(queries + i, c)], qkv.host[at(keys + j, 2, c)], dp);
            }
            const bool pair = !(causal && keys + j > queries + i);
            const float w = pair ? tesra_exp(s - lse.host[static_cast<size_t>(h) * length + queries + i]) : 0.0f;
            p[i * block + j] = w;
            ds[i * block + j] = w * (dp - e[queries + i]);
          }
        for (int c = 0; c < n; c++) {
          for (int j = 0; j < columns; j++) {
            float dk = 0.0f, dv = 0.0f;
            for (int i = 0; i < rows; i++) {
              dv = fmaf(p[i * block + j], dout.host[to(queries + i, c)], dv);
              dk = fmaf(ds[i * block + j], qkv.host[at(queries + i, 0, c)] * scale, dk);
            }
            const bool first = queries == (causal ? keys : 0);
            float &k = dqkv.host[at(keys + j, 1, c)], &v = dqkv.host[at(keys + j, 2, c)];
            k = first ? dk : k + dk, v = first ? dv : v + dv;
          }
          for (int i = 0; i < rows; i++) {
            float dq = 0.0f;
            for (int j = 0; j < columns; j++) dq = fmaf(ds[i * block + j], qkv.host[at(keys + j, 1, c)], dq);
            float& q = dqkv.host[at(queries + i, 0, c)];
            q = keys == 0 ? dq : q + dq;
          }
        }
      }
    for (int i = 0; i < length; i++)
      for (int c = 0; c < n; c++) dqkv.host[at(i, 0, c)] = scale * dqkv.host[at(i, 0, c)];
  }
  compare(dqkv, "attention_grad " + shape);
}

}  // namespace
