// Owns the check of the whole CUDA back end, on the emulated device or (compiled by nvcc) on a GPU:
// every operation on random shapes and hostile values, at once or as a plan, bit for bit against
// the plain loops of reference.h. Usage: check [seed] [rounds] [large]; exit 0 when all agree, 1
// with the first difference, 4 without a GPU.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "../../cpu/cn2/cn2.h"
#include "check-tools.h"
#include "transformer-check.h"

namespace {

// Within the bound of gemm.h, and NaN and infinity where the definition has them.
void checkBf16Gemm(const tesra_gemm& on, const tesra_gemm& plain, FloatTensor& c,
                   const std::string& what) {
  std::vector<float> expected(c.host), margin(c.host.size());
  reference::bf16Gemm(plain, expected.data(), margin.data());
  tesra_op op{};
  op.kind = TESRA_OP_BF16_GEMM;
  op.u.gemm = on;
  run(op);
  const std::vector<float> got = c.fetch();
  for (size_t i = 0; i < got.size(); i++) {
    const bool near = std::isfinite(expected[i]) ? std::fabs(got[i] - expected[i]) <= margin[i]
                                                 : same(got[i], expected[i]);
    if (!near)
      wrong(what + " [" + std::to_string(i) + "] = " + std::to_string(got[i]) + ", expected " +
            std::to_string(expected[i]) + " within " + std::to_string(margin[i]));
  }
  c.host = got;
  checks++;
}

void checkGemm(int m, int n, int k, bool ta, bool tb) {
  const bool bias = coin();
  const Values kind = k < 3 ? Values::tiny : coin(4) ? Values::special : Values::finite;
  FloatTensor a(static_cast<size_t>(m) * k), b(static_cast<size_t>(k) * n),
      c(static_cast<size_t>(m) * n), d(n);
  fill(a, kind), fill(b, kind), fill(c), fill(d);
  tesra_op op{};
  op.kind = TESRA_OP_GEMM;
  op.u.gemm = {a.on, b.on, bias ? d.on : nullptr, c.on, m, n, k, ta, tb, coin(), coin()};
  run(op);
  tesra_gemm plain = op.u.gemm;
  plain.a = a.host.data(), plain.b = b.host.data(), plain.c = c.host.data(),
  plain.bias = bias ? d.host.data() : nullptr;
  reference::gemm(plain);
  const std::string shape = dims({m, n, k}) + (ta ? " TA" : "") + (tb ? " TB" : "");
  compare(c, "gemm " + shape);
  if (coin(3)) checkBf16Gemm(op.u.gemm, plain, c, "bf16 gemm " + shape);
  // The reference sums six products in doubles, one by one: small shapes are enough.
  if (k == 0 || int64_t{m} * n * k > 500000) return;
  op.kind = TESRA_OP_EXACT_GEMM;
  op.u.exact_gemm.slices = pick(2, 3);
  run(op);
  reference::exactGemm({plain, op.u.exact_gemm.slices});
  compare(c, "exact gemm " + shape);
}

void checkGemms(int count) {
  static const int depths[] = {0, 1, 2, 15, 16, 17, 100, 511, 512, 513, 1030, 1600};
  for (int i = 0; i < count; i++)
    checkGemm(pick(1, 150), pick(1, 150), depths[pick(0, 11)], coin(), coin());
}

// Enough blocks of 64 x 128 that this GPU takes the large tile, ragged on every side.
void checkLargeGemms() {
  cudaDeviceProp properties;
  if (cudaGetDeviceProperties(&properties, 0) != cudaSuccess) wrong("no properties");
  const int rows = 64 * (2 * properties.multiProcessorCount / 9 + 2) - 13;
  for (int form = 0; form < 4; form++) checkGemm(rows, 9 * 128 - form, 530, form & 1, form & 2);
}

void checkBiasGrad() {
  const int m = pick(0, 700), n = pick(1, 150);
  FloatTensor dy(static_cast<size_t>(m) * n), db(n);
  fill(dy), poison(db);
  tesra_op op{};
  op.kind = TESRA_OP_BIAS_GRAD;
  op.u.bias_grad = {dy.on, db.on, m, n};
  run(op);
  reference::biasGrad({dy.host.data(), db.host.data(), m, n});
  compare(db, "bias_grad " + dims({m, n}));
}

void checkConv() {
  tesra_conv o{};
  o.n = pick(1, 3), o.h = pick(1, 12), o.w_ = pick(1, 12), o.c = coin() ? 1 : pick(1, 20),
  o.oc = pick(1, 20);
  o.kh = pick(1, 5), o.kw = pick(1, 5);
  o.pad_h = pick(0, o.kh - 1), o.pad_w = pick(0, o.kw - 1), o.stride_h = pick(1, 3),
  o.stride_w = pick(1, 3);
  if (o.h + 2 * o.pad_h < o.kh || o.w_ + 2 * o.pad_w < o.kw) return;
  o.oh = (o.h + 2 * o.pad_h - o.kh) / o.stride_h + 1,
  o.ow = (o.w_ + 2 * o.pad_w - o.kw) / o.stride_w + 1;
  o.relu = coin();
  FloatTensor x(static_cast<size_t>(o.n) * o.h * o.w_ * o.c),
      w(static_cast<size_t>(o.kh) * o.kw * o.c * o.oc);
  FloatTensor y(static_cast<size_t>(o.n) * o.oh * o.ow * o.oc), dx(x.host.size()),
      dw(w.host.size()), bias(o.oc);
  const Values kind = coin(4) ? Values::special : Values::finite;
  fill(x, kind), fill(w, kind), fill(bias), poison(dx), poison(dw);
  const bool biased = coin();
  const std::string shape =
      dims({o.n, o.h, o.w_, o.c, o.kh, o.kw, o.oc, o.stride_h, o.stride_w, o.pad_h, o.pad_w});
  const auto one = [&](int kindOf, FloatTensor& dy, FloatTensor& out, const char* name) {
    tesra_op op{};
    op.kind = kindOf;
    op.u.conv = o;
    op.u.conv.x = x.on, op.u.conv.w = w.on, op.u.conv.dy = dy.on, op.u.conv.out = out.on;
    op.u.conv.bias = biased && kindOf == TESRA_OP_CONV2D ? bias.on : nullptr;
    run(op);
    tesra_conv plain = op.u.conv;
    plain.x = x.host.data(), plain.w = w.host.data(), plain.dy = dy.host.data(),
    plain.out = out.host.data();
    plain.bias = op.u.conv.bias ? bias.host.data() : nullptr;
    reference::conv(kindOf, plain);
    compare(out, std::string(name) + " " + shape);
  };
  poison(y);
  FloatTensor dy(y.host.size());
  fill(dy, kind);
  one(TESRA_OP_CONV2D, dy, y, "conv2d");
  one(TESRA_OP_CONV2D_DX, dy, dx, "conv2d_dx");
  one(TESRA_OP_CONV2D_DW, dy, dw, "conv2d_dw");
}

void checkPool() {
  tesra_pool o{};
  o.kernel = pick(1, 3), o.stride = pick(1, 3), o.n = pick(1, 3), o.c = pick(1, 5);
  o.h = o.kernel + pick(0, 7), o.w = o.kernel + pick(0, 7);
  o.oh = (o.h - o.kernel) / o.stride + 1, o.ow = (o.w - o.kernel) / o.stride + 1;
  FloatTensor x(static_cast<size_t>(o.n) * o.h * o.w * o.c),
      y(static_cast<size_t>(o.n) * o.oh * o.ow * o.c), dx(x.host.size());
  FloatTensor dy(y.host.size());
  Tensor<int32_t> index(y.host.size());
  const std::string shape = dims({o.n, o.h, o.w, o.c, o.kernel, o.stride});
  const auto one = [&](int kind, FloatTensor& out, const char* name) {
    poison(out);
    tesra_op op{};
    op.kind = kind;
    op.u.pool = o;
    op.u.pool.x = x.on, op.u.pool.dy = dy.on, op.u.pool.index = op.u.pool.index_out = index.on,
    op.u.pool.out = out.on;
    run(op);
    tesra_pool plain = op.u.pool;
    plain.x = x.host.data(), plain.dy = dy.host.data(), plain.out = out.host.data();
    plain.index = plain.index_out = index.host.data();
    reference::pool(kind, plain);
    compare(out, std::string(name) + " " + shape);
  };
  fill(x, Values::special), fill(dy);
  one(TESRA_OP_MAXPOOL, y, "maxpool");
  compare(index, "maxpool index " + shape);
  if (coin(3)) {  // hostile: any index at all
    for (int32_t& i : index.host)
      i = coin(4) ? static_cast<int32_t>(random32()) : pick(0, static_cast<int>(x.host.size()) - 1);
    index.send();
  }
  one(TESRA_OP_MAXPOOL_GRAD, dx, "maxpool_grad");
  one(TESRA_OP_AVGPOOL, y, "avgpool");
  one(TESRA_OP_AVGPOOL_GRAD, dx, "avgpool_grad");
}

void checkMaps() {
  const int n = pick(1, 3000);
  static const int kinds[] = {TESRA_OP_RELU, TESRA_OP_RELU_GRAD, TESRA_OP_ADD, TESRA_OP_SCALE};
  for (const int kind : kinds) {
    FloatTensor x(n), y(n), out(n);
    fill(x, Values::special), fill(y, Values::special);
    FloatTensor& to = coin() ? x : out;
    poison(out);
    tesra_op op{};
    op.kind = kind;
    op.u.map = {x.on, y.on, to.on, n, 1.7f, -0.3f};
    run(op);
    for (int i = 0; i < n; i++) {
      const float a = x.host[i], b = y.host[i];
      to.host[i] = kind == TESRA_OP_RELU        ? tesra_relu(a)
                   : kind == TESRA_OP_RELU_GRAD ? (b > 0 ? a : 0.0f)
                   : kind == TESRA_OP_ADD       ? a + b
                                                : fmaf(1.7f, a, -0.3f);
    }
    compare(to, "map " + dims({kind, n}));
  }
  Tensor<uint8_t> bytes(n);
  FloatTensor wide(n);
  for (uint8_t& b : bytes.host) b = static_cast<uint8_t>(random32());
  bytes.send();
  tesra_op op{};
  op.kind = TESRA_OP_U8_TO_F32;
  op.u.u8_to_f32 = {bytes.on, wide.on, n, 1.0f / 255, -0.5f};
  run(op);
  for (int i = 0; i < n; i++)
    wide.host[i] = fmaf(1.0f / 255, static_cast<float>(bytes.host[i]), -0.5f);
  compare(wide, "u8_to_f32 " + dims({n}));

  FloatTensor x(n);
  Tensor<int32_t> answer(1);
  fill(x);
  if (coin()) x.host[pick(0, n - 1)] = coin() ? NAN : -INFINITY, x.send();
  op.kind = TESRA_OP_FINITE;
  op.u.finite = {x.on, answer.on, n};
  run(op);
  answer.host[0] =
      std::all_of(x.host.begin(), x.host.end(), [](float f) { return std::isfinite(f); });
  compare(answer, "finite " + dims({n}));
}

void checkLoss() {
  const int rows = coin(8) ? pick(4000, 8500) : pick(1, 70), classes = rows > 100 ? 3 : pick(1, 40);
  FloatTensor logits(static_cast<size_t>(rows) * classes), gradient(logits.host.size()), loss(1),
      count(1);
  Tensor<int32_t> labels(rows);
  fill(logits, coin(4) ? Values::special : Values::finite);
  for (float& x : logits.host)
    if (coin(6)) x = static_cast<float>(pick(-3, 3)) * 30.0f;  // ties and large differences
  logits.send();
  for (int32_t& l : labels.host) l = coin(200) ? -1 : pick(0, classes - 1);
  labels.send();
  poison(gradient), poison(loss), poison(count);
  const bool train = coin(4) == false;
  tesra_op op{};
  op.kind = TESRA_OP_SOFTMAX_XENT;
  op.u.softmax_xent = {logits.on, labels.on, loss.on, train ? gradient.on : nullptr, rows, classes};
  run(op);
  reference::softmaxXent({logits.host.data(), labels.host.data(), loss.host.data(),
                          train ? gradient.host.data() : nullptr, rows, classes});
  compare(loss, "softmax_xent loss " + dims({rows, classes}));
  compare(gradient, "softmax_xent gradient " + dims({rows, classes}));
  op.kind = TESRA_OP_COUNT_CORRECT;
  op.u.count_correct = {logits.on, labels.on, count.on, rows, classes};
  run(op);
  reference::countCorrect(
      {logits.host.data(), labels.host.data(), count.host.data(), rows, classes});
  compare(count, "count_correct " + dims({rows, classes}));
}

void checkOptimizers() {
  const int n = pick(1, 2500);
  FloatTensor p(n), g(n), m(n), v(n), step(1);
  fill(p), fill(g, coin(4) ? Values::special : Values::finite), fill(m), fill(v);
  for (float& x : v.host) x = std::fabs(x);
  v.send();
  const double decay = coin() ? 0.01 : 0;
  tesra_op op{};
  for (const int kind : {TESRA_OP_SGD, TESRA_OP_MOMENTUM}) {
    op.kind = kind;
    op.u.sgd = {p.on, g.on, m.on, n, 0.05, decay, 0.9, coin()};
    run(op);
    tesra_sgd plain = op.u.sgd;
    plain.p = p.host.data(), plain.g = g.host.data(), plain.m = m.host.data();
    reference::sgd(kind, plain);
    compare(p, "sgd p " + dims({kind, n}));
    compare(m, "sgd m " + dims({kind, n}));
  }
  const bool counted = coin();
  step.host[0] = static_cast<float>(pick(0, 5000));
  step.send();
  op.kind = TESRA_OP_ADAM;
  op.u.adam = {p.on, g.on,  m.on, v.on, counted ? step.on : nullptr, n, 7, 0.001,
               0.9,  0.999, 1e-8, decay};
  run(op);
  tesra_adam plain = op.u.adam;
  plain.p = p.host.data(), plain.g = g.host.data(), plain.m = m.host.data(),
  plain.v = v.host.data();
  plain.step_counter = counted ? step.host.data() : nullptr;
  reference::adam(plain);
  compare(p, "adam p " + dims({n})), compare(m, "adam m " + dims({n})),
      compare(v, "adam v " + dims({n}));
  compare(step, "adam step");
  op.kind = TESRA_OP_DELAY_COMPENSATE;
  op.u.delay_compensate = {g.on, p.on, m.on, n, 0.04f};
  run(op);
  reference::delayCompensate({g.host.data(), p.host.data(), m.host.data(), n, 0.04f});
  compare(g, "delay_compensate " + dims({n}));
}

// Operations that feed each other, run twice as one plan.
void checkChainedPlan() {
  const int m = pick(1, 40), n = pick(1, 40), k = pick(1, 700);
  FloatTensor a(static_cast<size_t>(m) * k), b(static_cast<size_t>(k) * n),
      c(static_cast<size_t>(m) * n), db(n);
  fill(a), fill(b), poison(c), poison(db);
  std::vector<tesra_op> ops(3, tesra_op{});
  ops[0].kind = TESRA_OP_GEMM;
  ops[0].u.gemm = {a.on, b.on, nullptr, c.on, m, n, k, 0, 0, 1, 0};
  ops[1].kind = TESRA_OP_BIAS_GRAD;
  ops[1].u.bias_grad = {c.on, db.on, m, n};
  ops[2].kind = TESRA_OP_SGD;
  ops[2].u.sgd = {b.on, a.on, nullptr, std::min<int64_t>(a.host.size(), b.host.size()),
                  0.1,  0,    0,       0};
  tesra_plan* plan = nullptr;
  must(backend->plan_create(device, ops.data(), ops.size(), &plan, &error), "plan_create");
  for (int turn = 0; turn < 2; turn++) {
    must(backend->plan_run(device, plan, &error), "plan_run");
    reference::gemm({a.host.data(), b.host.data(), nullptr, c.host.data(), m, n, k, 0, 0, 1, 0});
    reference::biasGrad({c.host.data(), db.host.data(), m, n});
    reference::sgd(TESRA_OP_SGD,
                   {b.host.data(), a.host.data(), nullptr, ops[2].u.sgd.n, 0.1, 0, 0, 0});
  }
  backend->plan_destroy(device, plan);
  compare(db, "plan"), compare(b, "plan");
}

void checkBlake3() {
  static const int edges[] = {0,    1,    63,   64,   65,       1023,  1024, 1025,
                              2048, 2049, 3072, 5000, 7 * 1024, 16384, 40001};
  std::vector<uint8_t> data(coin() ? edges[pick(0, 14)] : pick(0, 20000)), key(32), out(32);
  for (uint8_t& b : data) b = static_cast<uint8_t>(random32());
  for (uint8_t& b : key) b = static_cast<uint8_t>(random32());
  const bool keyed = coin();
  const tesra_blake3 args{data.data(), data.size(), keyed ? key.data() : nullptr, out.data()};
  must(backend->blake3(device, &args, &error), "blake3");
  const reference::Words expected = reference::Blake3(data.data(), data.size(), args.key).hash();
  if (memcmp(expected.data(), out.data(), 32))
    wrong("blake3 of " + std::to_string(data.size()) + " bytes");
  checks++;
}

// A scan of a seed's matrices finds what a scan of the same matrices, made here, finds.
void checkChallenge() {
  const int m = 64 * pick(1, 2), n = 64 * pick(1, 2), k = 128 * pick(1, 20);
  std::vector<uint8_t> seed(32), key(32), target(32, 0xff);
  for (uint8_t& b : seed) b = static_cast<uint8_t>(random32());
  for (uint8_t& b : key) b = static_cast<uint8_t>(random32());
  std::vector<int8_t> a, bt;
  for (int row = 0; row < m; row++) reference::challengeRow(seed.data(), 0, row, k, a);
  for (int row = 0; row < n; row++) reference::challengeRow(seed.data(), 1, row, k, bt);
  const uint32_t tiles = static_cast<uint32_t>(m) * n / 128;
  std::vector<uint32_t> found(2 * tiles);
  std::vector<uint8_t> tickets(size_t{64} * tiles);
  for (int made = 0; made < 2; made++) {
    tesra_crm_scan scan{made ? seed.data() : nullptr, made ? nullptr : a.data(),
                        made ? nullptr : bt.data(), m, n, k, key.data(), target.data(), tiles, 0,
                        &found[made * tiles], &tickets[size_t{32} * made * tiles]};
    must(backend->crm_scan(device, &scan, &error), "crm_scan of a challenge");
  }
  if (memcmp(&tickets[0], &tickets[size_t{32} * tiles], size_t{32} * tiles))
    wrong("challenge " + dims({m, n, k}));
  checks++;
}

// Two nonces by the device's search against the portable path.
void checkCn2() {
  std::vector<uint8_t> data(static_cast<size_t>(pick(2, 200))), hashes(64), target(32, 0xff);
  for (uint8_t& b : data) b = static_cast<uint8_t>(random32());
  uint64_t nonces[2] = {};
  tesra_cn2_scan scan{data.data(), data.size(), 1, 1, 254, 2, target.data(), nullptr, nullptr, 2, 0,
                      nonces, hashes.data(), 0, 0};
  must(backend->cn2_scan(device, &scan, &error), "cn2_scan");
  if (scan.found != 2 || scan.tried != 2) wrong("cn2_scan did not find both");
  std::vector<uint8_t> pad(TESRA_CN2_SCRATCHPAD + 64);
  uint8_t* const aligned = pad.data() + (64 - reinterpret_cast<uintptr_t>(pad.data()) % 64);
  for (int i = 0; i < 2; i++) {
    data[1] = static_cast<uint8_t>(254 + i);
    uint64_t words[tesra::kKeccakWords];
    uint8_t expected[32], single[32];
    tesra::keccak1600(data.data(), data.size(), words);
    tesra::cn2_portable()->one(words, aligned);
    tesra::cn2_finish(words, expected);
    if (memcmp(expected, hashes.data() + 32 * i, 32)) wrong("cn2_scan " + std::to_string(data.size()));
    const tesra_cn2 one{data.data(), data.size(), single};
    if (i == 0) must(backend->cn2_hash(device, &one, &error), "cn2_hash");
    if (i == 0 && memcmp(expected, single, 32)) wrong("cn2_hash " + std::to_string(data.size()));
  }
  checks++;
}

std::vector<int8_t> bytes(size_t n, bool extreme) {
  std::vector<int8_t> out(n);
  for (int8_t& x : out) x = extreme ? (coin() ? -128 : 127) : static_cast<int8_t>(random32());
  return out;
}

void checkInt8Gemm() {
  // Now and then deep enough to leave k to several blocks.
  const bool deep = coin();
  const int m = pick(1, deep ? 90 : 200), n = pick(1, deep ? 90 : 300);
  const int k = deep ? pick(2048, 4000) : pick(0, 300);
  const bool extreme = coin(4);
  const auto a = bytes(static_cast<size_t>(m) * k, extreme),
             bt = bytes(static_cast<size_t>(n) * k, extreme);
  std::vector<int32_t> c(static_cast<size_t>(m) * n, -1);
  const tesra_int8_gemm args{a.data(), bt.data(), c.data(), m, n, k};
  must(backend->int8_gemm(device, &args, &error), "int8_gemm");
  for (int i = 0; i < m; i++)
    for (int j = 0; j < n; j++) {
      int32_t sum = 0;
      for (int x = 0; x < k; x++)
        sum += a[static_cast<size_t>(i) * k + x] * bt[static_cast<size_t>(j) * k + x];
      if (sum != c[static_cast<size_t>(i) * n + j]) wrong("int8_gemm " + dims({m, n, k}));
    }
  checks++;
}

void checkScan(int m, int n, int k) {
  const bool extreme = coin(4);
  const auto a = bytes(static_cast<size_t>(m) * k, extreme),
             bt = bytes(static_cast<size_t>(n) * k, extreme);
  const uint32_t tiles = static_cast<uint32_t>(m) * n / 128;
  std::vector<uint8_t> key(32), target(32, 0xff), tickets(size_t{32} * tiles);
  std::vector<uint32_t> found(tiles);
  for (uint8_t& b : key) b = static_cast<uint8_t>(random32());
  tesra_crm_scan scan{nullptr, a.data(), bt.data(), m, n, k, key.data(), target.data(), tiles, 0,
                      found.data(), tickets.data()};
  const std::string what = "crm_scan " + dims({m, n, k});
  must(backend->crm_scan(device, &scan, &error), "crm_scan");
  if (scan.count != tiles) wrong(what + ": not every tile wins at the highest target");
  for (uint32_t tile = 0; tile < tiles; tile++) {
    if (found[tile] != tile) wrong(what + ": tiles out of order");
    const reference::Words j = reference::tileTranscript(scan, tile);
    const auto ticket =
        reference::Blake3(reinterpret_cast<const uint8_t*>(j.data()), 64, key.data()).hash();
    if (memcmp(ticket.data(), &tickets[size_t{32} * tile], 32))
      wrong(what + " tile " + std::to_string(tile));
  }
  // A target equal to one ticket: that tile and exactly the smaller ones win.
  const uint32_t chosen = random32() % tiles;
  const auto all = tickets;
  target.assign(all.begin() + size_t{32} * chosen, all.begin() + size_t{32} * chosen + 32);
  const auto below = [&](uint32_t tile) {
    for (int i = 31; i >= 0; i--)
      if (all[size_t{32} * tile + i] != target[i]) return all[size_t{32} * tile + i] < target[i];
    return true;
  };
  std::vector<uint32_t> expected;
  for (uint32_t tile = 0; tile < tiles; tile++)
    if (below(tile)) expected.push_back(tile);
  must(backend->crm_scan(device, &scan, &error), "crm_scan");
  if (scan.count != expected.size() || !std::equal(expected.begin(), expected.end(), found.begin()))
    wrong(what + ": winners differ at a middle target");
  if (expected.size() > 1) {
    scan.capacity = static_cast<uint32_t>(expected.size()) - 1;
    if (backend->crm_scan(device, &scan, &error) != TESRA_E_CAPACITY ||
        scan.count != expected.size())
      wrong(what + ": too small a capacity is not reported");
  }
  const uint32_t tile = random32() % tiles;
  const auto aRows = bytes(size_t{8} * k, extreme), bRows = bytes(size_t{16} * k, extreme);
  const int8_t *rows[8], *columns[16];
  for (int i = 0; i < 8; i++) rows[i] = aRows.data() + static_cast<size_t>(i) * k;
  for (int i = 0; i < 16; i++) columns[i] = bRows.data() + static_cast<size_t>(i) * k;
  reference::Words j(16);
  const tesra_crm_tile replay{aRows.data(), bRows.data(), k, j.data()};
  must(backend->crm_tile(device, &replay, &error), "crm_tile");
  if (j != reference::transcript(rows, columns, k)) wrong("crm_tile " + dims({k, tile}));
  checks += 3;
}

void checkProbe() {
  tesra_probe probe;
#if defined(TESRA_CUDA_EMULATOR)
  for (const int code : {35, 100}) {
    emulator::deviceError = code;
    backend->probe(&probe);
    if (probe.available || !probe.compiled || !strstr(probe.reason, "no GPU"))
      wrong("probe without a GPU");
    const tesra_open options{0, 0, nullptr};
    tesra_device* none = nullptr;
    if (backend->open(&options, &none, &error) != TESRA_E_UNAVAILABLE || none)
      wrong("open without a GPU");
  }
  emulator::deviceError = 0;
#endif
  backend->probe(&probe);
  if (!probe.available) {
    std::fprintf(stderr, "%s\n", probe.reason);
    std::exit(4);
  }
  if (probe.count < 1 || probe.devices[0].sm < 80) wrong("probe with a GPU");
  if (const char* hopper = std::getenv("TESRA_HOPPER"))
    std::printf("TESRA_HOPPER=%s on sm_%d\n", hopper, probe.devices[0].sm);
  const tesra_open options{0, 0, "GPU-none"};
  tesra_device* none = nullptr;
  if (backend->open(&options, &none, &error) != TESRA_E_UNAVAILABLE)
    wrong("open of an unknown GPU");
}

}  // namespace

