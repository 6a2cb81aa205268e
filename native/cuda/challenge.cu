// Owns the making of CryptoRight-M's challenge matrices on the GPU: ChaCha20 key streams without the
// byte 0x80. Invariant: pow.h's rows; a block makes a row, a thread a ChaCha block of it at a time,
// and prefix sums over the threads put what each keeps in its place.
#include "../kernels/pow.h"

#include "launch.h"

namespace tesra::cuda {
namespace {

constexpr int kThreads = 64;  // one pass makes 4 KiB of stream: a row of the usual depths, or half
constexpr int kWords = 16;

struct Seed {
  uint32_t word[8];
};

__device__ __forceinline__ uint32_t rotl(uint32_t x, int n) { return x << n | x >> (32 - n); }

__device__ __forceinline__ void quarter(uint32_t (&v)[kWords], int a, int b, int c, int d) {
  v[a] += v[b], v[d] = rotl(v[d] ^ v[a], 16);
  v[c] += v[d], v[b] = rotl(v[b] ^ v[c], 12);
  v[a] += v[b], v[d] = rotl(v[d] ^ v[a], 8);
  v[c] += v[d], v[b] = rotl(v[b] ^ v[c], 7);
}

__device__ __forceinline__ void chacha(uint32_t (&v)[kWords], const Seed& seed, uint32_t counter,
                                       uint32_t matrix, uint32_t row) {
  uint32_t start[kWords] = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574};
  TESRA_FOR(i, 8) start[4 + i] = seed.word[i];
  start[12] = counter, start[13] = matrix, start[14] = row, start[15] = 0;
  TESRA_FOR(i, kWords) v[i] = start[i];
  TESRA_NO_UNROLL
  for (int round = 0; round < 10; round++) {
    quarter(v, 0, 4, 8, 12), quarter(v, 1, 5, 9, 13), quarter(v, 2, 6, 10, 14);
    quarter(v, 3, 7, 11, 15), quarter(v, 0, 5, 10, 15), quarter(v, 1, 6, 11, 12);
    quarter(v, 2, 7, 8, 13), quarter(v, 3, 4, 9, 14);
  }
  TESRA_FOR(i, kWords) v[i] += start[i];
}

__global__ void challengeRows(Seed seed, uint32_t matrix, int k, int8_t* out) {
  __shared__ int kept[2][kThreads];
  const int thread = static_cast<int>(threadIdx.x);
  const uint32_t row = blockIdx.x;
  int8_t* const to = out + static_cast<int64_t>(row) * k;
  int filled = 0;  // the same in all threads
  for (uint32_t first = 0; filled < k; first += kThreads) {
    uint32_t v[kWords];
    chacha(v, seed, first + thread, matrix, row);
    int mine = 0;
    TESRA_FOR(i, 4 * kWords) mine += (v[i / 4] >> (8 * (i % 4)) & 0xff) != 0x80;
    // Inclusive prefix sums, doubling the reach; two buffers save a barrier a step.
    int side = 0;
    kept[0][thread] = mine;
    __syncthreads();
    for (int reach = 1; reach < kThreads; reach *= 2, side ^= 1) {
      kept[side ^ 1][thread] =
          kept[side][thread] + (thread >= reach ? kept[side][thread - reach] : 0);
      __syncthreads();
    }
    int at = filled + kept[side][thread] - mine;
    TESRA_FOR(i, 4 * kWords) {
      const uint32_t byte = v[i / 4] >> (8 * (i % 4)) & 0xff;
      if (byte != 0x80) {
        if (at < k) to[at] = static_cast<int8_t>(byte);
        at++;
      }
    }
    filled += kept[side][kThreads - 1];
    __syncthreads();  // all have read the sums before the next pass writes them
  }
}

}  // namespace

cudaError_t launchChallengeRows(cudaStream_t stream, const uint8_t seed[32], uint32_t matrix,
                                int rows, int k, int8_t* out) {
  Seed key;
  for (int i = 0; i < 8; i++)
    key.word[i] = static_cast<uint32_t>(seed[4 * i]) |
                  static_cast<uint32_t>(seed[4 * i + 1]) << 8 |
                  static_cast<uint32_t>(seed[4 * i + 2]) << 16 |
                  static_cast<uint32_t>(seed[4 * i + 3]) << 24;
  TESRA_LAUNCH(challengeRows, static_cast<unsigned>(rows), kThreads, 0, stream, key, matrix, k, out);
  return cudaGetLastError();
}

}  // namespace tesra::cuda
