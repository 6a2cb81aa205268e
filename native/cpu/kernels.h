// Owns: the table of instruction-set specific kernels of the CPU back end.
// Invariant: all tables give the same bits; they differ in speed only. Kernels allocate nothing,
// take ranges, and know nothing of threads.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "../kernels/backend.h"
#include "transformer-kernels.h"

namespace tesra {

// A run of consecutive k: element k of row r is a[r][a_offset + i * k_step], and B's row is at
// b_offset + i * b_step, i = 0 .. length-1. Offsets in floats.
struct Segment {
  int64_t a_offset, b_offset;
  int32_t length;
};

// One register tile over the segments of one K chunk: c[rows x columns] (+)= A-part * B-part.
struct Tile {
  const float* a[16];  // row form: one pointer a row; column form: a[0] and rows at +0, +1, ...
  const float* b;      // columns contiguous; readable up to the next multiple of the vector width
  const Segment* segments;
  int64_t k_step, b_step, ldc;
  float* c;
  const float* bias;  // at the tile's first column, or NULL
  int32_t segment_count;
  int32_t columns;  // valid columns, <= vectors * width
  bool load;        // add to what c holds
  bool relu;
};
using TileFunction = void (*)(const Tile&);

constexpr int kRowSlack = 128;
constexpr int kMaxVectors = 3;
constexpr int kMaxRowForm = 12;     // row pointers that fit in the general registers
constexpr int kMaxColumnForm = 24;  // one vector wide tiles

struct OptimizerRange {
  const float *p, *g, *m, *v;
  float *p_out, *m_out, *v_out;  // may be p, m, v
  int64_t n;
  bool stream;  // outputs go around the caches; they are 64-byte aligned then
};

// One tile of the int8 product: a packed group of rows times a packed panel of columns.
struct Int8Tile {
  const void* a;
  // AMX: bytes between two rows of `a` and between two steps of 64 k, so that a whole group can be
  // read where it lies; other kernels take the packed form only.
  int64_t a_row, a_step;
  const void* b;
  const int32_t* correction;  // that came with the panel
  int32_t k, chunk;           // chunk: as the panel was packed for
  // x[chunk * x_stride + (row % 8 if row_step is 1) * 16 + column % 16] ^= running sums
  uint32_t* x;
  int64_t x_stride;
  int32_t* c;  // rows x columns when not NULL, ldc words apart
  int64_t ldc;
};

// The int8 product of one instruction set. Operands are packed into groups of `rows` rows and
// panels of kInt8Columns columns; missing rows and k are zeros.
constexpr int kInt8Columns = 32;
struct Int8Kernels {
  int rows;
  int depth;          // packed lengths are multiples of it
  int element_bytes;  // of a packed element
  // In a block of the proof of work the rows of a group lie this far apart: 8 where the kernel
  // folds all rows of a group into one, 1 where it keeps eight apart.
  int row_step;
  bool in_place;  // A may be read in place, see Int8Tile
  void (*pack_a)(const int8_t* a, int64_t lda, int rows, int32_t k, void* out);
  // correction: kInt8Columns words for every `chunk` of k, only VNNI's are used
  void (*pack_b)(const int8_t* bt, int64_t ldb, int columns, int32_t k, int32_t chunk, void* out,
                 int32_t* correction);
  void (*tile)(const Int8Tile& t);
  // Around any number of tiles on one thread: the state of tile registers. May be NULL.
  void (*begin)();
  void (*end)();
};

// exact-int: see native/kernels/exact.h for the arithmetic.
constexpr int kSlicesMax = 3;
struct SliceJoin {
  const int32_t* sums[kSlicesMax];  // by order, kInt8Columns words a row
  int slices;
  const double* column_scales;  // kInt8Columns of them
  float* c;
  const float* bias;
  int columns;
  bool load, relu;
};
struct SliceKernels {
  // out[s * plane + i] = slice s of x[i]; returns the row's scale, 2^(e - 6).
  double (*cut)(const float* x, int32_t n, int slices, int8_t* out, int64_t plane);
  // One row of a tile.
  void (*join)(const SliceJoin& j, double row_scale);
};

// The loops of compression.inc; see there.
struct CompressionKernels {
  void (*feed)(const float* x, const float* r, float* t, int64_t n);
  uint32_t (*largest_bits)(const float* t, int64_t n);
  void (*quantise)(const float* t, int8_t* q, int64_t n, float inverse);
  void (*quantise_stochastic)(const float* t, const float* u, int8_t* q, int64_t n, float inverse);
  void (*leave_quantised)(float* t, const int8_t* q, int64_t n, float scale);
  float (*magnitude_sum)(const float* t, int64_t n);
  void (*take_signs)(float* t, uint8_t* out, int64_t n, float magnitude, bool leave);
  void (*put_quantised)(const int8_t* q, float* out, int64_t n, float unit, float scale, bool add);
  void (*put_signs)(const uint8_t* bits, float* out, int64_t n, float magnitude, float scale,
                    bool add);
  void (*take_halves)(const float* t, uint16_t* out, int64_t n);
  void (*leave_halves)(float* t, const uint16_t* halves, int64_t n);
  void (*put_halves)(const uint16_t* halves, float* out, int64_t n, float scale, bool add);
};

struct Kernels {
  const char* name;
  TransformerKernels transformer;
  int width;                     // floats a vector
  int gemm_vectors, gemm_rows;   // main tile of the packed product
  int row_form[kMaxVectors + 1];     // most rows by vectors, row form
  int column_form[kMaxVectors + 1];  // most rows by vectors, column form
  // Row form: k_step = 1 and b_step = vectors * width.
  TileFunction by_rows[kMaxVectors + 1][kMaxRowForm + 1];
  TileFunction by_columns[kMaxVectors + 1][kMaxColumnForm + 1];
  TileFunction grid_5x5;  // 5 row pointers x 5 neighbours, one vector; NULL where registers lack

