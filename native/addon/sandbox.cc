#include "sandbox.h"

#if defined(__linux__) && (defined(__x86_64__) || defined(__aarch64__))

#include <fcntl.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <initializer_list>
#include <string>
#include <system_error>
#include <vector>

#include "arguments.h"

// Older kernel headers lack these; the kernel decides at run time.
#ifndef SECCOMP_FILTER_FLAG_SPEC_ALLOW
#define SECCOMP_FILTER_FLAG_SPEC_ALLOW (1UL << 2)
#endif
#ifndef SYS_clone3
#define SYS_clone3 435
#endif
#ifndef SYS_rseq
#if defined(__x86_64__)
#define SYS_rseq 334
#else
#define SYS_rseq 293
#endif
#endif

namespace tesra {
namespace {

#if defined(__x86_64__)
constexpr uint32_t kArch = AUDIT_ARCH_X86_64;
#else
constexpr uint32_t kArch = AUDIT_ARCH_AARCH64;
#endif
constexpr uint32_t kRefuse = SECCOMP_RET_ERRNO | EPERM;

// ------------------------------------------------------------ the filter

// A system call passes when it is listed; with a condition on one argument, when that holds too. The lower half of
// an argument is where every flag and small number lies; both halves are compared where an address may stand.
class Filter {
 public:
  Filter() {
    load(offsetof(seccomp_data, arch));
    jump(BPF_JEQ, kArch, 1, 0);
    give(SECCOMP_RET_KILL_PROCESS);
    load(offsetof(seccomp_data, nr));
#if defined(__x86_64__)
    jump(BPF_JGE, 0x40000000u, 0, 1);  // x32 numbers name other calls
    give(kRefuse);
#endif
  }
  void allow(std::initializer_list<long> calls) {
    for (long call : calls) answer(call, SECCOMP_RET_ALLOW);
  }
  void answer(long call, uint32_t with) {
    jump(BPF_JEQ, static_cast<uint32_t>(call), 0, 1);
    give(with);
  }
  // Passes when (argument & mask) == value.
  void allow_masked(long call, int argument, uint32_t mask, uint32_t value) {
    jump(BPF_JEQ, static_cast<uint32_t>(call), 0, 5);
    load_argument(argument, 0);
    program_.push_back(BPF_STMT(BPF_ALU | BPF_AND | BPF_K, mask));
    jump(BPF_JEQ, value, 0, 1);
    give(SECCOMP_RET_ALLOW);
    give(kRefuse);
  }
  // Passes when the whole argument is `value`.
  void allow_exact(long call, int argument, uint32_t value) {
    jump(BPF_JEQ, static_cast<uint32_t>(call), 0, 6);
    load_argument(argument, 4);
    jump(BPF_JEQ, 0, 0, 3);
    load_argument(argument, 0);
    jump(BPF_JEQ, value, 0, 1);
    give(SECCOMP_RET_ALLOW);
    give(kRefuse);
  }
  // mmap without PROT_EXEC, and never both shared and anonymous: RLIMIT_DATA does not count that.
  void allow_mmap() {
    jump(BPF_JEQ, SYS_mmap, 0, 7);
    load_argument(2, 0);
    jump(BPF_JSET, PROT_EXEC, 4, 0);
    load_argument(3, 0);
    program_.push_back(BPF_STMT(BPF_ALU | BPF_AND | BPF_K, MAP_SHARED | MAP_ANONYMOUS));
    jump(BPF_JEQ, MAP_SHARED | MAP_ANONYMOUS, 1, 0);
    give(SECCOMP_RET_ALLOW);
    give(kRefuse);
  }
  const std::vector<sock_filter>& finish() {
    give(kRefuse);
    return program_;
  }

 private:
  void load(size_t offset) {
    program_.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<uint32_t>(offset)));
  }
  void load_argument(int argument, size_t half) {
    load(offsetof(seccomp_data, args) + static_cast<size_t>(argument) * 8 + half);  // little-endian
  }
  void jump(uint16_t test, uint32_t value, uint8_t yes, uint8_t no) {
    program_.push_back(BPF_JUMP(static_cast<uint16_t>(BPF_JMP | test | BPF_K), value, yes, no));
  }
  void give(uint32_t value) { program_.push_back(BPF_STMT(BPF_RET | BPF_K, value)); }

  std::vector<sock_filter> program_;
};

