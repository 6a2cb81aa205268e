// Owns: BLAKE3 (github.com/BLAKE3-team/BLAKE3-specs), 32-byte output, default and keyed mode.
// Host pointers: a back end that hashes on a device moves the bytes itself, or hashes on the host.
#pragma once
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TESRA_BLAKE3_CHUNK 1024
#define TESRA_BLAKE3_IV                                                                        \
  {0x6A09E667u, 0xBB67AE85u, 0x3C6EF372u, 0xA54FF53Au, 0x510E527Fu, 0x9B05688Cu, 0x1F83D9ABu, \
   0x5BE0CD19u}
#define TESRA_BLAKE3_CHUNK_START 1u
#define TESRA_BLAKE3_CHUNK_END 2u
#define TESRA_BLAKE3_PARENT 4u
#define TESRA_BLAKE3_ROOT 8u
#define TESRA_BLAKE3_KEYED 16u

typedef struct tesra_blake3 {
  const uint8_t* data;  // may be NULL when size = 0
  size_t size;
  const uint8_t* key;  // 32 bytes, or NULL
  uint8_t* out;        // 32 bytes
} tesra_blake3;

#ifdef __cplusplus
}
#endif
