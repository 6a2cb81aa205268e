// Owns: max and average pooling over NHWC images, square kernel, no padding.
#pragma once
#include "exact-math.h"

#ifdef __cplusplus
extern "C" {
#endif

// oh = (h - kernel) / stride + 1 (floor), ow likewise.
// max forward: window scanned row by row; a value replaces the best when value > best or value is
//   NaN; index = flat element offset of the winner in x (n*h*w*c < 2^31).
// max gradient: dx starts at +0 and receives dy[o] for ascending output offset o with index[o] there.
//   An index outside dx (hostile data) is skipped.
// avg forward: y = (sum from +0, window row by row) / (float)(kernel*kernel).
// avg gradient: dx starts at +0 and receives dy[o] / (float)(kernel*kernel) for ascending o.
typedef struct tesra_pool {
  const float* x;        // forward
  const float* dy;       // gradient
  const int32_t* index;  // max gradient
  float* out;            // y or dx
  int32_t* index_out;    // max forward
  int32_t n, h, w, c, oh, ow, kernel, stride;
} tesra_pool;

#ifdef __cplusplus
}
#endif
