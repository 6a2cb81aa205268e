// Owns: the CryptoRight-M scan over 64 x 64 blocks (matrix proof of work; the transcript of tile
// accumulators follows the NoisyGEMM idea of arXiv 2504.09971's authors), and the replay of a tile.
// Invariant: integers only; any packing and any thread order gives the same words.
#include <algorithm>
#include <cstring>
#include <mutex>
#include <new>
#include <vector>

#include "int8.h"

namespace tesra {
namespace {

inline uint32_t rotl(uint32_t x, int n) { return (x << n) | (x >> (32 - n)); }

// Rows of a scan's operands as (pointer, distance): where they lie, or made from the seed.
struct Rows {
  const int8_t* at;
  int64_t stride;
};

// `count` rows of matrix 0 or 1 from `first` on, count a multiple of 32; `buffer` holds them with
// kRowSlack each.
Rows make_rows(const Kernels& k, const tesra_crm_scan& s, uint32_t matrix, int64_t first, int count,
               int8_t* buffer) {
  uint32_t seed[8], rows[16];
  std::memcpy(seed, s.seed, 32);
  const int64_t stride = int64_t{s.k} + kRowSlack;
  const int lanes = smaller(k.hash_lanes, 16);
  for (int i = 0; i < count; i += lanes) {
    for (int l = 0; l < lanes; ++l) rows[l] = static_cast<uint32_t>(first + i + l);
    k.challenge_rows(seed, matrix, rows, lanes, s.k, buffer + i * stride, stride);
  }
  return {buffer, stride};
}

bool at_most(const uint8_t* ticket, const uint8_t* target) {
  for (int i = 31; i >= 0; --i)
    if (ticket[i] != target[i]) return ticket[i] < target[i];
  return true;
}

}  // namespace

int crm_scan(const Context& cx, tesra_crm_scan& s, tesra_error* error) {
  const Kernels& k = *cx.kernels;
  const Int8Kernels& int8 = k.int8;
  const Int8Packing p(int8, s.k, TESRA_CRM_CHUNK);
  const int64_t chunks = s.k / TESRA_CRM_CHUNK;
  const int64_t block_rows = s.m / TESRA_CRM_BLOCK, block_columns = s.n / TESRA_CRM_BLOCK;
  const int64_t groups = TESRA_CRM_BLOCK / int8.rows;
  const size_t x_bytes = static_cast<size_t>(chunks) * 8 * 16 * 4;
  // All of A is packed once; each task owns a column block and walks down the rows.
  const size_t made_bytes =
      s.seed ? (static_cast<size_t>(s.k) + kRowSlack) * TESRA_CRM_BLOCK : 0;
  const size_t own_bytes = round_up(2 * p.panel + x_bytes + made_bytes, 64);
  uint8_t* const a = static_cast<uint8_t*>(
      cx.workspace->take(p.group * groups * block_rows + own_bytes * cx.pool->threads()));
  uint8_t* const own = a + p.group * groups * block_rows;
  auto made_of = [&](int thread) {
    return reinterpret_cast<int8_t*>(own + own_bytes * static_cast<size_t>(thread) + 2 * p.panel +
                                     x_bytes);
  };
  cx.pool->run(block_rows, [&](int64_t block, int thread) {
    const int64_t top = block * TESRA_CRM_BLOCK;
    const Rows from = s.seed ? make_rows(k, s, 0, top, TESRA_CRM_BLOCK, made_of(thread))
                             : Rows{s.a + top * s.k, s.k};
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t first = int8.row_step == 1 ? g * int8.rows : g;
      int8.pack_a(from.at + first * from.stride, int8.row_step * from.stride, int8.rows, s.k,
                  a + (block * groups + g) * p.group);
    }
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
    uint8_t* panels = own + own_bytes * static_cast<size_t>(thread);
    uint32_t* x = reinterpret_cast<uint32_t*>(panels + 2 * p.panel);
    for (int half = 0; half < 2; ++half) {
      uint8_t* to = panels + half * p.panel;
      const int64_t first = column * TESRA_CRM_BLOCK + half * kInt8Columns;
      const Rows from = s.seed ? make_rows(k, s, 1, first, kInt8Columns, made_of(thread))
                               : Rows{s.bt + first * s.k, s.k};
      int8.pack_b(from.at, from.stride, kInt8Columns, s.k, TESRA_CRM_CHUNK, to, p.corrections(to));
    }
    for (int64_t row = 0; row < block_rows; ++row) {
      std::memset(x, 0, x_bytes);
      if (int8.begin) int8.begin();
      for (int half = 0; half < 2; ++half)
        for (int64_t i = 0; i < groups; ++i) {
          Int8Tile t = int8_tile(p, a + (row * groups + i) * p.group, panels + half * p.panel, s.k);
          t.x = int8.row_step == 1 ? x : x + i * 16;
          t.x_stride = 8 * 16;
          int8.tile(t);
        }
      if (int8.end) int8.end();
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
