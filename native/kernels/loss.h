// Owns: fused softmax cross-entropy (loss and gradient) and the count of right answers.
#pragma once
#include "exact-math.h"

#ifdef __cplusplus
extern "C" {
#endif

// logits rows x classes. Per row: mx = maximum (fold: best = x > best ? x : best, from x[0]);
//   e_c = tesra_exp(x_c - mx); s = lane sum of e_c (TESRA_LANES); l = (mx - x_label) + tesra_log(s)
//   dlogits_c = ((e_c / s) - (c == label ? 1 : 0)) * (1.0f / (float)rows)
// loss[0] = flat sum of l (TESRA_LANES, TESRA_FLAT_CHUNK) / (float)rows; rows = 0 gives loss 0.
// A label outside [0, classes) makes its row's loss NaN and its dlogits +0.
// dlogits may be NULL (evaluation), or logits itself. scratch: rows floats for l, from the back end.
typedef struct tesra_softmax_xent {
  const float* logits;
  const int32_t* labels;
  float* loss;
  float* dlogits;
  int32_t rows, classes;
} tesra_softmax_xent;

// count[0] = number of rows whose first maximum (as above, lowest index) is at labels[row].
typedef struct tesra_count_correct {
  const float* logits;
  const int32_t* labels;
  float* count;
  int32_t rows, classes;
} tesra_count_correct;

#ifdef __cplusplus
}
#endif
