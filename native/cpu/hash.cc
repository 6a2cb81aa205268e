// Owns: the BLAKE3 tree over the SIMD compressions: full chunks many at a time, parents many at a
// time, the short tail and the root one by one.
#include <cstring>
#include <vector>

#include "cpu.h"

namespace tesra {
namespace {

constexpr uint32_t kIv[8] = TESRA_BLAKE3_IV;
// A task hashes so many chunks and folds them kFoldLevels up on its own, all lanes in use to the
// last: what is left to one thread is a parent in sixteen, 0.4 % of the work.
constexpr int64_t kChunksATask = 256;
constexpr int kFoldLevels = 4;
// Below this a second thread costs more than it hashes.
constexpr int64_t kChunksAlone = 64;

struct Hasher {
  const Kernels& k;
  uint32_t key[8];
  uint32_t flags;

  // One compression through the scalar kernel's rules, any block size: used for tails and roots.
  void compress(uint32_t h[8], const uint8_t block[64], uint64_t counter, uint32_t size,
                uint32_t f) const {
    static constexpr uint8_t order[16] = {2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8};
    uint32_t m[16], v[16];
    std::memcpy(m, block, 64);
    for (int i = 0; i < 8; ++i) v[i] = h[i];
    for (int i = 0; i < 4; ++i) v[8 + i] = kIv[i];
    v[12] = static_cast<uint32_t>(counter);
    v[13] = static_cast<uint32_t>(counter >> 32);
    v[14] = size;
    v[15] = f;
    auto rotr = [](uint32_t x, int n) { return (x >> n) | (x << (32 - n)); };
    auto g = [&](int a, int b, int c, int d, uint32_t x, uint32_t y) {
      v[a] += v[b] + x;
      v[d] = rotr(v[d] ^ v[a], 16);
      v[c] += v[d];
      v[b] = rotr(v[b] ^ v[c], 12);
      v[a] += v[b] + y;
      v[d] = rotr(v[d] ^ v[a], 8);
      v[c] += v[d];
      v[b] = rotr(v[b] ^ v[c], 7);
    };
    for (int r = 0; r < 7; ++r) {
      g(0, 4, 8, 12, m[0], m[1]);
      g(1, 5, 9, 13, m[2], m[3]);
      g(2, 6, 10, 14, m[4], m[5]);
      g(3, 7, 11, 15, m[6], m[7]);
      g(0, 5, 10, 15, m[8], m[9]);
      g(1, 6, 11, 12, m[10], m[11]);
      g(2, 7, 8, 13, m[12], m[13]);
      g(3, 4, 9, 14, m[14], m[15]);
      uint32_t p[16];
      for (int i = 0; i < 16; ++i) p[i] = m[order[i]];
      std::memcpy(m, p, sizeof m);
    }
    for (int i = 0; i < 8; ++i) h[i] = v[i] ^ v[i + 8];
  }

  // A chunk of at most 1024 bytes; `last` is ROOT for a message of one chunk.
  void chunk(const uint8_t* data, size_t size, uint64_t counter, uint32_t last,
             uint8_t out[32]) const {
    uint32_t h[8];
    std::memcpy(h, key, sizeof h);
    size_t at = 0;
    do {
      const size_t n = smaller<size_t>(64, size - at);
      uint8_t block[64] = {};
      if (n) std::memcpy(block, data + at, n);
      uint32_t f = flags;
      if (at == 0) f |= TESRA_BLAKE3_CHUNK_START;
      if (at + n == size) f |= TESRA_BLAKE3_CHUNK_END | last;
      compress(h, block, counter, static_cast<uint32_t>(n), f);
      at += n;
    } while (at < size);
    std::memcpy(out, h, 32);
  }

