// Owns: what a process gives up for good before it reads a stranger's job: memory beyond a limit, files, sockets,
// programs, signals to others, new machine code.
// Invariant: each step only takes rights away; nothing here can be undone by the process itself.
#pragma once
#include <napi.h>

namespace tesra {

// Adds `sandbox`, { support, confine, limitData }, to the exports (Linux).
void export_sandbox(Napi::Env env, Napi::Object exports);

}  // namespace tesra
