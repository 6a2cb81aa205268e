// Owns: CN2 on the CPU: scratchpads on huge pages, one hash, and the search over nonces by all
// threads. Invariant: which path, how many hashes at once and which thread never show in the result.
#include <atomic>
#include <chrono>
#include <cstring>
#include <mutex>
#include <new>
#include <vector>

#include "device.h"

namespace tesra {
namespace {

// The best path of an instruction set; the scalar table (one float a vector) asks for the reference.
const Cn2Path& path_of(const Kernels& k) {
  const Cn2Path* path = k.width >= 16 ? cn2_vaes() : nullptr;
  if (!path && k.width > 1) path = cn2_aes();
  return path ? *path : *cn2_portable();
}

// Chooses between one hash at a time and two interleaved by their rates, measured as the search goes:
// on a quiet machine two win by a quarter, with neighbours in the L3 they lose by a third.
class Pace {
 public:
  int ways(uint64_t left) const {
    if (left < 2) return 1;
    if (seconds_[1] == 0 || seconds_[2] == 0) return seconds_[1] == 0 ? 1 : 2;
    const int best = seconds_[2] < seconds_[1] ? 2 : 1;
    return groups_ % kGroupsBetweenProbes == 0 ? 3 - best : best;
  }
  void measured(int ways, double seconds) {
    const double each = seconds / ways;
    double& mean = seconds_[ways];
    mean = mean == 0 ? each : 0.75 * mean + 0.25 * each;
    ++groups_;
  }

 private:
  static constexpr int kGroupsBetweenProbes = 32;  // a wrong way costs a third of 1/32: 1 %
  double seconds_[3] = {0, 0, 0};  // for one hash, by ways
  int groups_ = 1;
};

}  // namespace

void cn2_hash(const Context& cx, Scratchpads& pads, const tesra_cn2& args) {
  pads.reserve(1);
  uint64_t state[kKeccakWords];
  keccak1600(args.data, args.size, state);
  path_of(*cx.kernels).one(state, pads.at(0));
  cn2_finish(state, args.out);
}

void cn2_scan(const Context& cx, Scratchpads& pads, tesra_cn2_scan& s) {
  const Cn2Path& path = path_of(*cx.kernels);
  const int threads = cx.pool->threads();
  pads.reserve(2 * threads);
  std::vector<std::vector<uint8_t>> inputs(static_cast<size_t>(threads),
                                           std::vector<uint8_t>(s.data, s.data + s.size));
  std::vector<Cn2Winner> winners;
  winners.reserve(size_t{s.capacity} + 2 * static_cast<size_t>(threads));
  std::mutex mutex;  // of all below
  uint64_t next = 0;
  bool over = false;
  // Nonces are given out in order, and a group once begun is finished: [0, next) is what was tried.
  cx.pool->run(threads, [&](int64_t task, int) {
    uint8_t* const input = inputs[static_cast<size_t>(task)].data();
    uint8_t* const own[2] = {pads.at(2 * static_cast<int>(task)), pads.at(2 * static_cast<int>(task) + 1)};
    Pace pace;
    for (;;) {
      uint64_t first = 0;
      int ways = 1;
      {
        std::lock_guard<std::mutex> lock(mutex);
        if (over || next == s.count || (s.stopped && s.stopped(s.context))) return;
        ways = pace.ways(s.count - next);
        first = next;
        next += static_cast<uint64_t>(ways);
      }
      const auto begin = std::chrono::steady_clock::now();
      uint64_t state[2][kKeccakWords];
      uint64_t* const states[2] = {state[0], state[1]};
      for (int k = 0; k < ways; ++k) {
        const uint64_t nonce = s.nonce_start + first + static_cast<uint64_t>(k);
        std::memcpy(input + s.nonce_offset, &nonce, s.nonce_bytes);
        keccak1600(input, s.size, state[k]);
      }
      if (ways == 2) path.two(states, own);
      else path.one(states[0], own[0]);
      for (int k = 0; k < ways; ++k) {
        Cn2Winner w;
        w.nonce = s.nonce_start + first + static_cast<uint64_t>(k);
        cn2_finish(state[k], w.hash);
        if (!cn2_wins(w.hash, s.target)) continue;
        std::lock_guard<std::mutex> lock(mutex);
        winners.push_back(w);  // there is room: each thread adds two at most after `over`
        over = winners.size() >= s.capacity;
      }
      const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - begin;
      pace.measured(ways, spent.count());
    }
  });
  cn2_settle(winners, next, s);
  s.pages = pads.pages();
}

}  // namespace tesra
