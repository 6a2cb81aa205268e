// Owns the emulated forms of ../hopper.h: tensor copies with the 128-byte swizzle, transaction
// barriers, warpgroup products. Written from the PTX ISA, independently of the kernels. A copy
// lands some time between its start and the end of the phase that waits for it; a product is
// computed no sooner than its wait, from what lies there then.
#pragma once
#include <type_traits>
#include <vector>

#define TESRA_HOPPER_CODE 1
#define TESRA_GRID_CONSTANT

namespace emulator {
void yield();  // lets other threads run
bool coin();
}  // namespace emulator

namespace tesra::cuda {

struct TensorMap {
  const unsigned char* base;
  int rank;
  uint64_t sizes[5], strides[5];
  uint32_t box[5];
};
inline cudaError_t makeTensorMap(TensorMap* map, const void* base, int rank, const uint64_t* sizes,
                                 const uint64_t* strides, const uint32_t* box) {
  *map = {static_cast<const unsigned char*>(base), rank, {}, {1}, {}};
  if (reinterpret_cast<uintptr_t>(base) % 16 || box[0] != 128) return cudaErrorInvalidValue;
  for (int i = 0; i < rank; i++) {
    map->sizes[i] = sizes[i], map->box[i] = box[i];
    if (i > 0) map->strides[i] = strides[i - 1];
    if (i > 0 && strides[i - 1] % 16) return cudaErrorInvalidValue;
  }
  return cudaSuccess;
}

struct Barrier {
  int16_t expected, pending;
  int32_t bytes : 31;
  uint32_t phase : 1;
};
static_assert(sizeof(Barrier) == 8, "as the hardware's");

struct TensorCopy {
  unsigned char* to;
  TensorMap map;  // a copy: here a kernel's parameters end with its thread, before the copy may land
  Barrier* barrier;
  int at[5];
};
inline std::vector<TensorCopy> tensorCopies;

inline void barrierSettle(Barrier* barrier) {
  if (barrier->pending > 0 || barrier->bytes != 0) return;
  barrier->phase ^= 1;
  barrier->pending = barrier->expected;
}
inline void barrierInit(Barrier* barrier, int arrivals) {
  *barrier = {static_cast<int16_t>(arrivals), static_cast<int16_t>(arrivals), 0, 0};
}
inline void barrierInitFence() {}
inline void barrierArrive(Barrier* barrier) {
  if (barrier->pending-- == 0) emulator::die("more arrivals than a barrier expects");
  barrierSettle(barrier);
}
inline void barrierExpect(Barrier* barrier, int bytes) {
  barrier->bytes += bytes;
  barrierArrive(barrier);
}

// Rows of 128 bytes in the order of the box; in each group of eight, row r holds its 16-byte piece
// p at p ^ r.
inline void land(const TensorCopy& copy) {
  const TensorMap& map = copy.map;
  if (reinterpret_cast<uintptr_t>(copy.to) % 1024)
    emulator::die("a swizzled tile must start at a multiple of 1024");
  int rows = 1;
  for (int i = 1; i < map.rank; i++) rows *= static_cast<int>(map.box[i]);
  for (int row = 0; row < rows; row++)
    for (int byte = 0; byte < 128; byte++) {
      int64_t offset = copy.at[0] + byte;
      bool inside = static_cast<uint64_t>(offset) < map.sizes[0];
      for (int i = 1, left = row; i < map.rank; left /= static_cast<int>(map.box[i]), i++) {
        const int64_t x = copy.at[i] + left % static_cast<int>(map.box[i]);
        inside = inside && x >= 0 && static_cast<uint64_t>(x) < map.sizes[i];
        offset += x * static_cast<int64_t>(map.strides[i]);
      }
      copy.to[row * 128 + ((byte / 16) ^ (row % 8)) * 16 + byte % 16] =
          inside ? map.base[offset] : 0;
    }
  copy.barrier->bytes -= rows * 128;
  barrierSettle(copy.barrier);
}
// The phase of this parity has ended when the running one has the other.
inline void barrierWait(Barrier* barrier, int parity) {
  while (barrier->phase == static_cast<uint32_t>(parity)) {
    for (size_t i = 0; i < tensorCopies.size(); i++)
      if (emulator::coin()) {
        const TensorCopy copy = tensorCopies[i];
        tensorCopies.erase(tensorCopies.begin() + static_cast<std::ptrdiff_t>(i));
        land(copy);
        break;
      }
    emulator::yield();
  }
}
inline void copyTensor(const TensorCopy& copy, int rows) {
  memset(copy.to, 0xcd, static_cast<size_t>(rows) * 128);  // undefined until it lands
  tensorCopies.push_back(copy);
}
inline void copyTensor2(void* to, const TensorMap& map, Barrier* barrier, int x0, int x1) {
  copyTensor({static_cast<unsigned char*>(to), map, barrier, {x0, x1}},
             static_cast<int>(map.box[1]));
}
inline void copyTensor4(void* to, const TensorMap& map, Barrier* barrier, int x0, int x1, int x2,
                        int x3) {
  copyTensor({static_cast<unsigned char*>(to), map, barrier, {x0, x1, x2, x3}},
             static_cast<int>(map.box[1] * map.box[2] * map.box[3]));
}
inline unsigned char* alignShared1024(unsigned char* raw) {
  return raw + (1024 - reinterpret_cast<uintptr_t>(raw) % 1024) % 1024;
}

template <int kCount>
inline void claimRegisters() {}
template <int kCount>
inline void releaseRegisters() {}

// Stands for the hardware's descriptor: the address in units of 16 bytes, the form fixed.
inline uint64_t sharedDescriptor(const void* tile) {
  return reinterpret_cast<uintptr_t>(tile) / 16;
}
struct Product {
  void* d;
  int columns;
  bool floats;
  uint64_t a, b;
};
// A thread's groups of products, of which the last is open.
inline std::vector<std::vector<Product>>& products() {
  static std::vector<std::vector<Product>> ofThread[1024];
  auto& own = ofThread[threadIdx.x];
  if (own.empty()) own.emplace_back();
  return own;
}
inline void wgmmaFence() {}
inline void wgmmaCommit() {
  products().emplace_back();
}
template <class Sum, int kCount>
inline void holdSums(Sum (&)[kCount]) {}
template <class Sum, int kCount>
inline void wgmma(Sum (&d)[kCount], uint64_t a, uint64_t b) {
  products().back().push_back({d, 2 * kCount, std::is_same<Sum, float>::value, a, b});
}
// 32 bytes of row `row` of the tile whose descriptor points at its byte k0: the swizzle counts from
// the address.
struct Run {
  int8_t byte[32];
};
inline Run swizzled(uint64_t descriptor, int row) {
  Run run;
  for (int k = 0; k < 32; k += 16) {
    const uintptr_t address = descriptor * 16 + static_cast<uintptr_t>(row) * 128 + k;
    memcpy(run.byte + k, reinterpret_cast<const void*>(address ^ ((address >> 7 & 7) << 4)), 16);
  }
  return run;
}
inline void addProduct(int32_t& d, const Run& a, const Run& b) {
  for (int k = 0; k < 32; k++) d += a.byte[k] * b.byte[k];
}
inline void addProduct(float& d, const Run& a, const Run& b) {
  d = dotBf16(d, a.byte, b.byte, 16);
}
template <class Sum>
inline void compute(const Product& p) {
  const int thread = threadIdx.x % 128, warp = thread / 32, lane = thread % 32;
  const Run rows[2] = {swizzled(p.a, 16 * warp + lane / 4), swizzled(p.a, 16 * warp + lane / 4 + 8)};
  for (int i = 0; i < p.columns / 2; i++)
    addProduct(static_cast<Sum*>(p.d)[i], rows[i / 2 % 2],
               swizzled(p.b, 8 * (i / 4) + 2 * (lane % 4) + i % 2));
}
template <int kPending>
inline void wgmmaWait() {
  auto& own = products();
  while (own.size() > kPending + 1) {
    for (const Product& p : own.front()) p.floats ? compute<float>(p) : compute<int32_t>(p);
    own.erase(own.begin());
  }
}

}  // namespace tesra::cuda