int main(int count, char** arguments) {
  const uint64_t seed = count > 1 ? std::strtoull(arguments[1], nullptr, 10) : 1;
  const int rounds = count > 2 ? std::atoi(arguments[2]) : 3;
  const bool large = count > 3;
  state = seed;
#if defined(TESRA_CUDA_EMULATOR)
  emulator::seed(seed);
#endif
  backend = tesra_cuda_backend();
  checkProbe();
  for (int round = 0; round < rounds; round++) {
    pretend(round % 2 ? 132 : 1);  // 1: large tiles and no split; 132: small tiles, split
    const tesra_open options{0, 0, round % 3 == 0 ? "0" : nullptr};
    must(backend->open(&options, &device, &error), "open");
    checkGemms(12);
    for (int i = 0; i < 2; i++)
      checkConv(), checkPool(), checkOptimizers(), checkLoss(), checkBlake3();
    checkActivations(), checkNorm(true), checkNorm(false), checkSoftmax(), checkEmbedding(), checkRope(), checkCopy(),
        checkDropoutAndClip();
    for (int i = 0; i < 2; i++) checkAttention();
    checkBiasGrad(), checkMaps(), checkChainedPlan(), checkInt8Gemm();
    checkScan(64 * pick(1, 3), 64 * pick(1, 5), 128 * pick(1, 3));
    if (round == 0)
      checkScan(64, 64, 128 * 37);  // past 16 and 32 chunks: every transcript word twice
    checkChallenge();
    if (round == 0) checkCn2();
    if (large && round == 0) checkLargeGemms();
    if (large && round == 0) checkScan(1024, 1024, 2048);
    backend->close(device);
  }
  std::printf("%d checks, seed %llu: every bit agrees\n", checks,
              static_cast<unsigned long long>(seed));
  return 0;
}
