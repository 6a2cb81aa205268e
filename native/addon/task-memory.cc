#include "task-memory.h"

#include "arguments.h"

#if defined(__linux__)

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <system_error>

namespace tesra {
namespace {

// The largest page of the systems that this runs on (arm64 kernels have 4, 16 or 64 KiB).
constexpr uint64_t kPage = 65536;
constexpr uint64_t kHugePage = 2u << 20;
// Two plans' parameters, gradients and one batch: the largest job that the arena's own limit lets through.
constexpr double kSizeMost = 64.0 * 1024 * 1024 * 1024;
constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

uint64_t rounded(uint64_t bytes, uint64_t to) { return (bytes + to - 1) / to * to; }

std::string system_text(const char* what) {
  return std::string(what) + ": " + std::generic_category().message(errno);
}

struct Mapping {
  void* base;
  size_t size;
  Mapping(void* at, size_t bytes) : base(at), size(bytes) {}
  ~Mapping() { munmap(base, size); }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
};

// One ArrayBuffer over the whole file; the pages stay mapped until it is collected or detached.
Napi::Value map_buffer(Napi::Env env, int fd, size_t size) {
  void* at = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (at == MAP_FAILED) return throw_error(env, "memory", system_text("mmap")), env.Undefined();
  auto* keep = new Mapping(at, size);
  napi_value buffer = nullptr;
  const auto end = [](napi_env, void*, void* hint) { delete static_cast<Mapping*>(hint); };
  if (napi_create_external_arraybuffer(env, at, size, end, keep, &buffer) != napi_ok) {
    delete keep;
    throw_error(env, "unsupported", "this JavaScript engine takes no external memory");
    return env.Undefined();
  }
  return Napi::Value(env, buffer);
}

bool read_size(Napi::Env env, Napi::Value value, double* size) {
  if (!read_integer(env, value, "sizeBytes", static_cast<double>(kPage), kSizeMost, size)) return false;
  if (static_cast<uint64_t>(*size) % kPage != 0)
    return throw_error(env, "argument", "sizeBytes must be a multiple of 65536"), false;
  return true;
}

class TaskMemoryObject : public Napi::ObjectWrap<TaskMemoryObject> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "NativeTaskMemory",
                       {InstanceAccessor<&TaskMemoryObject::fd>("fd"),
                        InstanceMethod("resize", &TaskMemoryObject::resize),
                        InstanceMethod("close", &TaskMemoryObject::close)});
  }

  explicit TaskMemoryObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<TaskMemoryObject>(info) {
    fd_ = memfd_create("tesra-task", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd_ < 0) throw_error(info.Env(), "memory", system_text("memfd_create"));
  }
  ~TaskMemoryObject() override { end(); }

 private:
  Napi::Value fd(const Napi::CallbackInfo& info) { return Napi::Number::New(info.Env(), fd_); }

  // (sizeBytes): once; the file has that size for good.
  Napi::Value resize(const Napi::CallbackInfo& info) {
    Napi::Env env = info.Env();
    double size = 0;
    if (fd_ < 0) return throw_error(env, "closed", "the task's memory is closed"), env.Undefined();
    if (!read_size(env, info[0], &size)) return env.Undefined();
    if (ftruncate(fd_, static_cast<off_t>(size)) != 0)
      return throw_error(env, "memory", system_text("ftruncate")), env.Undefined();
    if (fcntl(fd_, F_ADD_SEALS, kSeals) != 0)
      return throw_error(env, "memory", system_text("F_ADD_SEALS")), env.Undefined();
    return map_buffer(env, fd_, static_cast<size_t>(size));
  }

  void end() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }
  void close(const Napi::CallbackInfo&) { end(); }

  int fd_ = -1;
};

bool is_sealed(int fd, uint64_t size) {
  struct stat info;
  const int seals = fcntl(fd, F_GET_SEALS);
  return seals >= 0 && (seals & kSeals) == kSeals && fstat(fd, &info) == 0 &&
         static_cast<uint64_t>(info.st_size) >= size;
}

// (fd, sizeBytes): what the parent has sized.
Napi::Value map_task_memory(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  double fd = 0, size = 0;
  if (!read_integer(env, info[0], "fd", 0, 2147483647, &fd) || !read_size(env, info[1], &size))
    return env.Undefined();
  if (!is_sealed(static_cast<int>(fd), static_cast<uint64_t>(size)))
    return throw_error(env, "memory", "the file is not sealed at this size"), env.Undefined();
  return map_buffer(env, static_cast<int>(fd), static_cast<size_t>(size));
}

}  // namespace

bool read_arena_head(Napi::Env env, Napi::Value value, ArenaHead* out) {
  Napi::Object o;
  double fd = 0, offset = 0, size = 0;
  if (!read_object(env, value, "the head", &o) ||
      !integer_property(env, o, "fd", 0, 2147483647, nullptr, &fd) ||
      !integer_property(env, o, "offsetBytes", 0, kSizeMost, nullptr, &offset) ||
      !integer_property(env, o, "sizeBytes", 0, kSizeMost, nullptr, &size))
    return false;
  *out = {static_cast<int>(fd), static_cast<uint64_t>(offset), static_cast<uint64_t>(size)};
  if (out->offset % kPage != 0)
    return throw_error(env, "argument", "offsetBytes must be a multiple of 65536"), false;
  return true;
}

void* map_arena(const ArenaHead& head, uint64_t bytes, size_t* mapped, std::string* error) {
  const uint64_t shared = std::min(rounded(head.bytes, kPage), rounded(bytes, kPage));
  if (!is_sealed(head.fd, head.offset + shared)) return *error = "the arena's head is not in the file", nullptr;
  const uint64_t size = rounded(std::max<uint64_t>(bytes, 64), bytes >= kHugePage ? kHugePage : kPage);
  // Room to begin on a huge page; what lies around it is given back.
  const uint64_t slack = size >= kHugePage ? kHugePage : 0;
  void* at = mmap(nullptr, size + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) return *error = system_text("no memory for the arena: mmap"), nullptr;
  auto* base = static_cast<uint8_t*>(at);
  if (slack != 0) {
    auto* aligned = reinterpret_cast<uint8_t*>(rounded(reinterpret_cast<uintptr_t>(base), kHugePage));
    if (aligned > base) munmap(base, static_cast<size_t>(aligned - base));
    const auto after = static_cast<size_t>(base + slack - aligned);
    if (after > 0) munmap(aligned + size, after);
    base = aligned;
    madvise(base, size, MADV_HUGEPAGE);  // a wish: refusal changes nothing
  }
  if (shared > 0 && mmap(base, shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, head.fd,
                         static_cast<off_t>(head.offset)) == MAP_FAILED) {
    *error = system_text("mmap of the arena's head");
    munmap(base, size);
    return nullptr;
  }
  *mapped = size;
  return base;
}

void unmap_arena(void* arena, size_t mapped) { munmap(arena, mapped); }

void export_task_memory(Napi::Env env, Napi::Object exports) {
  exports.Set("NativeTaskMemory", TaskMemoryObject::define(env));
  exports.Set("mapTaskMemory", Napi::Function::New(env, map_task_memory, "mapTaskMemory"));
}

}  // namespace tesra

#else

namespace tesra {

bool read_arena_head(Napi::Env env, Napi::Value, ArenaHead*) {
  return throw_error(env, "unsupported", "this system has no memory without a name"), false;
}
void* map_arena(const ArenaHead&, uint64_t, size_t*, std::string*) { return nullptr; }
void unmap_arena(void*, size_t) {}
void export_task_memory(Napi::Env, Napi::Object) {}

}  // namespace tesra

#endif
