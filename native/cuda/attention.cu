// Owns flash attention forward and backward in the repro-f32 arithmetic: CUDA cores, the CPU's bits.
// Invariant: attention.h. 256 threads stand as 16 x 16 over a block of 64 queries and 64 keys; thread
// (y, x) owns rows 4y .. 4y+3 and columns x, x+16, x+32, x+48, so that half a warp is the 16 lanes of a
// row. Operands lie in shared memory with rows of head_size + 4 floats, rounded up to 16-byte units:
// aligned for 16-byte loads, and 16 rows of one column group meet no bank more than twice.
// Two operands at a time are in shared memory, so that heads of 128 need 85 KB, which every GPU has.
// The gradient makes the scores twice, once for keys and values and once for queries: each sum then
// belongs to one block, and no atomics are needed.
#include "../kernels/attention.h"

#include <type_traits>

#include "lanes.h"
#include "launch.h"

namespace tesra::cuda {
namespace {

constexpr int kBlock = TESRA_ATTENTION_BLOCK;
constexpr int kThreads = 256;
constexpr int kScoreStride = kBlock + 4;
constexpr int kColumnGroups = TESRA_HEAD_SIZE_MAX / 16;
static_assert(kBlock == 64, "16 x 16 threads of 4 x 4");

struct Head {
  int length, size;
  int blocks, block;  // of 64 positions: in all, and this one in the order of the grid
  int stride;         // floats a shared row
  int64_t qkv, out;   // where the head starts
  int64_t qkvRow, outRow;
  int64_t lse;
  float scale;
};
template <class Op>
__device__ __forceinline__ Head headOf(const Op& o) {
  Head a;
  a.length = o.length, a.size = o.head_size;
  a.blocks = (o.length + kBlock - 1) / kBlock;
  a.block = static_cast<int>(blockIdx.x) % a.blocks;
  const int64_t h = static_cast<int>(blockIdx.x) / a.blocks;
  a.stride = (o.head_size + 3) / 4 * 4 + 4;
  a.outRow = static_cast<int64_t>(o.heads) * o.head_size;
  a.qkvRow = 3 * a.outRow;
  a.qkv = h / o.heads * o.length * a.qkvRow + h % o.heads * o.head_size;
  a.out = h / o.heads * o.length * a.outRow + h % o.heads * o.head_size;
  a.lse = h * o.length;
  a.scale = tesra_attention_scale(o.head_size);
  return a;
}

// to[row][column] = factor * from; zeros past the length and past the head's size.
__device__ __forceinline__ void loadRows(float* to, const Head& a, const float* from, int64_t rowStride,
                                         int first, float factor) {
  for (int i = static_cast<int>(threadIdx.x); i < kBlock * a.stride; i += kThreads) {
    const int row = i / a.stride, column = i - row * a.stride;
    const bool inside = first + row < a.length && column < a.size;
    to[i] = inside ? __fmul_rn(factor, from[(first + row) * rowStride + column]) : 0.0f;
  }
}

// s[r][c] = chain over the head's size of x[row 4y + r] y[row x + 16c]. Four columns a step; the last
// step stops at the size, because fma(0, 0, -0) is +0.
__device__ __forceinline__ void scores(const Head& a, const float* x, const float* y, int ty, int tx,
                                       float (&s)[4][4]) {
  TESRA_FOR(r, 4) TESRA_FOR(c, 4) s[r][c] = 0.0f;
  const auto step = [&](int d, int count) {
    float4 fx[4], fy[4];
    TESRA_FOR(i, 4) {
      fx[i] = *reinterpret_cast<const float4*>(x + (4 * ty + i) * a.stride + d);
      fy[i] = *reinterpret_cast<const float4*>(y + (tx + 16 * i) * a.stride + d);
    }
    TESRA_FOR(r, 4) TESRA_FOR(c, 4) {
      float sum = __fmaf_rn(fx[r].x, fy[c].x, s[r][c]);
      if (count > 1) sum = __fmaf_rn(fx[r].y, fy[c].y, sum);
      if (count > 2) sum = __fmaf_rn(fx[r].z, fy[c].z, sum);
      if (count > 3) sum = __fmaf_rn(fx[r].w, fy[c].w, sum);
      s[r][c] = sum;
    }
  };
  int d = 0;
  for (; d + 4 <= a.size; d += 4) step(d, 4);
  if (d < a.size) step(d, a.size - d);
}

// sum[r][g] += (as one chain from +0, or in its place) over k < depth of p(row, k) y[k][x + 16g];
// p(row, k) = p[row][k], or p[k][row] when kTransposed. Rows are 4y + r.
template <int kGroups, bool kTransposed, class Join>
__device__ __forceinline__ void weighted(const Head& a, const float* p, const float* y, int depth, int ty,
                                         int tx, Join&& join) {
  float sum[4][kGroups];
  TESRA_FOR(r, 4) TESRA_FOR(g, kGroups) sum[r][g] = 0.0f;
  TESRA_NO_UNROLL
  for (int k = 0; k < depth; k++) {
    float weight[4];
    if (kTransposed) {
      const float4 w = *reinterpret_cast<const float4*>(p + k * kScoreStride + 4 * ty);
      weight[0] = w.x, weight[1] = w.y, weight[2] = w.z, weight[3] = w.w;
    } else {
      TESRA_FOR(r, 4) weight[r] = p[(4 * ty + r) * kScoreStride + k];
    }
    TESRA_FOR(g, kGroups) {
      const int column = tx + 16 * g;
      const float value = column < a.size ? y[k * a.stride + column] : 0.0f;
      TESRA_FOR(r, 4) sum[r][g] = __fmaf_rn(weight[r], value, sum[r][g]);
    }
  }
  TESRA_FOR(r, 4) TESRA_FOR(g, kGroups) join(r, g, sum[r][g]);
}

template <class Visit>
__device__ __forceinline__ void forScores(int ty, int tx, Visit&& visit) {
  TESRA_FOR(r, 4) TESRA_FOR(c, 4) visit(4 * ty + r, tx + 16 * c, r, c);
}
__device__ __forceinline__ bool seen(int query, int key, int length, bool causal) {
  return key < length && !(causal && key > query);
}
__device__ __forceinline__ int inBlock(int length, int first) {
  return min(kBlock, length - first);
}

template <int kGroups>
__global__ void __launch_bounds__(kThreads) forward(tesra_attention o) {
  TESRA_DYNAMIC_SHARED(memory);
  const Head a = headOf(o);
  float* const q = reinterpret_cast<float*>(memory);
  float *const y = q + kBlock * a.stride, *const p = y + kBlock * a.stride;
  const int ty = static_cast<int>(threadIdx.x) / 16, tx = static_cast<int>(threadIdx.x) % 16;
  const int block = a.blocks - 1 - a.block;  // the longest first
  const int first = block * kBlock;
  const bool causal = o.causal != 0;
  const float* const base = o.qkv + a.qkv;
  loadRows(q, a, base, a.qkvRow, first, a.scale);
  float top[4], lanes[4], total[4][kGroups];
  TESRA_FOR(r, 4) {
    top[r] = -INFINITY, lanes[r] = 0.0f;
    TESRA_FOR(g, kGroups) total[r][g] = 0.0f;
  }
  const int last = causal ? block : a.blocks - 1;
  TESRA_NO_UNROLL
  for (int b = 0; b <= last; b++) {
    const int key0 = b * kBlock;
    __syncthreads();  // the block before is done with y and p
    loadRows(y, a, base + a.outRow, a.qkvRow, key0, 1.0f);
    __syncthreads();
    float s[4][4], factor[4];
    scores(a, q, y, ty, tx, s);
    forScores(ty, tx, [&](int row, int column, int r, int c) {
      if (!seen(first + row, key0 + column, o.length, causal)) s[r][c] = -INFINITY;
    });
    TESRA_FOR(r, 4) {
      float best = top[r];
      TESRA_FOR(c, 4) if (s[r][c] > best) best = s[r][c];
      best = foldMaximum(best);
      factor[r] = tesra_exp(__fsub_rn(top[r], best));
      top[r] = best;
      float sum = 0.0f;
      TESRA_FOR(c, 4) {
        const float e = tesra_exp(__fsub_rn(s[r][c], best));
        p[(4 * ty + r) * kScoreStride + tx + 16 * c] = e;
        sum = c == 0 ? e : __fadd_rn(sum, e);
      }
      lanes[r] = __fmaf_rn(lanes[r], factor[r], sum);
    }
    __syncthreads();
    loadRows(y, a, base + 2 * a.outRow, a.qkvRow, key0, 1.0f);
    __syncthreads();
    weighted<kGroups, false>(a, p, y, inBlock(o.length, key0), ty, tx, [&](int r, int g, float sum) {
      total[r][g] = __fmaf_rn(total[r][g], factor[r], sum);
    });
  }
  TESRA_FOR(r, 4) {
    const int row = first + 4 * ty + r;
    const float t = foldLanes(lanes[r]);
    if (row >= o.length) continue;
    const float inverse = __fdiv_rn(1.0f, t);
    TESRA_FOR(g, kGroups) {
      const int column = tx + 16 * g;
      if (column < a.size) o.out[a.out + row * a.outRow + column] = __fmul_rn(total[r][g], inverse);
    }
    if (tx == 0) o.lse[a.lse + row] = __fadd_rn(top[r], tesra_log(t));
  }
}

// e = sum of dout * out, half a warp a query.
__global__ void dots(tesra_attention_grad o, float* e, int64_t queries) {
  const int64_t at = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) / TESRA_LANES;
  const int lane = static_cast<int>(threadIdx.x % TESRA_LANES);
  const int64_t i = at < queries ? at : queries - 1;  // of batch x heads x length
  const int64_t t = i % o.length, h = i / o.length % o.heads, b = i / o.length / o.heads;
  const int64_t from = ((b * o.length + t) * o.heads + h) * o.head_size;
  float sum = 0.0f;
  for (int c = lane; c < o.head_size; c += TESRA_LANES)
    sum = __fmaf_rn(o.dout[from + c], o.out[from + c], sum);
  sum = foldLanes(sum);
  if (lane == 0 && at < queries) e[i] = sum;
}

struct Pair {
  float *x, *y, *weights;  // two operands and the scores
  const float *query, *key, *value, *dout;
};
template <class Op>
__device__ __forceinline__ Pair pairOf(const Op& o, const Head& a, unsigned char* memory) {
  Pair b;
  b.x = reinterpret_cast<float*>(memory);
  b.y = b.x + kBlock * a.stride;
  b.weights = b.y + kBlock * a.stride;
  b.query = o.qkv + a.qkv, b.key = b.query + a.outRow, b.value = b.key + a.outRow, b.dout = o.dout + a.out;
  return b;
}

// p and ds of one block pair, of this thread's 4 x 4. Leaves dout in x and the values in y.
template <class Op>
__device__ __forceinline__ void scoreGradients(const Op& o, const Head& a, const Pair& b, const float* e,
                                               int query0, int key0, int ty, int tx, float (&p)[4][4],
                                               float (&ds)[4][4]) {
  __syncthreads();  // the block before is done
  loadRows(b.x, a, b.query, a.qkvRow, query0, a.scale);
  loadRows(b.y, a, b.key, a.qkvRow, key0, 1.0f);
  __syncthreads();
  scores(a, b.x, b.y, ty, tx, p);
  __syncthreads();
  loadRows(b.x, a, b.dout, a.outRow, query0, 1.0f);
  loadRows(b.y, a, b.value, a.qkvRow, key0, 1.0f);
  __syncthreads();
  scores(a, b.x, b.y, ty, tx, ds);
  TESRA_FOR(r, 4) {
    const int query = query0 + 4 * ty + r;
    const bool inside = query < o.length;
    const float lse = inside ? o.lse[a.lse + query] : INFINITY, mine = inside ? e[a.lse + query] : 0.0f;
    TESRA_FOR(c, 4) {
      const bool pair = inside && seen(query, key0 + tx + 16 * c, o.length, o.causal != 0);
      p[r][c] = pair ? tesra_exp(__fsub_rn(p[r][c], lse)) : 0.0f;
      ds[r][c] = __fmul_rn(p[r][c], __fsub_rn(ds[r][c], mine));
    }
  }
}
__device__ __forceinline__ void keepWeights(const Pair& b, int ty, int tx, const float (&x)[4][4]) {
  forScores(ty, tx, [&](int row, int column, int r, int c) { b.weights[row * kScoreStride + column] = x[r][c]; });
}

// Rows of `values` to out, times factor.
template <int kGroups>
__device__ __forceinline__ void storeRows(const Head& a, float* out, int first, int ty, int tx,
                                          const float (&values)[4][kGroups], float factor) {
  TESRA_FOR(r, 4) {
    const int row = first + 4 * ty + r;
    TESRA_FOR(g, kGroups) {
      const int column = tx + 16 * g;
      if (row < a.length && column < a.size)
        out[a.qkv + row * a.qkvRow + column] = __fmul_rn(factor, values[r][g]);
    }
  }
}

// dk and dv of one block of keys.
template <int kGroups>
__global__ void __launch_bounds__(kThreads) keyGradients(tesra_attention_grad o, const float* e) {
  TESRA_DYNAMIC_SHARED(memory);
  const Head a = headOf(o);
  const Pair b = pairOf(o, a, memory);
  const int ty = static_cast<int>(threadIdx.x) / 16, tx = static_cast<int>(threadIdx.x) % 16;
  const int key0 = a.block * kBlock;  // the first block has the most queries
  const int start = o.causal ? a.block : 0;
  float dk[4][kGroups], dv[4][kGroups];
  TESRA_NO_UNROLL
  for (int block = start; block < a.blocks; block++) {
    const int query0 = block * kBlock, depth = inBlock(o.length, query0);
    float p[4][4], ds[4][4];
    scoreGradients(o, a, b, e, query0, key0, ty, tx, p, ds);
    const auto join = [&](float (&total)[4][kGroups], int r, int g, float sum) {
      total[r][g] = block == start ? sum : __fadd_rn(total[r][g], sum);
    };
    keepWeights(b, ty, tx, p);
    __syncthreads();
    weighted<kGroups, true>(a, b.weights, b.x, depth, ty, tx,
                            [&](int r, int g, float sum) { join(dv, r, g, sum); });
    __syncthreads();
    keepWeights(b, ty, tx, ds);
    loadRows(b.x, a, b.query, a.qkvRow, query0, a.scale);
    __syncthreads();
    weighted<kGroups, true>(a, b.weights, b.x, depth, ty, tx,
                            [&](int r, int g, float sum) { join(dk, r, g, sum); });
  }
  storeRows(a, o.dqkv + a.outRow, key0, ty, tx, dk, 1.0f);
  storeRows(a, o.dqkv + 2 * a.outRow, key0, ty, tx, dv, 1.0f);
}

// dq of one block of queries.
template <int kGroups>
__global__ void __launch_bounds__(kThreads) queryGradients(tesra_attention_grad o, const float* e) {
  TESRA_DYNAMIC_SHARED(memory);
  const Head a = headOf(o);
  const Pair b = pairOf(o, a, memory);
  const int ty = static_cast<int>(threadIdx.x) / 16, tx = static_cast<int>(threadIdx.x) % 16;
  const int own = a.blocks - 1 - a.block, query0 = own * kBlock;
  const int last = o.causal ? own : a.blocks - 1;
  float dq[4][kGroups];
  TESRA_NO_UNROLL
  for (int block = 0; block <= last; block++) {
    const int key0 = block * kBlock;
    float p[4][4], ds[4][4];
    scoreGradients(o, a, b, e, query0, key0, ty, tx, p, ds);
    __syncthreads();
    keepWeights(b, ty, tx, ds);
    loadRows(b.y, a, b.key, a.qkvRow, key0, 1.0f);
    __syncthreads();
    weighted<kGroups, false>(a, b.weights, b.y, inBlock(o.length, key0), ty, tx,
                             [&](int r, int g, float sum) {
                               dq[r][g] = block == 0 ? sum : __fadd_rn(dq[r][g], sum);
                             });
  }
  storeRows(a, o.dqkv, query0, ty, tx, dq, a.scale);
}

template <class Op>
unsigned gridOf(const Op& op) {
  return static_cast<unsigned>((op.length + kBlock - 1) / kBlock * op.batch * op.heads);
}
// Two operands of 64 rows, and the scores.
template <class Op>
int sharedBytes(const Op& op) {
  const int stride = (op.head_size + 3) / 4 * 4 + 4;
  return (2 * kBlock * stride + kBlock * kScoreStride) * static_cast<int>(sizeof(float));
}

// Head sizes up to 16 kGroups take the kernel of kGroups columns a thread: 1, 2, 4 or 8.
template <class F>
cudaError_t forGroups(int headSize, const F& f) {
  if (headSize <= 16) return f(std::integral_constant<int, 1>{});
  if (headSize <= 32) return f(std::integral_constant<int, 2>{});
  if (headSize <= 64) return f(std::integral_constant<int, 4>{});
  return f(std::integral_constant<int, kColumnGroups>{});
}

}  // namespace

