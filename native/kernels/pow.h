// Owns: the int8 product and the arithmetic core of the matrix proof of work. Integers only, so
// every back end gives the same bits in any order of summation. Host pointers throughout.
#pragma once
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TESRA_CRM_CHUNK 128      // k step after which running accumulators enter the transcript
#define TESRA_CRM_BLOCK 64       // a 64 x 64 block of C holds TESRA_CRM_LANES tiles
#define TESRA_CRM_LANES 32
#define TESRA_CRM_K_MAX 65536    // 65536 * 128 * 128 = 2^30: no int32 accumulator can overflow
#define TESRA_CRM_ROTATE 13

// C (m x n int32) = A (m x k int8 row-major) times B, given as bT (n x k row-major).
// 0 <= m, n; 0 <= k <= TESRA_CRM_K_MAX; all int8 values allowed, -128 too.
typedef struct tesra_int8_gemm {
  const int8_t* a;
  const int8_t* bt;
  int32_t* c;
  int32_t m, n, k;
} tesra_int8_gemm;

// Tiles: index = ((b * (n/64) + c) * 32 + lane), b and c = row and column block, lane = g*4 + t,
// g = 0..7, t = 0..3; rows {64b + g + 8i : i < 8}, columns {64c + 2t + 8j + {0,1} : j < 8}.
// Transcript: J[0..15] = 0; after chunk s of 128 along k: x = XOR of the tile's 128 running
// accumulators; J[s % 16] = rotl32(J[s % 16], 13) ^ x.
// ticket = keyed BLAKE3 of J (64 bytes, little-endian words); it wins when ticket <= target as
// little-endian 256-bit numbers.
// Operands: given, or with a seed those of a challenge: row r of A (matrix 0) and of the transpose of
// B (matrix 1) is the first k bytes other than 0x80 of the ChaCha20 key stream (RFC 8439) with key
// `seed`, counter from 0, nonce u32le(matrix) || u64le(r).
// m, n multiples of 64; k a multiple of 128, 128 <= k <= 65536; m*n/128 < 2^32.
// Winners come in ascending tile order. When more than `capacity` win: TESRA_E_CAPACITY, count is
// the number of all winners, and the caller tries again with more room.
typedef struct tesra_crm_scan {
  const uint8_t* seed;  // 32 bytes, or NULL
  const int8_t* a;      // m x k; NULL with a seed
  const int8_t* bt;     // n x k; NULL with a seed
  int32_t m, n, k;
  const uint8_t* ticket_key;  // 32 bytes
  const uint8_t* target;      // 32 bytes little-endian
  uint32_t capacity;
  uint32_t count;     // out
  uint32_t* tiles;    // out: capacity words
  uint8_t* tickets;   // out: capacity * 32 bytes
} tesra_crm_scan;

// One tile: a_rows 8 x k (i = 0..7), b_cols 16 x k (rows 2j and 2j+1 are the columns of j = 0..7);
// j_out: 16 words. k as above.
typedef struct tesra_crm_tile {
  const int8_t* a_rows;
  const int8_t* b_cols;
  int32_t k;
  uint32_t* j_out;
} tesra_crm_tile;

#ifdef __cplusplus
}
#endif
