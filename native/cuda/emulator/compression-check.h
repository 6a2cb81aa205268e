// Owns the check of gradient compression: bytes, residuals and expansions against plain loops
// written from native/kernels/compression.h.
#pragma once
#include <algorithm>
#include <numeric>

#include "check-tools.h"

namespace {

struct PlainMessage {
  std::vector<uint8_t> bytes;
  void word(uint32_t x) {
    for (int i = 0; i < 4; i++) bytes.push_back(static_cast<uint8_t>(x >> (8 * i)));
  }
};

uint32_t sizeBits(float t) {
  return tesra_float_bits(t) & 0x7fffffffu;
}

void plainTopk(const tesra_compress& c, std::vector<float>& t, PlainMessage& out) {
  std::vector<uint32_t> order(t.size());
  std::iota(order.begin(), order.end(), 0u);
  std::stable_sort(order.begin(), order.end(),
                   [&](uint32_t i, uint32_t j) { return sizeBits(t[i]) > sizeBits(t[j]); });
  order.resize(c.parameter);
  std::sort(order.begin(), order.end());
  for (const uint32_t i : order) out.word(i);
  for (const uint32_t i : order) out.word(tesra_float_bits(t[i])), t[i] = 0.0f;
}

void plainInt8(const tesra_compress& c, std::vector<float>& t, PlainMessage& out) {
  std::vector<int8_t> q(t.size());
  for (size_t begin = 0; begin < t.size(); begin += c.parameter) {
    const size_t end = std::min<size_t>(t.size(), begin + c.parameter);
    uint32_t most = 0;
    for (size_t i = begin; i < end; i++) most = std::max(most, sizeBits(t[i]));
    const float a = tesra_bits_float(most);
    const bool finite = most < 0x7f800000u, tiny = a < TESRA_INT8_TINY;
    const float scale = !finite ? NAN : tiny ? 0.0f : a / 127.0f;
    out.word(finite ? tesra_float_bits(scale) : 0x7fc00000u);
    for (size_t i = begin; i < end; i++) {
      if (!finite) t[i] = 0.0f;
      if (!finite || tiny) continue;
      const float r = t[i] * (127.0f / a);
      float whole = std::rint(r);
      if (c.stochastic) {
        const uint32_t counter[4] = {static_cast<uint32_t>(i / 4), c.stream, 0, 0};
        uint32_t words[4];
        tesra_philox(counter, c.key_low, c.key_high, words);
        whole = std::min(127.0f, std::floor(r + static_cast<float>(words[i % 4] >> 8) * 0x1p-24f));
      }
      q[i] = static_cast<int8_t>(whole);
      t[i] = t[i] - static_cast<float>(q[i]) * scale;
    }
  }
  for (const int8_t x : q) out.bytes.push_back(static_cast<uint8_t>(x));
}

void plainSign(const tesra_compress& c, std::vector<float>& t, PlainMessage& out) {
  std::vector<uint8_t> bits((t.size() + 7) / 8);
  for (size_t begin = 0; begin < t.size(); begin += c.parameter) {
    const int64_t n = static_cast<int64_t>(std::min<size_t>(t.size() - begin, c.parameter));
    const float sum = reference::laneSum(n, [&](int64_t i) { return std::fabs(t[begin + i]); });
    const bool finite = std::isfinite(sum);
    const float magnitude = sum / static_cast<float>(n);
    out.word(finite ? tesra_float_bits(magnitude) : 0x7fc00000u);
    for (size_t i = begin; i < begin + n; i++) {
      const bool negative = tesra_float_bits(t[i]) >> 31;
      bits[i / 8] |= static_cast<uint8_t>(negative << (i % 8));
      t[i] = finite ? t[i] - (negative ? -magnitude : magnitude) : 0.0f;
    }
  }
  out.bytes.insert(out.bytes.end(), bits.begin(), bits.end());
}

void checkDecompress(const tesra_compress& c, uint8_t* packed, size_t size) {
  FloatTensor out(c.n);
  std::vector<uint8_t> host(size);
  must(backend->download(device, host.data(), packed, size, &error), "download");
  const uint32_t* const words = reinterpret_cast<const uint32_t*>(host.data());
  std::vector<float> element(c.n);
  std::vector<bool> sent(c.n, c.kind != TESRA_TOPK);
  const size_t blocks = c.parameter ? (c.n + c.parameter - 1) / c.parameter : 0;
  if (c.kind == TESRA_TOPK)
    for (uint32_t i = 0; i < c.parameter; i++) {
      element[words[4 + i]] = tesra_bits_float(words[4 + c.parameter + i]);
      sent[words[4 + i]] = true;
    }
  else
    for (int64_t i = 0; i < c.n; i++) {
      const float unit = tesra_bits_float(words[4 + i / c.parameter]);
      const uint8_t* const parts = host.data() + TESRA_PACKED_HEADER + 4 * blocks;
      element[i] = c.kind == TESRA_INT8 ? static_cast<float>(static_cast<int8_t>(parts[i])) * unit
                   : parts[i / 8] >> (i % 8) & 1 ? -unit
                                                 : unit;
    }
  for (const bool add : {false, true}) {
    fill(out);
    tesra_op op{};
    op.kind = TESRA_OP_DECOMPRESS;
    op.u.decompress = {packed, size, out.on, c.n, -0.7f, add, c.kind, c.parameter};
    run(op);
    for (int64_t i = 0; i < c.n; i++) {
      float& to = out.host[i];
      to = add ? (sent[i] ? fmaf(-0.7f, element[i], to) : to) : (sent[i] ? -0.7f * element[i] : 0.0f);
    }
    compare(out, "decompress " + dims({c.kind, c.parameter, c.n, add}));
  }
}

void checkCompression(int kind) {
  tesra_compress c{};
  c.kind = kind;
  c.n = coin(6) ? 0 : coin(3) ? pick(16000, 40000) : pick(1, 3000);
  c.parameter = kind == TESRA_TOPK ? pick(0, static_cast<int>(c.n)) : 64u * pick(1, coin() ? 4 : 40);
  if (kind == TESRA_TOPK && coin()) c.parameter = static_cast<uint32_t>(c.n / 100);
  c.stochastic = kind == TESRA_INT8 && coin();
  c.key_low = random32(), c.key_high = random32(), c.stream = random32();
  FloatTensor x(c.n), residual(c.n);
  fill(x, coin(3) ? Values::special : Values::finite), fill(residual);
  // Ties: the lower index is taken.
  if (coin()) {
    for (float& v : x.host) v = std::rint(v * 3.0f);
    for (float& v : residual.host) v = 0.0f;
  }
  if (coin(4))
    for (float& v : x.host) v = std::ldexp(v, -125);
  x.send(), residual.send();
  const bool feedback = coin(4) == false;
  const size_t size = static_cast<size_t>(tesra_packed_size(kind, c.parameter, c.n));
  Tensor<uint8_t> packed(size);
  c.x = x.on, c.residual = feedback ? residual.on : nullptr, c.out = packed.on;
  tesra_op op{};
  op.kind = TESRA_OP_COMPRESS;
  op.u.compress = c;
  run(op);

  std::vector<float> t = x.host;
  if (feedback)
    for (int64_t i = 0; i < c.n; i++) t[i] = tesra_fed(x.host[i] + residual.host[i]);
  PlainMessage message;
  message.word(TESRA_PACKED_MAGIC + static_cast<uint32_t>(kind)), message.word(c.parameter);
  message.word(static_cast<uint32_t>(c.n)), message.word(0);
  kind == TESRA_TOPK   ? plainTopk(c, t, message)
  : kind == TESRA_INT8 ? plainInt8(c, t, message)
                       : plainSign(c, t, message);
  const std::string what = "compress " + dims({kind, c.parameter, c.n, feedback});
  if (message.bytes != packed.fetch()) wrong(what + ": the bytes differ");
  checks++;
  if (feedback) residual.host = t;
  compare(residual, what + " residual");
  checkDecompress(c, packed.on, size);
}

}  // namespace
