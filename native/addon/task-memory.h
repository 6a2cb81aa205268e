// Owns: the memory that a worker shares with the child process that runs a task: one file without a name, which the
// worker sizes and seals and the child inherits open.
// Invariant: a mapping never reaches beyond the sealed size, so neither side can make the other's reads fault.
#pragma once
#include <napi.h>

#include <cstddef>
#include <cstdint>
#include <string>

namespace tesra {

// Adds NativeTaskMemory and mapTaskMemory to the exports where the system has them (Linux).
void export_task_memory(Napi::Env env, Napi::Object exports);

// Where a plan's arena begins in shared memory: its first `bytes` lie at `offset` of the file.
struct ArenaHead {
  int fd = -1;
  uint64_t offset = 0;
  uint64_t bytes = 0;
};

// { fd, offsetBytes, sizeBytes }; throws and returns false.
bool read_arena_head(Napi::Env env, Napi::Value value, ArenaHead* out);

// `bytes` of zeros on huge pages, the first of them in the shared file. NULL and `error` when there is none.
void* map_arena(const ArenaHead& head, uint64_t bytes, size_t* mapped, std::string* error);
void unmap_arena(void* arena, size_t mapped);

}  // namespace tesra
