// Owns CN2 on a GPU: the scratchpad work of many hashes at once, 8 threads a hash to fill and fold,
// one to walk; scratchpads in global memory. Keccak and the final hashes, a few microseconds each,
// are the host's (native/cpu/cn2). Invariant: cn2.h's bits; a batch once begun is finished.
#include <algorithm>
#include <cstring>
#include <new>
#include <vector>

#include "../cpu/cn2/aes.h"
#include "../cpu/cn2/cn2.h"
#include "launch.h"
#include "probe.h"

namespace tesra::cuda {
namespace {

constexpr int kThreads = 64;
constexpr int kColumns = 8;  // blocks of 16 bytes that the AES chains run through
constexpr int kTable = 256;
// Hashes a multiprocessor under way at once: with one load in flight each, 32 keep its memory busy.
constexpr int kHashesAMultiprocessor = 32;

struct Job {
  uint64_t state[kKeccakWords];
  uint32_t fill[kCryptoNightKeys * 4], fold[kCryptoNightKeys * 4];
};

struct alignas(16) Pair {
  uint64_t lo, hi;
};
__device__ __forceinline__ Pair operator^(Pair a, Pair b) { return {a.lo ^ b.lo, a.hi ^ b.hi}; }
__device__ __forceinline__ Pair operator+(Pair a, Pair b) { return {a.lo + b.lo, a.hi + b.hi}; }

__device__ __forceinline__ uint32_t rotl(uint32_t x, int n) { return x << n | x >> (32 - n); }

__device__ __forceinline__ Pair encrypt(const uint32_t* table, Pair x, Pair key) {
  const uint32_t in[4] = {static_cast<uint32_t>(x.lo), static_cast<uint32_t>(x.lo >> 32),
                          static_cast<uint32_t>(x.hi), static_cast<uint32_t>(x.hi >> 32)};
  uint32_t out[4];
  TESRA_FOR(c, 4)
  out[c] = table[in[c] & 0xff] ^ rotl(table[in[(c + 1) & 3] >> 8 & 0xff], 8) ^
           rotl(table[in[(c + 2) & 3] >> 16 & 0xff], 16) ^
           rotl(table[in[(c + 3) & 3] >> 24], 24);
  return key ^ Pair{out[0] | static_cast<uint64_t>(out[1]) << 32,
                    out[2] | static_cast<uint64_t>(out[3]) << 32};
}

// The 1 KiB table into shared memory, where look-ups of a warp do not serialise in the cache.
__device__ __forceinline__ void loadTable(uint32_t* table, const uint32_t* from) {
  for (int i = threadIdx.x; i < kTable; i += blockDim.x) table[i] = from[i];
  __syncthreads();
}

// Thread (hash, column): text block `column` of the state through the whole scratchpad.
template <bool kFold>
__global__ void pass(Job* jobs, uint8_t* pads, const uint32_t* source, int count) {
  __shared__ uint32_t table[kTable];
  loadTable(table, source);
  const int thread = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  const int hash = thread / kColumns, column = thread % kColumns;
  if (hash >= count) return;
  Job& job = jobs[hash];
  Pair keys[kCryptoNightKeys];
  const uint32_t* words = kFold ? job.fold : job.fill;
  TESRA_FOR(r, kCryptoNightKeys)
  keys[r] = {words[4 * r] | static_cast<uint64_t>(words[4 * r + 1]) << 32,
             words[4 * r + 2] | static_cast<uint64_t>(words[4 * r + 3]) << 32};
  uint64_t* const text = job.state + 8 + 2 * column;
  Pair x{text[0], text[1]};
  Pair* const pad =
      reinterpret_cast<Pair*>(pads + static_cast<size_t>(hash) * TESRA_CN2_SCRATCHPAD) + column;
  TESRA_NO_UNROLL
  for (int at = 0; at < TESRA_CN2_SCRATCHPAD / 16; at += kColumns) {
    if (kFold) x = x ^ pad[at];
    TESRA_FOR(r, kCryptoNightKeys) x = encrypt(table, x, keys[r]);
    if (!kFold) pad[at] = x;
  }
  if (kFold) text[0] = x.lo, text[1] = x.hi;
}

__device__ __forceinline__ uint64_t integerRoot(uint64_t n) {
  const uint64_t bits = tesra_cn2_radicand(n);
  double x;
  memcpy(&x, &bits, 8);
  x = __dsqrt_rn(x);
  uint64_t root;
  memcpy(&root, &x, 8);
  return tesra_cn2_root(n, root);
}

__device__ __forceinline__ void shuffle(Pair* line, unsigned at, Pair x1, Pair x2, Pair x3, Pair a,
                                        Pair b0, Pair b1) {
  line[at ^ 1] = x3 + b1;
  line[at ^ 2] = x1 + b0;
  line[at ^ 3] = x2 + a;
}

__global__ void walk(const Job* jobs, uint8_t* pads, const uint32_t* source, int count) {
  __shared__ uint32_t table[kTable];
  loadTable(table, source);
  const int hash = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (hash >= count) return;
  const uint64_t* w = jobs[hash].state;
  Pair* const pad =
      reinterpret_cast<Pair*>(pads + static_cast<size_t>(hash) * TESRA_CN2_SCRATCHPAD);
  Pair a{w[0] ^ w[4], w[1] ^ w[5]}, b0{w[2] ^ w[6], w[3] ^ w[7]}, b1{w[8] ^ w[10], w[9] ^ w[11]};
  uint64_t quotient = w[12], root = w[13];
  TESRA_NO_UNROLL
  for (int i = 0; i < TESRA_CN2_ITERATIONS; i++) {
    unsigned j = static_cast<unsigned>(a.lo & TESRA_CN2_MASK) / 16;
    const Pair c = encrypt(table, pad[j], a);
    {
      const Pair x1 = pad[j ^ 1], x2 = pad[j ^ 2], x3 = pad[j ^ 3];
      shuffle(pad, j, x1, x2, x3, a, b0, b1);
    }
    pad[j] = c ^ b0;
    j = static_cast<unsigned>(c.lo & TESRA_CN2_MASK) / 16;
    Pair d = pad[j];
    const Pair x1 = pad[j ^ 1], x2 = pad[j ^ 2], x3 = pad[j ^ 3];
    d.lo ^= quotient ^ root << 32;
    const uint32_t divisor =
        static_cast<uint32_t>(c.lo + static_cast<uint32_t>(root << 1)) | 0x80000001u;
    const uint64_t whole = c.hi / divisor;
    quotient = static_cast<uint32_t>(whole) + ((c.hi - whole * divisor) << 32);
    root = integerRoot(c.lo + quotient);
    Pair product{__umul64hi(c.lo, d.lo), c.lo * d.lo};
    shuffle(pad, j, x1 ^ product, x2, x3, a, b0, b1);
    product = product ^ x2;
    a = a + product;
    pad[j] = a;
    a = a ^ d;
    b1 = b0;
    b0 = c;
  }
}

// Device memory of one call.
class Loan {
 public:
  ~Loan() {
    for (void* p : taken_) cudaFree(p);
  }
  template <class T>
  cudaError_t take(size_t count, T** out) {
    void* p = nullptr;
    taken_.reserve(taken_.size() + 1);
    const cudaError_t status = cudaMalloc(&p, count * sizeof(T));
    if (status == cudaSuccess) taken_.push_back(p);
    *out = static_cast<T*>(p);
    return status;
  }

