#include "shared-memory.h"

#if defined(__linux__)

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <system_error>
#include <thread>
#include <vector>

#include "arguments.h"

// Older C libraries lack these; the kernel decides at run time.
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef TMPFS_MAGIC
#define TMPFS_MAGIC 0x01021994
#endif

namespace tesra {
namespace {

// The first page holds what proves the segment's identity and is never part of an ArrayBuffer.
constexpr size_t kDataOffset = 4096;
constexpr size_t kHeaderBytes = 64;
constexpr size_t kPageBytes = 4096;
constexpr double kSizeMost = 1024.0 * 1024 * 1024;
constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
// One core moves ~10 GB/s; more of them help only where there are many, and only for a copy worth a thread's start.
constexpr size_t kParallelCopyBytes = 8u << 20;
constexpr unsigned kCoresPerCopier = 4;
constexpr unsigned kCopiersMost = 4;

struct Fd {
  int value = -1;
  explicit Fd(int fd) : value(fd) {}
  ~Fd() { reset(); }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  void reset(int fd = -1) {
    if (value >= 0) close(value);
    value = fd;
  }
  int release() {
    const int fd = value;
    value = -1;
    return fd;
  }
};

struct Lease;

struct Mapping {
  uint8_t* base;
  size_t size;  // of the data, without the first page
  Lease* lease = nullptr;  // of the ArrayBuffer over it; on the JavaScript thread only
  Mapping(void* at, size_t bytes) : base(static_cast<uint8_t*>(at)), size(bytes) {}
  ~Mapping() { munmap(base, kDataOffset + size); }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  uint8_t* data() const { return base + kDataOffset; }
};

std::string system_text(const char* what) {
  return std::string(what) + ": " + std::generic_category().message(errno);
}

std::shared_ptr<Mapping> map_file(int fd, size_t size, std::string* error) {
  void* at = mmap(nullptr, kDataOffset + size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (at == MAP_FAILED) {
    *error = system_text("mmap");
    return nullptr;
  }
  return std::make_shared<Mapping>(at, size);
}

std::shared_ptr<Mapping> create_file(size_t size, const View& header, Fd* file, std::string* error) {
  Fd fd(memfd_create("tesra-supernet", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (fd.value < 0) return *error = system_text("memfd_create"), nullptr;
  if (ftruncate(fd.value, static_cast<off_t>(kDataOffset + size)) != 0)
    return *error = system_text("ftruncate"), nullptr;
  if (fcntl(fd.value, F_ADD_SEALS, kSeals) != 0) return *error = system_text("F_ADD_SEALS"), nullptr;
  std::shared_ptr<Mapping> mapping = map_file(fd.value, size, error);
  if (!mapping) return nullptr;
  std::memcpy(mapping->base, header.data, kHeaderBytes);
  file->reset(fd.release());
  return mapping;
}

// `pid` and `number` come from another process and may name anything. O_PATH opens without any effect on what is
// there; only a sealed, nameless tmpfs file of this user and of exactly this size is opened for real.
std::shared_ptr<Mapping> open_file(long pid, long number, size_t size, std::string* error) {
  char path[64];
  std::snprintf(path, sizeof path, "/proc/%ld/fd/%ld", pid, number);
  Fd handle(open(path, O_PATH | O_CLOEXEC));
  if (handle.value < 0) return *error = system_text(path), nullptr;
  struct stat info;
  struct statfs system;
  if (fstat(handle.value, &info) != 0) return *error = system_text("fstat"), nullptr;
  if (!S_ISREG(info.st_mode) || info.st_nlink != 0 || fstatfs(handle.value, &system) != 0 ||
      system.f_type != TMPFS_MAGIC)
    return *error = "not a memfd", nullptr;
  if (info.st_uid != geteuid()) return *error = "it belongs to another user", nullptr;
  if (info.st_size != static_cast<off_t>(kDataOffset + size))
    return *error = "its size is not what was said", nullptr;
  std::snprintf(path, sizeof path, "/proc/self/fd/%d", handle.value);
  Fd file(open(path, O_RDWR | O_CLOEXEC));
  if (file.value < 0) return *error = system_text("open"), nullptr;
  const int seals = fcntl(file.value, F_GET_SEALS);
  if (seals < 0 || (seals & kSeals) != kSeals) return *error = "it is not sealed", nullptr;
  // A size checked before the seals were seen might have changed in between.
  if (fstat(file.value, &info) != 0 || info.st_size != static_cast<off_t>(kDataOffset + size))
    return *error = "its size is not what was said", nullptr;
  return map_file(file.value, size, error);
}

void copy(uint8_t* to, const uint8_t* from, size_t bytes) {
  const unsigned cores = std::thread::hardware_concurrency();
  const unsigned copiers = std::min(kCopiersMost, std::max(1u, cores / kCoresPerCopier));
  if (copiers == 1 || bytes < kParallelCopyBytes) {
    std::memcpy(to, from, bytes);
    return;
  }
  const size_t part = (bytes / copiers + kPageBytes - 1) / kPageBytes * kPageBytes;
  std::vector<std::thread> threads;
  size_t done = 0;
  try {
    for (; threads.size() + 1 < copiers; done += part)
      threads.emplace_back([=] { std::memcpy(to + done, from + done, part); });
  } catch (const std::system_error&) {
    // No more threads to be had: this one copies the rest.
  }
  std::memcpy(to + done, from + done, bytes - done);
  for (std::thread& each : threads) each.join();
}

// Has every page allocated before the segment is first used: 1.5 ms/MB that would otherwise stop the event loop.
// Plain N-API, because work that ends while its thread is being ended can settle no promise, which AsyncWorker
// takes for fatal.
struct Prefault {
  std::shared_ptr<Mapping> mapping;
  napi_async_work work = nullptr;
  napi_deferred deferred = nullptr;
  std::string error;
};

void run_prefault(napi_env, void* data) {
  auto* self = static_cast<Prefault*>(data);
  const Mapping& m = *self->mapping;
  if (m.size == 0 || madvise(m.data(), m.size, MADV_POPULATE_WRITE) == 0) return;
  if (errno != EINVAL) {
    self->error = system_text("the memory is not there");
    return;
  }
  // Before Linux 5.14. Nobody else sees the segment yet.
  for (size_t at = 0; at < m.size; at += kPageBytes)
    *static_cast<volatile uint8_t*>(m.data() + at) = 0;
}

void end_prefault(napi_env env, napi_status status, void* data) {
  std::unique_ptr<Prefault> self(static_cast<Prefault*>(data));
  napi_delete_async_work(env, self->work);
  napi_handle_scope scope = nullptr;
  if (status != napi_ok || napi_open_handle_scope(env, &scope) != napi_ok) return;
  napi_value value = nullptr;
  if (self->error.empty()) {
    if (napi_get_undefined(env, &value) == napi_ok) napi_resolve_deferred(env, self->deferred, value);
  } else {
    napi_value text = nullptr;
    if (napi_create_string_utf8(env, self->error.c_str(), NAPI_AUTO_LENGTH, &text) == napi_ok &&
        napi_create_error(env, nullptr, text, &value) == napi_ok)
      napi_reject_deferred(env, self->deferred, value);
  }
  napi_close_handle_scope(env, scope);
}

struct Lease {
  std::shared_ptr<Mapping> mapping;
  napi_ref on_free = nullptr;  // none: over already
};

// Nothing can reach the memory any more: the next ArrayBuffer may be made, and onFree is told.
void end_lease(napi_env env, Lease* lease) {
  if (lease->on_free == nullptr) return;
  lease->mapping->lease = nullptr;
  napi_handle_scope scope = nullptr;
  if (napi_open_handle_scope(env, &scope) != napi_ok) return;
  napi_value callback = nullptr, global = nullptr;
  if (napi_get_reference_value(env, lease->on_free, &callback) == napi_ok && callback != nullptr &&
      napi_get_global(env, &global) == napi_ok)
    napi_call_function(env, global, callback, 0, nullptr, nullptr);  // fails when the thread is ending
  napi_delete_reference(env, lease->on_free);
  lease->on_free = nullptr;
  napi_close_handle_scope(env, scope);
}

// Runs on the JavaScript thread, in a turn of its own, after the ArrayBuffer was collected or detached.
void free_lease(napi_env env, void*, void* hint) {
  std::unique_ptr<Lease> lease(static_cast<Lease*>(hint));
  end_lease(env, lease.get());
}

class SegmentObject : public Napi::ObjectWrap<SegmentObject> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "NativeSharedSegment",
                       {InstanceMethod("place", &SegmentObject::place),
                        InstanceMethod("header", &SegmentObject::header),
                        InstanceMethod("write", &SegmentObject::write),
                        InstanceMethod("lend", &SegmentObject::lend),
                        InstanceMethod("detach", &SegmentObject::detach),
                        InstanceMethod("prefault", &SegmentObject::prefault),
                        InstanceMethod("closeFile", &SegmentObject::close_file),
                        InstanceMethod("close", &SegmentObject::close)});
  }

  // ({ sizeBytes, header }) makes a segment; ({ sizeBytes, pid, fd }) opens another process's.
  explicit SegmentObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<SegmentObject>(info) {
    Napi::Env env = info.Env();
    Napi::Object options;
    double size = 0;
    if (!read_object(env, info[0], "options", &options) ||
        !integer_property(env, options, "sizeBytes", 0, kSizeMost, nullptr, &size))
      return;
    if (static_cast<size_t>(size) % kPageBytes != 0) {
      throw_error(env, "argument", "sizeBytes must be a multiple of 4096");
      return;
    }
    Napi::Value first;
    if (!read_property(env, options, "header", &first)) return;
    std::string error;
    if (!first.IsUndefined()) {
      View view;
      if (!read_view(env, first, "header", napi_uint8_array, kHeaderBytes, &view)) return;
      mapping_ = create_file(static_cast<size_t>(size), view, &file_, &error);
    } else {
      double pid = 0, fd = 0;
      if (!integer_property(env, options, "pid", 1, 4194304, nullptr, &pid) ||
          !integer_property(env, options, "fd", 0, 2147483647, nullptr, &fd))
        return;
      mapping_ = open_file(static_cast<long>(pid), static_cast<long>(fd),
                           static_cast<size_t>(size), &error);
    }
    if (!mapping_) throw_error(env, "unavailable", "no shared memory: " + error);
  }

 private:
  bool usable(Napi::Env env) {
    if (!mapping_) throw_error(env, "closed", "the segment is closed");
    return mapping_ != nullptr;
  }

  // { pid, fd } under which another process finds the segment, until closeFile().
  Napi::Value place(const Napi::CallbackInfo& info) {
    Napi::Env env = info.Env();
    if (!usable(env)) return env.Undefined();
    if (file_.value < 0) return throw_error(env, "closed", "the segment's file is closed"), env.Undefined();
    Napi::Object o = Napi::Object::New(env);
    o.Set("pid", Napi::Number::New(env, getpid()));
    o.Set("fd", Napi::Number::New(env, file_.value));
    return o;
  }

  Napi::Value header(const Napi::CallbackInfo& info) {
    Napi::Env env = info.Env();
    if (!usable(env)) return env.Undefined();
    Napi::Uint8Array bytes = Napi::Uint8Array::New(env, kHeaderBytes);
    std::memcpy(bytes.Data(), mapping_->base, kHeaderBytes);
    return bytes;
  }

  // (offset, bytes): copies into the data.
  Napi::Value write(const Napi::CallbackInfo& info) {
    Napi::Env env = info.Env();
    View from;
    double offset = 0;
    if (!usable(env)) return env.Undefined();
    if (!read_integer(env, info[0], "offset", 0, static_cast<double>(mapping_->size), &offset) ||
        !read_view(env, info[1], "bytes", napi_uint8_array, SIZE_MAX, &from))
      return env.Undefined();
    const size_t at = static_cast<size_t>(offset);
    if (from.bytes > mapping_->size - at)
      return throw_error(env, "capacity", "the bytes do not fit into the segment"), env.Undefined();
    const uint8_t* data = mapping_->data();
    if (from.bytes != 0 && from.data < data + mapping_->size && data < from.data + from.bytes)
      return throw_error(env, "argument", "the bytes lie in the segment itself"), env.Undefined();
    if (from.bytes != 0) copy(mapping_->data() + at, from.data, from.bytes);
    return env.Undefined();
  }

  // (lengthBytes, onFree): an ArrayBuffer over the beginning of the data. onFree runs when it is gone for good. V8 counts
  // it as memory of its heap, and so collects dropped ones before the senders run out of segments.
  Napi::Value lend(const Napi::CallbackInfo& info) {
    Napi::Env env = info.Env();
    double length = 0;
    if (!usable(env)) return env.Undefined();
    if (!read_integer(env, info[0], "lengthBytes", 1, static_cast<double>(mapping_->size), &length))
      return env.Undefined();
    if (!info[1].IsFunction())
      return throw_error(env, "argument", "onFree must be a function"), env.Undefined();
    if (mapping_->lease != nullptr)
      return throw_error(env, "busy", "an ArrayBuffer over this segment is still alive"), env.Undefined();
    auto lease = std::make_unique<Lease>();
    lease->mapping = mapping_;
    napi_value buffer = nullptr;
    if (napi_create_reference(env, info[1], 1, &lease->on_free) != napi_ok)
      return throw_error(env, "memory", "no reference could be made"), env.Undefined();
    mapping_->lease = lease.get();
    if (napi_create_external_arraybuffer(env, mapping_->data(), static_cast<size_t>(length), free_lease,
                                         lease.get(), &buffer) != napi_ok) {
      mapping_->lease = nullptr;
      napi_delete_reference(env, lease->on_free);
      throw_error(env, "unsupported", "this JavaScript engine takes no external memory");
      return env.Undefined();
    }
    lease.release();
    return Napi::Value(env, buffer);
  }

  // (buffer): the views of a buffer that this segment lent are empty from now on. onFree runs before this returns, not
  // in a later turn: a sender that waits for the segment would find none and take the lanes. After close() it follows.
  Napi::Value detach(const Napi::CallbackInfo& info) {
    Napi::Env env = info.Env();
    bool is_buffer = false;
    void* data = nullptr;
    size_t length = 0;
    if (napi_is_arraybuffer(env, info[0], &is_buffer) != napi_ok || !is_buffer ||
        napi_get_arraybuffer_info(env, info[0], &data, &length) != napi_ok)
      return throw_error(env, "argument", "buffer must be an ArrayBuffer"), env.Undefined();
    if (length == 0) return env.Undefined();  // detached before
    if (mapping_ && data != mapping_->data())
      return throw_error(env, "argument", "the buffer is not this segment's"), env.Undefined();
    if (napi_detach_arraybuffer(env, info[0]) != napi_ok)
      return throw_error(env, "argument", "this ArrayBuffer cannot be detached"), env.Undefined();
    if (mapping_ && mapping_->lease != nullptr) end_lease(env, mapping_->lease);
    return env.Undefined();
  }

  Napi::Value prefault(const Napi::CallbackInfo& info) {
    Napi::Env env = info.Env();
    if (!usable(env)) return env.Undefined();
    auto self = std::make_unique<Prefault>();
    self->mapping = mapping_;
    napi_value promise = nullptr;
    napi_value name = Napi::String::New(env, "tesra.prefault");
    if (napi_create_promise(env, &self->deferred, &promise) != napi_ok ||
        napi_create_async_work(env, nullptr, name, run_prefault, end_prefault, self.get(), &self->work) !=
            napi_ok ||
        napi_queue_async_work(env, self->work) != napi_ok)
      return throw_error(env, "memory", "no work could be queued"), env.Undefined();
    self.release();
    return Napi::Value(env, promise);
  }

  void close_file(const Napi::CallbackInfo&) { file_.reset(); }

  void close(const Napi::CallbackInfo&) {
    file_.reset();
    mapping_.reset();
  }

  Fd file_{-1};
  std::shared_ptr<Mapping> mapping_;
};

}  // namespace

void export_shared_memory(Napi::Env env, Napi::Object exports) {
  exports.Set("NativeSharedSegment", SegmentObject::define(env));
}

}  // namespace tesra

#else

namespace tesra {

void export_shared_memory(Napi::Env, Napi::Object) {}

}  // namespace tesra

#endif
