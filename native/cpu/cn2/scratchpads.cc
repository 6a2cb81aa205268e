// Owns: the scratchpads' memory: the system's reserved 2 MiB pages, else its transparent ones.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

#include "device.h"

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace tesra {
namespace {

constexpr size_t kPage = size_t{2} << 20;

#ifdef __linux__
// Whether all of [begin, begin + size) lies on transparent huge pages, by the kernel's own account.
bool on_huge_pages(const uint8_t* begin, size_t size) {
  std::FILE* file = std::fopen("/proc/self/smaps", "re");
  if (!file) return false;
  const uintptr_t low = reinterpret_cast<uintptr_t>(begin), high = low + size;
  char line[512];
  bool inside = false;
  size_t huge = 0;
  while (std::fgets(line, sizeof line, file)) {
    unsigned long from = 0, to = 0, kilobytes = 0;
    if (std::sscanf(line, "%lx-%lx ", &from, &to) == 2) inside = from < high && low < to;
    else if (inside && std::sscanf(line, "AnonHugePages: %lu kB", &kilobytes) == 1)
      huge += size_t{kilobytes} << 10;
  }
  std::fclose(file);
  return huge >= size;
}
#endif

}  // namespace

void Scratchpads::reserve(int count) {
  if (count <= count_) return;
  release();
  const size_t size = static_cast<size_t>(count) * TESRA_CN2_SCRATCHPAD;
#ifdef __linux__
  constexpr int kProtection = PROT_READ | PROT_WRITE, kKind = MAP_PRIVATE | MAP_ANONYMOUS;
  void* p = mmap(nullptr, size, kProtection, kKind | MAP_HUGETLB | MAP_POPULATE, -1, 0);
  if (p != MAP_FAILED) {
    mapping_ = p;
    mapped_ = size;
    first_ = static_cast<uint8_t*>(p);
    pages_ = TESRA_PAGES_RESERVED;
  } else {
    p = mmap(nullptr, size + kPage, kProtection, kKind, -1, 0);
    if (p == MAP_FAILED) throw std::bad_alloc();
    mapping_ = p;
    mapped_ = size + kPage;
    first_ = reinterpret_cast<uint8_t*>((reinterpret_cast<uintptr_t>(p) + kPage - 1) &
                                        ~(uintptr_t{kPage} - 1));
    madvise(first_, size, MADV_HUGEPAGE);
    std::memset(first_, 0, size);
    pages_ = on_huge_pages(first_, size) ? TESRA_PAGES_TRANSPARENT : TESRA_PAGES_SMALL;
  }
#else
  if (posix_memalign(&mapping_, kPage, size) != 0) {
    mapping_ = nullptr;
    throw std::bad_alloc();
  }
  first_ = static_cast<uint8_t*>(mapping_);
#endif
  count_ = count;
}

void Scratchpads::release() {
#ifdef __linux__
  if (mapping_) munmap(mapping_, mapped_);
#else
  std::free(mapping_);
#endif
  mapping_ = nullptr;
  first_ = nullptr;
  count_ = 0;
}

}  // namespace tesra
