// Owns the probe: lists GPUs, and puts a missing driver or device into one sentence.
// Invariant: never throws and never fails; without a GPU the rest of the addon works on the CPU.
#include "probe.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace tesra::cuda {
namespace {

void formatId(const cudaDeviceProp& properties, char (&out)[64]) {
  const auto* b = reinterpret_cast<const unsigned char*>(properties.uuid.bytes);
  // A slice's UUID is its own; only the name says that it is a slice.
  const char* kind = std::strstr(properties.name, "MIG ") ? "MIG" : "GPU";
  std::snprintf(out, sizeof out,
                "%s-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", kind,
                b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12],
                b[13], b[14], b[15]);
}

void explain(cudaError_t status, char (&reason)[256]) {
  const char* why = "the CUDA driver failed";
  if (status == cudaErrorInsufficientDriver)  // 35: also what a machine without any driver answers
    why = "no NVIDIA driver, or one too old for this build";
  else if (status == cudaErrorNoDevice)  // 100
    why = "the driver sees no GPU (or CUDA_VISIBLE_DEVICES hides it)";
  std::snprintf(reason, sizeof reason, "no GPU: %s: %s (%s, %d)", why, cudaGetErrorString(status),
                cudaGetErrorName(status), static_cast<int>(status));
}

}  // namespace

int failWith(tesra_error* error, int code, const char* format, ...) {
  error->code = code;
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(error->message, sizeof error->message, format, arguments);
  va_end(arguments);
  return code;
}

int fail(tesra_error* error, cudaError_t status, const char* doing) {
  const int code = status == cudaErrorMemoryAllocation ? TESRA_E_MEMORY : TESRA_E_DEVICE;
  (void)cudaGetLastError();  // a launch error stays pending until read
  return failWith(error, code, "CUDA %s: %s (%s, %d)", doing, cudaGetErrorString(status),
                  cudaGetErrorName(status), static_cast<int>(status));
}

void probe(tesra_probe* out) {
  std::memset(out, 0, sizeof *out);
  out->compiled = 1;
  cudaRuntimeGetVersion(&out->runtime_version);
  cudaDriverGetVersion(&out->driver_version);
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess) {
    (void)cudaGetLastError();
    explain(status, out->reason);
    return;
  }
  int smBest = 0;
  for (int i = 0; i < count && out->count < TESRA_DEVICES_MAX; i++) {
    cudaDeviceProp properties;
    if (cudaGetDeviceProperties(&properties, i) != cudaSuccess) {
      (void)cudaGetLastError();
      continue;
    }
    tesra_gpu& gpu = out->devices[out->count++];
    formatId(properties, gpu.id);
    std::snprintf(gpu.name, sizeof gpu.name, "%.127s", properties.name);
    gpu.index = i;
    gpu.sm = properties.major * 10 + properties.minor;
    gpu.memory_bytes = properties.totalGlobalMem;
    if (gpu.sm > smBest) smBest = gpu.sm;
  }
  out->available = smBest >= kSmMin;
  if (out->available) return;
  if (out->count == 0)
    std::snprintf(out->reason, sizeof out->reason,
                  "no GPU: the driver counts %d and describes none", count);
  else
    std::snprintf(
        out->reason, sizeof out->reason,
        "no usable GPU: compute capability %d.%d or newer is needed, the best here (%s) has %d.%d",
        kSmMin / 10, kSmMin % 10, out->devices[0].name, smBest / 10, smBest % 10);
}

int selectGpu(const char* gpu, tesra_error* error) {
  tesra_probe seen;
  probe(&seen);
  if (!seen.available) {
    failWith(error, TESRA_E_UNAVAILABLE, "%s", seen.reason);
    return -1;
  }
  const bool any = gpu == nullptr || *gpu == '\0';
  char* end = nullptr;
  const long index = any ? -1 : std::strtol(gpu, &end, 10);
  const bool isIndex = !any && *end == '\0';
  for (int i = 0; i < seen.count; i++) {
    const tesra_gpu& device = seen.devices[i];
    const bool named = any       ? device.sm >= kSmMin
                       : isIndex ? device.index == index
                                 : std::strcmp(device.id, gpu) == 0;
    if (!named) continue;
    if (device.sm < kSmMin) {
      failWith(error, TESRA_E_UNAVAILABLE,
               "GPU %s (%s) has compute capability %d.%d; %d.%d or newer is needed", gpu,
               device.name, device.sm / 10, device.sm % 10, kSmMin / 10, kSmMin % 10);
      return -1;
    }
    return device.index;
  }
  failWith(error, TESRA_E_UNAVAILABLE, "no GPU \"%s\": %d visible, the first is %s (%s)", gpu,
           seen.count, seen.devices[0].id, seen.devices[0].name);
  return -1;
}

}  // namespace tesra::cuda
