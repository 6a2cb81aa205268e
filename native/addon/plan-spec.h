// Owns: turning a JavaScript PlanSpec into validated operations on one arena.
// Invariant: what comes out obeys every rule of native/kernels: shapes fit, ranges lie inside the
// arena, outputs overlap no input except where the operation is in place by definition.
#pragma once
#include <napi.h>

#include <string>
#include <vector>

#include "../kernels/backend.h"

namespace tesra {

enum class Dtype { f32, i32, u8 };

struct Tensor {
  std::string name;
  Dtype dtype = Dtype::f32;
  std::vector<int64_t> shape;
  uint64_t offset = 0;
  uint64_t elements = 0;
  uint64_t bytes = 0;
};

struct ParsedPlan {
  std::vector<Tensor> tensors;
  std::vector<tesra_op> ops;
  uint64_t arena_bytes = 0;
  double multiply_adds = 0;
  std::vector<double> op_multiply_adds;  // of each operation
};

// Throws a typed JavaScript error and returns false when anything is wrong. Pointers inside the
// operations are made from `base`, which the callback allocates once the size is known.
using AllocateArena = bool (*)(void* context, uint64_t bytes, uint8_t** base);
bool parse_plan(Napi::Env env, Napi::Value spec, AllocateArena allocate, void* context,
                ParsedPlan* out);

}  // namespace tesra