// What a started Node, its threads and the kernels still need, and nothing that opens, names or reaches anything.
void allow_computing(Filter* filter) {
  filter->allow({SYS_futex, SYS_read, SYS_write, SYS_munmap, SYS_madvise, SYS_mremap, SYS_brk, SYS_sched_yield,
                 SYS_readv, SYS_writev, SYS_close, SYS_lseek, SYS_fstat, SYS_clock_gettime, SYS_clock_getres,
                 SYS_clock_nanosleep, SYS_nanosleep, SYS_gettimeofday, SYS_getpid, SYS_getppid, SYS_gettid,
                 SYS_getuid, SYS_geteuid, SYS_getgid, SYS_getegid, SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_rt_sigreturn,
                 SYS_sigaltstack, SYS_restart_syscall, SYS_set_robust_list, SYS_rseq, SYS_sched_getaffinity,
                 SYS_getcpu, SYS_getrusage, SYS_sysinfo, SYS_uname, SYS_getrandom, SYS_membarrier, SYS_exit, SYS_exit_group,
                 SYS_epoll_ctl, SYS_epoll_pwait, SYS_eventfd2, SYS_ppoll, SYS_fcntl});
#if defined(__x86_64__)
  filter->allow({SYS_epoll_wait, SYS_poll});
#endif
  filter->allow_mmap();
  filter->allow_masked(SYS_mprotect, 2, PROT_EXEC, 0);
  // fstat of newer C libraries: of a descriptor, or at most what a path's metadata say.
  filter->allow_masked(SYS_newfstatat, 3, AT_EMPTY_PATH, AT_EMPTY_PATH);
  // Threads, not processes; clone3 hides its flags behind a pointer, and the C library then takes clone.
  constexpr uint32_t thread = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD;
  filter->allow_masked(SYS_clone, 0, thread, thread);
  filter->answer(SYS_clone3, SECCOMP_RET_ERRNO | ENOSYS);
  filter->allow_exact(SYS_tgkill, 0, static_cast<uint32_t>(getpid()));  // abort() and the like
  filter->allow_exact(SYS_prlimit64, 2, 0);                             // to read limits, of which process ever
}

// The CUDA driver opens its devices, and a kernel image on first use, long after the start.
void allow_driver(Filter* filter) {
  filter->allow({SYS_ioctl, SYS_dup, SYS_pread64, SYS_statx, SYS_newfstatat, SYS_getdents64, SYS_readlinkat,
                 SYS_faccessat, SYS_sched_setaffinity, SYS_sched_getparam, SYS_sched_getscheduler, SYS_mlock, SYS_munlock,
                 SYS_mincore, SYS_getcwd, SYS_pipe2});
  filter->allow_masked(SYS_openat, 2, O_CREAT | O_TRUNC | O_APPEND, 0);
#if defined(__x86_64__)
  filter->allow({SYS_stat, SYS_lstat, SYS_access, SYS_readlink});
  filter->allow_masked(SYS_open, 1, O_CREAT | O_TRUNC | O_APPEND, 0);
#endif
}

bool install(const std::vector<sock_filter>& program, std::string* error) {
  const sock_fprog filter{static_cast<unsigned short>(program.size()), const_cast<sock_filter*>(program.data())};
  // All threads at once. SPEC_ALLOW: no code of a stranger runs here, and the kernels would pay for the mitigation.
  for (unsigned long flags : {SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_SPEC_ALLOW, SECCOMP_FILTER_FLAG_TSYNC}) {
    const long code = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &filter);
    if (code == 0) return true;
    *error = code > 0 ? "a thread could not take the filter" : std::generic_category().message(errno);
    if (errno != EINVAL) break;
  }
  return false;
}

bool has_filters() {
  const uint32_t action = SECCOMP_RET_ERRNO;
  return syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0;
}

// ------------------------------------------------------------ limits

bool set_limit(int resource, rlim_t soft, rlim_t hard) {
  rlimit now{};
  if (getrlimit(static_cast<__rlimit_resource_t>(resource), &now) != 0) return false;
  const rlimit wanted{std::min(soft, now.rlim_max), std::min(hard, now.rlim_max)};
  return setrlimit(static_cast<__rlimit_resource_t>(resource), &wanted) == 0;
}

bool drop_capabilities() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct none[2] = {};
  return syscall(SYS_capset, &header, none) == 0;
}