 private:
  std::vector<void*> taken_;
};

struct Batch {
  Job* jobs = nullptr;
  uint8_t* pads = nullptr;
  uint32_t* table = nullptr;
  int most = 0;
};

// Room for `wanted` hashes, or for fewer where memory is short; the AES table comes along.
cudaError_t reserve(cudaStream_t stream, Loan& loan, int wanted, Batch* out) {
  cudaError_t status = loan.take(kTable, &out->table);
  if (status != cudaSuccess) return status;
  for (int most = wanted; most > 0; most /= 2) {
    status = loan.take(static_cast<size_t>(most) * TESRA_CN2_SCRATCHPAD, &out->pads);
    out->most = most;
    if (status != cudaErrorMemoryAllocation) break;
    (void)cudaGetLastError();
  }
  if (status == cudaSuccess) status = loan.take(static_cast<size_t>(out->most), &out->jobs);
  if (status != cudaSuccess) return status;
  return cudaMemcpyAsync(out->table, kAes.mixed, sizeof kAes.mixed, cudaMemcpyHostToDevice, stream);
}

// Steps 2 to 5 of `jobs`, whose states return walked.
cudaError_t runBatch(cudaStream_t stream, const Batch& batch, std::vector<Job>& jobs) {
  const int count = static_cast<int>(jobs.size());
  for (Job& job : jobs) {
    const uint8_t* bytes = reinterpret_cast<const uint8_t*>(job.state);
    aes256_round_keys(bytes, job.fill);
    aes256_round_keys(bytes + 32, job.fold);
  }
  const size_t size = jobs.size() * sizeof(Job);
  cudaError_t status = cudaMemcpyAsync(batch.jobs, jobs.data(), size, cudaMemcpyHostToDevice, stream);
  if (status != cudaSuccess) return status;
  const unsigned wide = static_cast<unsigned>((count * kColumns + kThreads - 1) / kThreads);
  const unsigned narrow = static_cast<unsigned>((count + kThreads - 1) / kThreads);
  auto* fill = pass<false>;
  auto* fold = pass<true>;
  TESRA_LAUNCH(fill, wide, kThreads, 0, stream, batch.jobs, batch.pads, batch.table, count);
  TESRA_LAUNCH(walk, narrow, kThreads, 0, stream, batch.jobs, batch.pads, batch.table, count);
  TESRA_LAUNCH(fold, wide, kThreads, 0, stream, batch.jobs, batch.pads, batch.table, count);
  status = cudaGetLastError();
  if (status != cudaSuccess) return status;
  status = cudaMemcpyAsync(jobs.data(), batch.jobs, size, cudaMemcpyDeviceToHost, stream);
  return status != cudaSuccess ? status : cudaStreamSynchronize(stream);
}

int scan(cudaStream_t stream, int multiprocessors, tesra_cn2_scan& s, tesra_error* error) {
  Loan loan;
  Batch batch;
  const uint64_t wanted =
      std::min<uint64_t>(s.count, static_cast<uint64_t>(multiprocessors) * kHashesAMultiprocessor);
  cudaError_t status = reserve(stream, loan, static_cast<int>(wanted), &batch);
  if (status != cudaSuccess) return fail(error, status, "allocating CN2's scratchpads");
  std::vector<uint8_t> input(s.data, s.data + s.size);
  std::vector<Cn2Winner> winners;
  std::vector<Job> jobs;
  uint64_t next = 0;
  while (next < s.count && winners.size() < s.capacity && !(s.stopped && s.stopped(s.context))) {
    jobs.resize(static_cast<size_t>(std::min<uint64_t>(s.count - next, batch.most)));
    for (size_t i = 0; i < jobs.size(); i++) {
      const uint64_t nonce = s.nonce_start + next + i;
      std::memcpy(&input[s.nonce_offset], &nonce, s.nonce_bytes);
      keccak1600(input.data(), input.size(), jobs[i].state);
    }
    status = runBatch(stream, batch, jobs);
    if (status != cudaSuccess) return fail(error, status, "hashing by CN2");
    for (size_t i = 0; i < jobs.size(); i++) {
      Cn2Winner w;
      w.nonce = s.nonce_start + next + i;
      cn2_finish(jobs[i].state, w.hash);
      if (cn2_wins(w.hash, s.target)) winners.push_back(w);
    }
    next += jobs.size();
  }
  cn2_settle(winners, next, s);
  s.pages = TESRA_PAGES_DEVICE;
  return TESRA_OK;
}

}  // namespace

int runCn2Scan(cudaStream_t stream, int multiprocessors, tesra_cn2_scan& args, tesra_error* error) {
  try {
    return scan(stream, multiprocessors, args, error);
  } catch (const std::bad_alloc&) {
    return failWith(error, TESRA_E_MEMORY, "no host memory for CN2");
  }
}

int runCn2Hash(cudaStream_t stream, const tesra_cn2& args, tesra_error* error) {
  try {
    Loan loan;
    Batch batch;
    std::vector<Job> jobs(1);
    keccak1600(args.data, args.size, jobs[0].state);
    cudaError_t status = reserve(stream, loan, 1, &batch);
    if (status == cudaSuccess) status = runBatch(stream, batch, jobs);
    if (status != cudaSuccess) return fail(error, status, "hashing by CN2");
    cn2_finish(jobs[0].state, args.out);
    return TESRA_OK;
  } catch (const std::bad_alloc&) {
    return failWith(error, TESRA_E_MEMORY, "no host memory for CN2");
  }
}

}  // namespace tesra::cuda
