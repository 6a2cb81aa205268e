// Owns: rows of a table by index, and the sum of gradients back into the table.
#pragma once
#include "exact-math.h"

#ifdef __cplusplus
extern "C" {
#endif

// out[r] = table[ids[r]], rows of `columns` floats; an id outside [0, vocabulary) gives a row of NaN.
typedef struct tesra_embedding {
  const float* table;  // vocabulary x columns
  const int32_t* ids;
  float* out;  // rows x columns
  int64_t rows;
  int32_t vocabulary, columns;
} tesra_embedding;

// s = accumulate ? dtable[v] : +0;  s = s + dy[r] for each ascending r with ids[r] = v;
// dtable[v] = s, for every v. Ids outside the vocabulary are skipped.
typedef struct tesra_embedding_grad {
  const float* dy;  // rows x columns
  const int32_t* ids;
  float* dtable;  // vocabulary x columns
  int64_t rows;
  int32_t vocabulary, columns;
  uint8_t accumulate;
} tesra_embedding_grad;

#ifdef __cplusplus
}
#endif