  // One level up, in place: neighbours pair, an odd last one is carried. Returns how many are left.
  int64_t fold(uint8_t* cvs, int64_t count) const {
    const int64_t pairs = count / 2;
    for (int64_t i = 0; i < pairs; i += k.hash_lanes)
      k.hash_blocks(cvs + i * 64, static_cast<int>(smaller<int64_t>(k.hash_lanes, pairs - i)), key,
                    flags | TESRA_BLAKE3_PARENT, cvs + i * 32);
    if (count % 2) std::memmove(cvs + pairs * 32, cvs + (count - 1) * 32, 32);
    return pairs + count % 2;
  }

  // Chaining values of chunks [begin, end) of the message.
  void chunks(const uint8_t* data, size_t size, int64_t begin, int64_t end, uint8_t* out) const {
    const int64_t full = smaller(end, static_cast<int64_t>(size / TESRA_BLAKE3_CHUNK));
    for (int64_t c = begin; c < full; c += k.hash_lanes)
      k.hash_chunks(data + c * TESRA_BLAKE3_CHUNK,
                    static_cast<int>(smaller<int64_t>(k.hash_lanes, full - c)),
                    static_cast<uint64_t>(c), key, flags, out + (c - begin) * 32);
    if (full < end)
      chunk(data + full * TESRA_BLAKE3_CHUNK, size % TESRA_BLAKE3_CHUNK,
            static_cast<uint64_t>(full), 0, out + (full - begin) * 32);
  }
};

}  // namespace

void blake3(const Context& cx, const tesra_blake3& args) {
  Hasher h{*cx.kernels, {}, 0};
  if (args.key) {
    std::memcpy(h.key, args.key, 32);
    h.flags = TESRA_BLAKE3_KEYED;
  } else {
    std::memcpy(h.key, kIv, 32);
  }
  if (args.size <= TESRA_BLAKE3_CHUNK) {
    h.chunk(args.data, args.size, 0, TESRA_BLAKE3_ROOT, args.out);
    return;
  }
  // Chaining values level by level: pairing neighbours and carrying an odd one up gives the same
  // tree as BLAKE3's rule (left subtrees are the largest powers of two).
  const int64_t chunks = ceil_div(static_cast<int64_t>(args.size), TESRA_BLAKE3_CHUNK);
  std::vector<uint8_t> cvs;
  int64_t count = chunks;
  if (chunks <= kChunksATask) {
    cvs.resize(static_cast<size_t>(chunks) * 32);
    const int64_t step = chunks <= kChunksAlone ? chunks : kChunksAlone;
    cx.pool->run(ceil_div(chunks, step), [&](int64_t task, int) {
      h.chunks(args.data, args.size, task * step, smaller(chunks, (task + 1) * step),
               cvs.data() + task * step * 32);
    });
  } else {
    // Tasks begin at multiples of a power of two, so their own pairs are the whole tree's.
    constexpr int64_t kKept = kChunksATask >> kFoldLevels;
    const int64_t tasks = ceil_div(chunks, kChunksATask);
    cvs.resize(static_cast<size_t>(tasks * kKept) * 32);
    cx.pool->run(tasks, [&](int64_t task, int) {
      alignas(64) uint8_t own[kChunksATask * 32];
      const int64_t begin = task * kChunksATask, end = smaller(chunks, begin + kChunksATask);
      h.chunks(args.data, args.size, begin, end, own);
      int64_t left = end - begin;
      for (int level = 0; level < kFoldLevels; ++level) left = h.fold(own, left);
      std::memcpy(cvs.data() + task * kKept * 32, own, static_cast<size_t>(left) * 32);
      if (task == tasks - 1) count = task * kKept + left;
    });
  }
  while (count > 2) count = h.fold(cvs.data(), count);
  uint32_t root[8];
  std::memcpy(root, h.key, sizeof root);
  h.compress(root, cvs.data(), 0, 64, h.flags | TESRA_BLAKE3_PARENT | TESRA_BLAKE3_ROOT);
  std::memcpy(args.out, root, 32);
}

}  // namespace tesra
