// Owns: attention over tasks: forward, a block of queries of one head against that head's packed keys and
// values; backward, one head, or a block of keys where there are few heads. Heads go forward in groups, so that what is packed stays in the last cache
// level and scratch stays bounded for any batch.
#include <atomic>
#include <new>
#include <thread>

#include "cpu.h"
#include "relax.h"

namespace tesra {
namespace {

constexpr int64_t kBlock = TESRA_ATTENTION_BLOCK;
constexpr int64_t kTasksAGroup = 64;  // so that waiting for the last task costs little

struct Geometry {
  int64_t heads;    // of the whole batch
  int64_t group;    // heads packed at a time
  int64_t blocks;   // of keys, and of queries
  int32_t padded;   // head size in whole groups of lanes
  int64_t keys, values;  // packed floats a head
  int64_t stride, out_stride;  // floats between rows of qkv and of out
};

template <class Op>
Geometry geometry_of(const Context& cx, const Op& o) {
  Geometry g;
  g.heads = int64_t{o.batch} * o.heads;
  g.blocks = ceil_div(o.length, kBlock);
  g.padded = static_cast<int32_t>(round_up(o.head_size, TESRA_LANES));
  g.group = smaller(g.heads, larger<int64_t>(2 * cx.pool->threads(),
                                             kTasksAGroup / larger<int64_t>(g.blocks, 1)));
  g.keys = g.blocks * kBlock * o.head_size;
  g.values = g.blocks * kBlock * g.padded;
  g.out_stride = int64_t{o.heads} * o.head_size;
  g.stride = 3 * g.out_stride;
  return g;
}

// Where head `h` of the batch starts in qkv (its queries) and in out.
template <class Op>
int64_t offset_of(const Op& o, int64_t h, int64_t stride) {
  return h / o.heads * o.length * stride + h % o.heads * o.head_size;
}

// Key blocks whose part a block of dq has.
using Turn = std::atomic<int32_t>;

void wait_for_turn(void* of, int32_t query_block, int32_t key_block) {
  const Turn& turn = static_cast<Turn*>(of)[query_block];
  for (int spins = 0; turn.load(std::memory_order_acquire) != key_block; ++spins) {
    if (spins < 1000) relax();
    else std::this_thread::yield();
  }
}
void end_turn(void* of, int32_t query_block, int32_t key_block) {
  static_cast<Turn*>(of)[query_block].store(key_block + 1, std::memory_order_release);
}

// The scratch of a gradient, in floats. A head is one task; where that would leave threads idle, its
// key blocks are tasks of their own, which add to dq in turns.
struct GradLayout {
  GradLayout(const Context& cx, const tesra_attention_grad& o) {
    const Geometry g = geometry_of(cx, o);
    const int64_t threads = cx.pool->threads();
    split = threads > 1 && g.blocks > 1 && g.heads > 0 && g.heads < 2 * threads;
    heads = split ? g.heads : threads;
    shared = attention_shared(o.length, g.padded);
    own = attention_own(g.padded);
    turns = heads * shared + threads * own;
    total = turns + (split ? g.heads * g.blocks : 0);
  }
  bool split;
  int64_t heads, shared, own, turns, total;
};

}  // namespace

size_t attention_scratch(const Context& cx, const tesra_attention& o) {
  const Geometry g = geometry_of(cx, o);
  return static_cast<size_t>(g.group * (g.keys + g.values));
}

void attention(const Context& cx, const tesra_attention& o, float* scratch) {
  const Geometry g = geometry_of(cx, o);
  const Kernels& k = *cx.kernels;
  const float scale = tesra_attention_scale(o.head_size);
  for (int64_t h0 = 0; h0 < g.heads; h0 += g.group) {
    const int64_t heads = smaller(g.group, g.heads - h0);
    float *const keys = scratch, *const values = scratch + g.group * g.keys;
    cx.pool->run(heads * g.blocks, [&](int64_t task, int) {
      const int64_t h = task / g.blocks, block = task % g.blocks, row = block * kBlock;
      const int count = static_cast<int>(smaller<int64_t>(kBlock, o.length - row));
      const float* q = o.qkv + offset_of(o, h0 + h, g.stride) + row * g.stride;
      k.pack_transposed(q + g.out_stride, g.stride, o.head_size, count, static_cast<int>(kBlock),
                        keys + h * g.keys + row * o.head_size);
      k.pack_rows(q + 2 * g.out_stride, g.stride, count, o.head_size, g.padded,
                  values + h * g.values + row * g.padded);
    });
    cx.pool->run(heads * g.blocks, [&](int64_t task, int) {
      const int64_t h = task / g.blocks, block = g.blocks - 1 - task % g.blocks;  // the longest first
      const int64_t row = block * kBlock;
      AttentionQueries a;
      a.q = o.qkv + offset_of(o, h0 + h, g.stride) + row * g.stride;
      a.keys = keys + h * g.keys;
      a.values = values + h * g.values;
      a.out = o.out + offset_of(o, h0 + h, g.out_stride) + row * g.out_stride;
      a.lse = o.lse + (h0 + h) * o.length + row;
      a.stride = g.stride;
      a.out_stride = g.out_stride;
      a.first = static_cast<int32_t>(row);
      a.rows = static_cast<int32_t>(smaller<int64_t>(kBlock, o.length - row));
      a.blocks = static_cast<int32_t>(o.causal ? block + 1 : g.blocks);
      a.length = o.length;
      a.head_size = o.head_size;
      a.head_padded = g.padded;
      a.scale = scale;
      a.causal = o.causal != 0;
      k.transformer.attention_queries(a);
    });
  }
}

size_t attention_grad_scratch(const Context& cx, const tesra_attention_grad& o) {
  return static_cast<size_t>(GradLayout(cx, o).total);
}

void attention_grad(const Context& cx, const tesra_attention_grad& o, float* scratch) {
  const Geometry g = geometry_of(cx, o);
  const GradLayout layout(cx, o);
  const TransformerKernels& k = cx.kernels->transformer;
  const int blocks = static_cast<int>(g.blocks);
  // Head h by what it shares and what a thread owns.
  const auto head = [&](int64_t h, int64_t shared, int thread) {
    const int64_t at = offset_of(o, h, g.stride), out = offset_of(o, h, g.out_stride);
    AttentionHead a;
    a.q = o.qkv + at;
    a.k = a.q + g.out_stride;
    a.v = a.k + g.out_stride;
    a.out = o.out + out;
    a.dout = o.dout + out;
    a.lse = o.lse + h * o.length;
    a.dq = o.dqkv + at;
    a.dk = a.dq + g.out_stride;
    a.dv = a.dk + g.out_stride;
    a.shared = scratch + shared * layout.shared;
    a.own = scratch + layout.heads * layout.shared + thread * layout.own;
    a.turns = nullptr;
    a.stride = g.stride;
    a.out_stride = g.out_stride;
    a.length = o.length;
    a.head_size = o.head_size;
    a.head_padded = g.padded;
    a.scale = tesra_attention_scale(o.head_size);
    a.causal = o.causal != 0;
    return a;
  };
  if (!layout.split) {
    cx.pool->run(g.heads, [&](int64_t h, int thread) {
      const AttentionHead a = head(h, thread, thread);
      for (int b = 0; b < blocks; ++b) k.attention_grad_rows(a, b);
      for (int b = 0; b < blocks; ++b) k.attention_grad_keys(a, b);
      for (int b = 0; b < blocks; ++b) k.attention_grad_store(a, b);
    });
    return;
  }
  Turn* const turns = reinterpret_cast<Turn*>(scratch + layout.turns);
  cx.pool->run(g.heads * blocks, [&](int64_t task, int thread) {
    new (turns + task) Turn(0);
    k.attention_grad_rows(head(task / blocks, task / blocks, thread), static_cast<int>(task % blocks));
  });
  // Tasks are begun in order, so whoever waits for the key block before waits for one that is under way.
  cx.pool->run(g.heads * blocks, [&](int64_t task, int thread) {
    const int64_t h = task % g.heads;
    AttentionHead a = head(h, h, thread);
    const AttentionTurns order{wait_for_turn, end_turn, turns + h * blocks};
    a.turns = &order;
    k.attention_grad_keys(a, static_cast<int>(task / g.heads));
  });
  cx.pool->run(g.heads * blocks, [&](int64_t task, int thread) {
    k.attention_grad_store(head(task / blocks, task / blocks, thread), static_cast<int>(task % blocks));
  });
}

}  // namespace tesra
