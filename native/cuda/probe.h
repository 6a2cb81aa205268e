// Owns what the CUDA back end says about GPUs: whether any can be used, why not, and which one a
// name selects.
#pragma once
#include <cuda_runtime.h>

#include "../kernels/backend.h"

namespace tesra::cuda {

// The kernels use cp.async and mma of 8-bit integers as of compute capability 8.0.
constexpr int kSmMin = 80;

// Sets *error: "doing: the driver's words (name, number)"; returns the code.
int fail(tesra_error* error, cudaError_t status, const char* doing);
int failWith(tesra_error* error, int code, const char* format, ...)
    __attribute__((format(printf, 3, 4)));

void probe(tesra_probe* out);
// Index of the GPU that `gpu` names (NULL or "": the first usable), or -1 with *error set.
int selectGpu(const char* gpu, tesra_error* error);

}  // namespace tesra::cuda
