// Owns: what a build without CUDA says when it is asked for a GPU.
#include <cstdio>
#include <cstring>

#include "../kernels/profile.h"

namespace {

const char kReason[] =
    "this build of the native addon has no CUDA kernels; install the CUDA toolkit (nvcc) and build "
    "again";

void probe(tesra_probe* out) {
  std::memset(out, 0, sizeof *out);
  std::snprintf(out->reason, sizeof out->reason, "%s", kReason);
}

int open(const tesra_open*, tesra_device**, tesra_error* error) {
  error->code = TESRA_E_UNAVAILABLE;
  std::snprintf(error->message, sizeof error->message, "%s", kReason);
  return TESRA_E_UNAVAILABLE;
}

const tesra_backend kStub = {
    TESRA_ABI, "cuda",  0,       probe,   open,    nullptr, nullptr, nullptr, nullptr, nullptr,
    nullptr,   nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr,
};

}  // namespace

extern "C" const tesra_backend* tesra_cuda_backend(void) { return &kStub; }

// Never reached: without a device there is no plan.
extern "C" int tesra_cuda_plan_profile(tesra_device*, tesra_plan*, tesra_span*,
                                       tesra_error* error) {
  return open(nullptr, nullptr, error);
}
