// Owns: what a thread does between two looks at a value that another thread will change soon.
#pragma once
#if !defined(__x86_64__) && !defined(_M_X64)
#include <thread>
#endif

namespace tesra {

inline void relax() {
#if defined(__x86_64__) || defined(_M_X64)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

}  // namespace tesra
