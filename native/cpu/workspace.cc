#include <cstdlib>
#include <new>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include "cpu.h"

namespace tesra {

void* allocate_aligned(size_t bytes) {
  constexpr size_t kHuge = size_t{2} << 20;
  const size_t alignment = bytes >= kHuge / 2 ? kHuge : 64;
  const size_t rounded = (larger<size_t>(bytes, 64) + alignment - 1) / alignment * alignment;
  void* p = nullptr;
  if (posix_memalign(&p, alignment, rounded) != 0) return nullptr;
#ifdef __linux__
  if (alignment == kHuge) madvise(p, rounded, MADV_HUGEPAGE);  // a wish: refusal changes nothing
#endif
  return p;
}

Workspace::~Workspace() { std::free(memory_); }

void* Workspace::take(size_t bytes) {
  if (bytes > bytes_ || !memory_) {
    std::free(memory_);
    bytes_ = 0;
    memory_ = allocate_aligned(bytes);
    if (!memory_) throw std::bad_alloc();
    bytes_ = bytes;
  }
  return memory_;
}

}  // namespace tesra