  // out[k][width_out] = B[k][j0 .. j0+columns) for k in [0, depth), zero-padded to width_out.
  void (*pack_rows)(const float* b, int64_t ldb, int depth, int columns, int width_out, float* out);
  // out[k][0 .. columns), without padding; columns are few
  void (*pack_rows_tight)(const float* b, int64_t ldb, int depth, int columns, float* out);
  // as pack_rows, from B stored transposed: b[j * ldb + k]
  void (*pack_transposed)(const float* b, int64_t ldb, int depth, int columns, int width_out,
                          float* out);

  void (*relu)(const float* x, float* out, int64_t n);
  void (*relu_grad)(const float* dy, const float* y, float* out, int64_t n);
  void (*add)(const float* x, const float* y, float* out, int64_t n);
  void (*scale)(const float* x, float* out, int64_t n, float alpha, float beta);
  void (*round_bf16)(const float* x, float* out, int64_t n);  // bf16.h, as floats
  void (*u8_to_f32)(const uint8_t* x, float* out, int64_t n, float scale, float shift);
  bool (*finite)(const float* x, int64_t n);
  void (*divide)(float* x, int64_t n, float by);
  // out[j] = sum of rows, one chain from +0
  void (*column_sum)(const float* x, int64_t rows, int32_t columns, float* out);

  void (*sgd)(const OptimizerRange& o, float rate, float decay);
  void (*momentum)(const OptimizerRange& o, float rate, float decay, float mu, bool nesterov);
  void (*adam)(const OptimizerRange& o, const tesra_adam_coefficients_t& k, bool decays);
  void (*delay_compensate)(float* g, const float* now, const float* base, int64_t n, float lambda);
  void (*add_double)(double* sum, const float* x, int64_t n);
  void (*divide_double)(const double* sum, double by, float* out, int64_t n);
  // Streamed outputs of this thread are seen by the others.
  void (*stream_fence)();

  // losses[row] for rows of one range; dlogits may be NULL
  void (*softmax_rows)(const float* logits, const int32_t* labels, float* dlogits, float* losses,
                       int32_t rows, int32_t classes, float inverse_rows);
  float (*flat_sum)(const float* x, int64_t n);  // one chunk of TESRA_FLAT_CHUNK at most

  // one output pixel row: ow pixels of c channels from `x` (window's first pixel)
  void (*maxpool_row)(const tesra_pool& p, const float* x, int32_t base_index, float* y,
                      int32_t* index);
  void (*avgpool_row)(const tesra_pool& p, const float* x, float* y);

  // BLAKE3, `lanes` at a time: full 1024-byte chunks, and 64-byte single blocks (parents, tickets)
  int hash_lanes;
  void (*hash_chunks)(const uint8_t* data, int count, uint64_t counter, const uint32_t key[8],
                      uint32_t flags, uint8_t* out);
  void (*hash_blocks)(const uint8_t* data, int count, const uint32_t key[8], uint32_t flags,
                      uint8_t* out);

  const CompressionKernels* compression;

  // Rows of a challenge matrix (pow.h), at most hash_lanes of them, at out + i * stride;
  // stride >= k + kRowSlack, the slack is overwritten.
  void (*challenge_rows)(const uint32_t seed[8], uint32_t matrix, const uint32_t* rows, int count,
                         int32_t k, int8_t* out, int64_t stride);

  Int8Kernels int8;
  SliceKernels slices;
};

const Kernels* scalar_kernels();
const Kernels* avx2_kernels();           // NULL where the compiler has no such target
const Kernels* avx512_kernels(bool vnni);  // NULL likewise
const Kernels* amx_kernels();              // AVX-512 with VNNI, and AMX for int8; NULL likewise

}  // namespace tesra