cudaError_t launchAttention(const Launch& launch, const tesra_attention& op) {
  if (op.length == 0 || op.batch == 0) return cudaSuccess;
  return forGroups(op.head_size, [&](auto groups) {
    auto* const kernel = forward<decltype(groups)::value>;
    const int shared = sharedBytes(op);
    const cudaError_t error =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared);
    if (error != cudaSuccess) return error;
    TESRA_LAUNCH(kernel, gridOf(op), kThreads, shared, launch.stream, op);
    return cudaGetLastError();
  });
}

size_t attentionGradScratch(const tesra_attention_grad& op) {
  return static_cast<size_t>(op.batch) * op.heads * op.length * sizeof(float);
}

cudaError_t launchAttentionGrad(const Launch& launch, const tesra_attention_grad& op) {
  if (op.length == 0 || op.batch == 0) return cudaSuccess;
  float* const e = static_cast<float*>(launch.scratch);
  const int64_t queries = static_cast<int64_t>(op.batch) * op.heads * op.length;
  const unsigned blocks = static_cast<unsigned>((queries * TESRA_LANES + kThreads - 1) / kThreads);
  TESRA_LAUNCH(dots, blocks, kThreads, 0, launch.stream, op, e, queries);
  const cudaError_t failed = cudaGetLastError();
  if (failed != cudaSuccess) return failed;
  return forGroups(op.head_size, [&](auto groups) {
    auto* const keys = keyGradients<decltype(groups)::value>;
    auto* const rows = queryGradients<decltype(groups)::value>;
    const int shared = sharedBytes(op);
    for (auto* const kernel : {keys, rows}) {
      const cudaError_t error =
          cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared);
      if (error != cudaSuccess) return error;
      TESRA_LAUNCH(kernel, gridOf(op), kThreads, shared, launch.stream, op, e);
      const cudaError_t launched = cudaGetLastError();
      if (launched != cudaSuccess) return launched;
    }
    return cudaSuccess;
  });
}

}  // namespace tesra::cuda