void set_flag(Napi::Object o, const char* key, bool value) { o.Set(key, Napi::Boolean::New(o.Env(), value)); }

// { seccomp }: what the kernel offers.
Napi::Value support(const Napi::CallbackInfo& info) {
  Napi::Object o = Napi::Object::New(info.Env());
  set_flag(o, "seccomp", has_filters());
  return o;
}

// ({ parent, dataBytes, dataBytesMax, cpuSeconds, files, driver }) -> { limits, capabilities, seccomp, reason }.
// Once, after everything is loaded and every device is open.
Napi::Value confine(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  Napi::Object options;
  double parent = 0, data = 0, most = 0, seconds = 0, files = 0;
  bool driver = false;
  constexpr double kBytesMost = 9007199254740991.0;
  if (!read_object(env, info[0], "options", &options) ||
      !integer_property(env, options, "parent", 1, 4194304, nullptr, &parent) ||
      !integer_property(env, options, "dataBytes", 0, kBytesMost, nullptr, &data) ||
      !integer_property(env, options, "dataBytesMax", 0, kBytesMost, nullptr, &most) ||
      !integer_property(env, options, "cpuSeconds", 1, 1e9, nullptr, &seconds) ||
      !integer_property(env, options, "files", 1, 65536, nullptr, &files) ||
      !flag_property(env, options, "driver", &driver))
    return env.Undefined();
  Napi::Object o = Napi::Object::New(env);
  // Killed with the thread that started it; one that is gone already sends nothing.
  if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != static_cast<pid_t>(parent))
    return throw_error(env, "closed", "the parent is gone"), env.Undefined();
  prctl(PR_SET_DUMPABLE, 0);
  // RLIMIT_NPROC counts all of a user's processes, so it is not for us; clone is the filter's.
  const bool limits = set_limit(RLIMIT_CORE, 0, 0) && set_limit(RLIMIT_FSIZE, 0, 0) &&
                      set_limit(RLIMIT_NOFILE, static_cast<rlim_t>(files), static_cast<rlim_t>(files)) &&
                      set_limit(RLIMIT_CPU, static_cast<rlim_t>(seconds), RLIM_INFINITY) &&
                      set_limit(RLIMIT_DATA, static_cast<rlim_t>(data), static_cast<rlim_t>(most));
  set_flag(o, "limits", limits);
  const bool privileges = prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0;
  set_flag(o, "capabilities", drop_capabilities() && privileges);
  Filter filter;
  if (driver) allow_driver(&filter);  // first: the first answer to a call is the one that counts
  allow_computing(&filter);
  std::string reason;
  set_flag(o, "seccomp", install(filter.finish(), &reason));
  o.Set("reason", Napi::String::New(env, reason));
  return o;
}

// (pid, dataBytes): what a child may have from now on, within what it had; its processor time is its parent's to judge.
Napi::Value limit_data(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  double pid = 0, data = 0;
  if (!read_integer(env, info[0], "pid", 1, 4194304, &pid) ||
      !read_integer(env, info[1], "dataBytes", 0, 9007199254740991.0, &data))
    return env.Undefined();
  const auto child = static_cast<pid_t>(pid);
  rlimit memory{}, time{};
  if (prlimit(child, RLIMIT_DATA, nullptr, &memory) == 0 && prlimit(child, RLIMIT_CPU, nullptr, &time) == 0) {
    memory.rlim_max = std::min(memory.rlim_max, static_cast<rlim_t>(data));
    memory.rlim_cur = memory.rlim_max;
    time.rlim_cur = time.rlim_max;
    if (prlimit(child, RLIMIT_DATA, &memory, nullptr) == 0 && prlimit(child, RLIMIT_CPU, &time, nullptr) == 0)
      return env.Undefined();
  }
  throw_error(env, "unavailable", "the child's limits cannot be set: " + std::generic_category().message(errno));
  return env.Undefined();
}

}  // namespace

void export_sandbox(Napi::Env env, Napi::Object exports) {
  Napi::Object o = Napi::Object::New(env);
  o.Set("support", Napi::Function::New(env, support, "support"));
  o.Set("confine", Napi::Function::New(env, confine, "confine"));
  o.Set("limitData", Napi::Function::New(env, limit_data, "limitData"));
  exports.Set("sandbox", o);
}

}  // namespace tesra

#else

namespace tesra {

void export_sandbox(Napi::Env, Napi::Object) {}

}  // namespace tesra

#endif
