// Owns: the int8 product and the CryptoRight-M scan over 64 x 64 blocks (matrix proof of work;
// the transcript of tile accumulators follows the NoisyGEMM idea of arXiv 2504.09971's authors).
// Invariant: integers only; any packing and any thread order gives the same words.
#include <algorithm>
#include <cstring>
#include <mutex>
#include <new>
#include <vector>

#include "cpu.h"

namespace tesra {
namespace {

// 8 rows x k and 32 columns x k, packed; 2 bytes an element cover every packed form.
size_t packed_a_bytes(int32_t k) { return (static_cast<size_t>(k) + 4) * 8 * 2; }
size_t packed_b_bytes(int32_t k) { return (static_cast<size_t>(k) + 4) * 32 * 2; }
size_t align64(size_t n) { return (n + 63) & ~size_t{63}; }

struct Buffer {
  explicit Buffer(size_t bytes) : raw(bytes + 64) {}
  uint8_t* data() {
    return reinterpret_cast<uint8_t*>((reinterpret_cast<uintptr_t>(raw.data()) + 63) &
                                      ~uintptr_t{63});
  }
  std::vector<uint8_t> raw;
};

inline uint32_t rotl(uint32_t x, int n) { return (x << n) | (x >> (32 - n)); }

bool at_most(const uint8_t* ticket, const uint8_t* target) {
  for (int i = 31; i >= 0; --i)
    if (ticket[i] != target[i]) return ticket[i] < target[i];
  return true;
}

}  // namespace

void int8_gemm(const Context& cx, const tesra_int8_gemm& g) {
  if (g.m == 0 || g.n == 0) return;
  if (g.k == 0) {
    std::memset(g.c, 0, sizeof(int32_t) * static_cast<size_t>(g.m) * g.n);
    return;
  }
  const Kernels& k = *cx.kernels;
  const int64_t chunks = ceil_div(g.k, TESRA_CRM_CHUNK);
  const int64_t row_tiles = ceil_div(g.m, 8), panels = ceil_div(g.n, 32);
  const size_t a_bytes = align64(packed_a_bytes(g.k)), b_bytes = align64(packed_b_bytes(g.k));
  const size_t fix_bytes = align64(static_cast<size_t>(chunks) * 32 * 4);
  Buffer a(a_bytes * row_tiles), b((b_bytes + fix_bytes) * panels);
  // The last, incomplete group of rows continues in zeros.
  auto edge = [&](const int8_t* from, int64_t total, int64_t group) {
    const int64_t left = total % group;
    std::vector<int8_t> copy(left ? static_cast<size_t>(group) * g.k : 0, 0);
    if (left)
      std::memcpy(copy.data(), from + (total - left) * g.k, static_cast<size_t>(left) * g.k);
    return copy;
  };
  const std::vector<int8_t> a_edge = edge(g.a, g.m, 8), b_edge = edge(g.bt, g.n, 32);
  cx.pool->run(row_tiles, [&](int64_t i, int) {
    const int8_t* from = (i + 1) * 8 <= g.m ? g.a + i * 8 * g.k : a_edge.data();
    k.pow_pack_a(from, g.k, g.k, a.data() + i * a_bytes);
  });
  cx.pool->run(panels, [&](int64_t j, int) {
    const int8_t* from = (j + 1) * 32 <= g.n ? g.bt + j * 32 * g.k : b_edge.data();
    uint8_t* to = b.data() + j * (b_bytes + fix_bytes);
    k.pow_pack_b(from, g.k, g.k, to, reinterpret_cast<int32_t*>(to + b_bytes));
  });
  cx.pool->run(panels, [&](int64_t j, int) {
    const uint8_t* panel = b.data() + j * (b_bytes + fix_bytes);
    const int32_t* fix = reinterpret_cast<const int32_t*>(panel + b_bytes);
    alignas(64) int32_t tile[8 * 32];
    for (int64_t i = 0; i < row_tiles; ++i) {
      const int64_t rows = smaller<int64_t>(8, g.m - i * 8);
      const int64_t columns = smaller<int64_t>(32, g.n - j * 32);
      int32_t* c = g.c + i * 8 * g.n + j * 32;
      const bool whole = rows == 8 && columns == 32;
      k.pow_tile(a.data() + i * a_bytes, panel, fix, g.k, nullptr, 0, whole ? c : tile,
                 whole ? g.n : 32);
      if (!whole)
        for (int64_t r = 0; r < rows; ++r)
          std::memcpy(c + r * g.n, tile + r * 32, sizeof(int32_t) * static_cast<size_t>(columns));
    }
  });
}

int crm_scan(const Context& cx, tesra_crm_scan& s, tesra_error* error) {
  const Kernels& k = *cx.kernels;
  const int64_t chunks = s.k / TESRA_CRM_CHUNK;
  const int64_t block_rows = s.m / TESRA_CRM_BLOCK, block_columns = s.n / TESRA_CRM_BLOCK;
  const size_t a_bytes = align64(packed_a_bytes(s.k)), b_bytes = align64(packed_b_bytes(s.k));
  const size_t fix_bytes = align64(static_cast<size_t>(chunks) * 32 * 4);
  const size_t x_bytes = align64(static_cast<size_t>(chunks) * 8 * 16 * 4);
  // All of A is packed once; each task owns a column block and walks down the rows.
  Buffer a(a_bytes * 8 * static_cast<size_t>(block_rows));
  const size_t own_bytes = 2 * (b_bytes + fix_bytes) + x_bytes;
  Buffer own(own_bytes * static_cast<size_t>(cx.pool->threads()));
  cx.pool->run(block_rows * 8, [&](int64_t i, int) {
    const int64_t row = i / 8 * TESRA_CRM_BLOCK + i % 8;  // rows g, g + 8, ... of block b
    k.pow_pack_a(s.a + row * s.k, int64_t{8} * s.k, s.k, a.data() + i * a_bytes);
  });
  uint32_t key[8];
  std::memcpy(key, s.ticket_key, 32);
  struct Winner {
    uint32_t tile;
    uint8_t ticket[32];
  };
  std::vector<Winner> winners;
  std::mutex mutex;
  bool full = false;
  const uint32_t flags = TESRA_BLAKE3_CHUNK_START | TESRA_BLAKE3_CHUNK_END | TESRA_BLAKE3_ROOT |
                         TESRA_BLAKE3_KEYED;
  cx.pool->run(block_columns, [&](int64_t column, int thread) {
    uint8_t* panels = own.data() + own_bytes * static_cast<size_t>(thread);
    uint32_t* x = reinterpret_cast<uint32_t*>(panels + 2 * (b_bytes + fix_bytes));
    for (int half = 0; half < 2; ++half) {
      uint8_t* to = panels + half * (b_bytes + fix_bytes);
      k.pow_pack_b(s.bt + (column * TESRA_CRM_BLOCK + half * 32) * s.k, s.k, s.k, to,
                   reinterpret_cast<int32_t*>(to + b_bytes));
    }
    for (int64_t row = 0; row < block_rows; ++row) {
      std::memset(x, 0, x_bytes);
      for (int half = 0; half < 2; ++half) {
        const uint8_t* panel = panels + half * (b_bytes + fix_bytes);
        for (int g = 0; g < 8; ++g)
          k.pow_tile(a.data() + (row * 8 + g) * a_bytes, panel,
                     reinterpret_cast<const int32_t*>(panel + b_bytes), s.k, x + g * 16, 8 * 16,
                     nullptr, 0);
      }
      uint32_t j[TESRA_CRM_LANES][16] = {};
      for (int64_t c = 0; c < chunks; ++c)
        for (int lane = 0; lane < TESRA_CRM_LANES; ++lane) {
          const uint32_t* w = x + c * 8 * 16 + lane / 4 * 16 + lane % 4 * 2;
          uint32_t& word = j[lane][c % 16];
          word = rotl(word, TESRA_CRM_ROTATE) ^ (w[0] ^ w[1] ^ w[8] ^ w[9]);
        }
      uint8_t tickets[TESRA_CRM_LANES * 32];
      for (int i = 0; i < TESRA_CRM_LANES; i += k.hash_lanes)
        k.hash_blocks(reinterpret_cast<const uint8_t*>(j[i]),
                      smaller(k.hash_lanes, TESRA_CRM_LANES - i), key, flags, tickets + i * 32);
      for (int lane = 0; lane < TESRA_CRM_LANES; ++lane) {
        if (!at_most(tickets + lane * 32, s.target)) continue;
        Winner w;
        w.tile = static_cast<uint32_t>((row * block_columns + column) * TESRA_CRM_LANES + lane);
        std::memcpy(w.ticket, tickets + lane * 32, 32);
        std::lock_guard<std::mutex> lock(mutex);
        try {
          winners.push_back(w);
        } catch (const std::bad_alloc&) {
          full = true;  // an exception must not leave a pool thread
        }
      }
    }
  });
  if (full) return fail(error, TESRA_E_MEMORY, "no memory for the winning tickets");
  std::sort(winners.begin(), winners.end(),
            [](const Winner& p, const Winner& q) { return p.tile < q.tile; });
  s.count = static_cast<uint32_t>(winners.size());
  if (s.count > s.capacity)
    return fail(error, TESRA_E_CAPACITY, "%u tickets win but there is room for %u", s.count,
                s.capacity);
  for (uint32_t i = 0; i < s.count; ++i) {
    s.tiles[i] = winners[i].tile;
    std::memcpy(s.tickets + size_t{i} * 32, winners[i].ticket, 32);
  }
  return TESRA_OK;
}

// One tile is 128 dot products: plain loops, a third of a millisecond at k = 4096.
void crm_tile(const tesra_crm_tile& t) {
  int32_t acc[8][16] = {};
  for (int i = 0; i < 16; ++i) t.j_out[i] = 0;
  for (int64_t k = 0; k < t.k; k += TESRA_CRM_CHUNK) {
    uint32_t x = 0;
    for (int r = 0; r < 8; ++r)
      for (int c = 0; c < 16; ++c) {
        const int8_t* a = t.a_rows + int64_t{r} * t.k + k;
        const int8_t* b = t.b_cols + int64_t{c} * t.k + k;
        int32_t sum = 0;
        for (int i = 0; i < TESRA_CRM_CHUNK; ++i) sum += static_cast<int32_t>(a[i]) * b[i];
        acc[r][c] += sum;
        x ^= static_cast<uint32_t>(acc[r][c]);
      }
    uint32_t& word = t.j_out[k / TESRA_CRM_CHUNK % 16];
    word = rotl(word, TESRA_CRM_ROTATE) ^ x;
  }
}

}  // namespace tesra
