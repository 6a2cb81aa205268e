// Owns: gradient compression: top-k (Aji and Heafield 2017), int8 with a scale a block, signs with a mean
// magnitude a block (Seide et al. 2014), and half precision, each with error feedback: what a message leaves out stays
// in the residual and goes into the next one. Every line is one rounding; all back ends give the same
// bytes.
//
// t = residual ? tesra_fed(x + residual) : x. A message is 16 bytes of header, then its parts, all little-endian:
//   u32 TESRA_PACKED_MAGIC + kind, u32 parameter (entries of top-k, else elements a block), u64 n
//   TOPK  u32 index[k] strictly ascending, f32 value[k]
//   INT8  f32 scale[blocks], i8 q[n]              element = fl(q * scale)
//   SIGN  f32 magnitude[blocks], u8 bits[ceil(n / 8)], element i in bit i % 8; 1: -magnitude
//   FP16  binary16 value[n]; parameter 0
//
// TOPK: the k = min(entries, n) largest by (bits of |t| as an unsigned number, then lower index): NaN
//   outranks infinity, and both are sent, so that a receiver sees the fault at once and the residual is
//   rid of it. Sent entries leave +0 in the residual, the others t: nothing is ever lost.
// INT8: a = max |t| of the block. a not finite: scale NaN, q = 0, residual +0: the block decodes to NaN.
//   a < TESRA_INT8_TINY: scale +0, q = 0. Else scale = a / 127, r = t * (127 / a), and q = r rounded to
//   the nearest (even), or with `stochastic` min(127, floor(r + u)), u = 2^-24 (word >> 8) of word i % 4
//   of tesra_philox({i / 4, stream, 0, 0}, key). residual = t - fl(q * scale), exact when not stochastic.
// SIGN: sum = |t| of the block in TESRA_LANES lanes, folded as in exact-math.h; magnitude = sum / elements.
//   sum not finite: magnitude NaN, residual +0. Else residual = t - (+-magnitude), the sign bit's sign.
// FP16: t rounded to the nearest binary16 (even); beyond +-65504 to +-65504, so that a large gradient is not
//   taken for a broken one; infinity stays, NaN becomes +-0x7e00. residual = t - element, +0 where not finite.
#pragma once
#include "error.h"
#include "random.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TESRA_PACKED_MAGIC 0x47535400u  // "\0TSG", the kind in the lowest byte
#define TESRA_PACKED_HEADER 16
#define TESRA_COMPRESS_MAX 0x7fffffff   // elements
#define TESRA_COMPRESS_BLOCK_MAX 65536  // elements a block: a multiple of 64 up to this
// Below it 127 / a would overflow: 2^-120.
#define TESRA_INT8_TINY 7.52316385e-37f

// A sum of NaN has no payload: what that is differs between processors, and a message must not.
TESRA_HD float tesra_fed(float sum) { return sum == sum ? sum : tesra_bits_float(0x7fc00000u); }

enum tesra_compression { TESRA_TOPK = 1, TESRA_INT8 = 2, TESRA_SIGN = 3, TESRA_FP16 = 4 };

typedef struct tesra_compress {
  int32_t kind;
  uint32_t parameter;  // TOPK: entries, 0 <= k <= n; INT8, SIGN: elements a block
  const float* x;
  float* residual;  // n, in and out; or NULL. Apart from x.
  int64_t n;        // 0 <= n <= TESRA_COMPRESS_MAX
  uint8_t stochastic;
  uint32_t key_low, key_high, stream;
  uint8_t* out;  // tesra_packed_size bytes, 4-byte aligned
} tesra_compress;  // as an operation: pointers of the device

// out[i] = add ? fma(scale, d, out[i]) : scale * d, d the decoded element (top-k: entries only when
// adding). The message was checked by tesra_check_packed; or, as an operation, is of `kind` and
// `parameter` whatever its header says, and entries beyond n are passed over.
typedef struct tesra_decompress {
  const uint8_t* packed;
  size_t size;
  float* out;
  int64_t n;
  float scale;
  uint8_t add;
  int32_t kind;        // operations alone
  uint32_t parameter;
} tesra_decompress;

static inline uint64_t tesra_packed_size(int32_t kind, uint32_t parameter, int64_t n) {
  const uint64_t elements = (uint64_t)n;
  if (kind == TESRA_TOPK) return TESRA_PACKED_HEADER + 8 * (uint64_t)parameter;
  if (kind == TESRA_FP16) return TESRA_PACKED_HEADER + 2 * elements;
  const uint64_t blocks = (elements + parameter - 1) / parameter;
  return TESRA_PACKED_HEADER + 4 * blocks + (kind == TESRA_INT8 ? elements : (elements + 7) / 8);
}

// Whether `size` bytes of any origin are a message of n elements: header, length, and for top-k
// indices that ascend below n. TESRA_E_ARGUMENT or TESRA_E_SHAPE, and why, if not.
int tesra_check_packed(const uint8_t* packed, size_t size, int64_t n, tesra_error* error);

#ifdef __cplusplus
}
#endif
