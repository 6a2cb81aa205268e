// Owns: CN2's entries of the CPU back end and the scratchpads that a device keeps for them.
#pragma once
#include "cn2.h"
#include "../cpu.h"

namespace tesra {

// 2 MiB each and so aligned, on 2 MiB pages where the system gives them: half of the walk's loads
// would miss the TLB otherwise. Kept until the device closes.
class Scratchpads {
 public:
  Scratchpads() = default;
  ~Scratchpads() { release(); }
  Scratchpads(const Scratchpads&) = delete;
  Scratchpads& operator=(const Scratchpads&) = delete;

  // At least `count` of them, contents undefined; std::bad_alloc without memory.
  void reserve(int count);
  uint8_t* at(int i) { return first_ + static_cast<size_t>(i) * TESRA_CN2_SCRATCHPAD; }
  int32_t pages() const { return pages_; }

 private:
  void release();

  uint8_t* first_ = nullptr;
  void* mapping_ = nullptr;
  size_t mapped_ = 0;
  int count_ = 0;
  int32_t pages_ = TESRA_PAGES_SMALL;
};

void cn2_hash(const Context& cx, Scratchpads& pads, const tesra_cn2& args);
void cn2_scan(const Context& cx, Scratchpads& pads, tesra_cn2_scan& args);

}  // namespace tesra
