// Owns: the timing of a plan operation by operation, beside the table of backend.h, so that a plan_run
// that nobody measures carries no branch for it.
// Invariant: a profiled run computes the same bits as plan_run.
#pragma once
#include "backend.h"

#ifdef __cplusplus
extern "C" {
#endif

// Nanoseconds since the run began.
typedef struct tesra_span {
  uint64_t start_ns, end_ns;
} tesra_span;

// As plan_run; spans has room for one entry an operation, in their order.
// CPU: by the steady clock. CUDA: operation by operation on the stream, between two events each, and
// not as the captured graph, which cannot tell its nodes apart.
int tesra_cpu_plan_profile(tesra_device* device, tesra_plan* plan, tesra_span* spans,
                           tesra_error* error);
int tesra_cuda_plan_profile(tesra_device* device, tesra_plan* plan, tesra_span* spans,
                            tesra_error* error);

#ifdef __cplusplus
}
#endif
