// Owns: the JavaScript class NativeSharedSegment: memory that two processes of one host both map, without a name.
// Invariants: a segment cannot shrink once it exists (sealed), so no peer can turn a read of it into SIGBUS; at most
// one ArrayBuffer lies over it at a time; its pages stay mapped while the object or that ArrayBuffer lives.
#pragma once
#include <napi.h>

namespace tesra {

// Adds NativeSharedSegment to the exports where the system can do it (Linux).
void export_shared_memory(Napi::Env env, Napi::Object exports);

}  // namespace tesra
