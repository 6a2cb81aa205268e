// Owns BLAKE3 of device bytes: one thread a 1024-byte chunk, then the tree of parents level by
// level. Invariant: pairing neighbours and carrying an odd last node up unchanged gives BLAKE3's
// own tree, whose left subtrees are the largest powers of two.
#include "blake3-core.h"
#include "launch.h"

namespace tesra::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kBlockBytes = 64;

// Little-endian word at `at`, bytes from `size` on read as zero.
__device__ __forceinline__ uint32_t wordAt(const uint8_t* data, uint64_t at, uint64_t size) {
  uint32_t word = 0;
  for (int i = 0; i < 4; i++)
    if (at + i < size) word |= static_cast<uint32_t>(data[at + i]) << (8 * i);
  return word;
}

__global__ void hashChunks(const uint8_t* data, uint64_t size, uint64_t chunks, Key key,
                           uint32_t mode, uint32_t* out) {
  const uint64_t stride = static_cast<uint64_t>(gridDim.x) * blockDim.x;
  for (uint64_t chunk = static_cast<uint64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
       chunk < chunks; chunk += stride) {
    const uint64_t begin = chunk * TESRA_BLAKE3_CHUNK;
    const uint64_t left = size - begin;
    const int bytes = left < TESRA_BLAKE3_CHUNK ? static_cast<int>(left) : TESRA_BLAKE3_CHUNK;
    const int blocks = bytes <= kBlockBytes ? 1 : (bytes + kBlockBytes - 1) / kBlockBytes;
    uint32_t cv[8];
    for (int i = 0; i < 8; i++) cv[i] = key.word[i];
    TESRA_NO_UNROLL
    for (int block = 0; block < blocks; block++) {
      const uint64_t at = begin + static_cast<uint64_t>(block) * kBlockBytes;
      const int length =
          bytes - block * kBlockBytes < kBlockBytes ? bytes - block * kBlockBytes : kBlockBytes;
      uint32_t m[16];
      if (length == kBlockBytes) {
        const uint4* from = reinterpret_cast<const uint4*>(data + at);
        TESRA_FOR(i, 4) {
          const uint4 v = from[i];
          m[4 * i] = v.x, m[4 * i + 1] = v.y, m[4 * i + 2] = v.z, m[4 * i + 3] = v.w;
        }
      } else {
        TESRA_FOR(i, 16) m[i] = wordAt(data, at + 4 * i, size);
      }
      uint32_t flags = mode;
      if (block == 0) flags |= TESRA_BLAKE3_CHUNK_START;
      if (block == blocks - 1)
        flags |= TESRA_BLAKE3_CHUNK_END | (chunks == 1 ? TESRA_BLAKE3_ROOT : 0);
      compress(cv, m, chunk, static_cast<uint32_t>(length), flags);
    }
    for (int i = 0; i < 8; i++) out[chunk * 8 + i] = cv[i];
  }
}

__global__ void hashParents(const uint32_t* in, uint64_t count, Key key, uint32_t mode,
                            uint32_t* out) {
  const uint64_t parents = (count + 1) / 2;
  const uint64_t stride = static_cast<uint64_t>(gridDim.x) * blockDim.x;
  for (uint64_t node = static_cast<uint64_t>(blockIdx.x) * blockDim.x + threadIdx.x; node < parents;
       node += stride) {
    const uint32_t* from = in + node * 16;
    if (2 * node + 1 == count) {
      for (int i = 0; i < 8; i++) out[node * 8 + i] = from[i];
      continue;
    }
    uint32_t cv[8], m[16];
    for (int i = 0; i < 8; i++) cv[i] = key.word[i];
    for (int i = 0; i < 16; i++) m[i] = from[i];
    compress(cv, m, 0, kBlockBytes,
             mode | TESRA_BLAKE3_PARENT | (count == 2 ? TESRA_BLAKE3_ROOT : 0));
    for (int i = 0; i < 8; i++) out[node * 8 + i] = cv[i];
  }
}

uint64_t chunksOf(size_t size) {
  return size == 0 ? 1 : (size + TESRA_BLAKE3_CHUNK - 1) / TESRA_BLAKE3_CHUNK;
}

}  // namespace

// Two levels alternate between the halves: chunks * 32 bytes and half as many.
size_t blake3Scratch(size_t size) {
  const uint64_t chunks = chunksOf(size);
  return (chunks + (chunks + 1) / 2) * 32;
}

cudaError_t launchBlake3(cudaStream_t stream, const uint8_t* data, size_t size,
                         const uint32_t key[8], bool keyed, uint32_t* work, uint32_t** result) {
  Key k;
  for (int i = 0; i < 8; i++) k.word[i] = key[i];
  const uint32_t mode = keyed ? TESRA_BLAKE3_KEYED : 0;
  const uint64_t chunks = chunksOf(size);
  uint32_t* from = work;
  uint32_t* to = work + chunks * 8;
  TESRA_LAUNCH(hashChunks, gridFor(chunks, kThreads), kThreads, 0, stream, data, size, chunks, k,
               mode, from);
  cudaError_t error = cudaGetLastError();
  for (uint64_t count = chunks; count > 1 && error == cudaSuccess; count = (count + 1) / 2) {
    TESRA_LAUNCH(hashParents, gridFor((count + 1) / 2, kThreads), kThreads, 0, stream, from, count,
                 k, mode, to);
    error = cudaGetLastError();
    uint32_t* const next = to;
    to = from;
    from = next;
  }
  *result = from;
  return error;
}

}  // namespace tesra::cuda
