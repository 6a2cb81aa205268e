// Owns: the end of a CN2 hash and of a search, for every back end.
#include <algorithm>

#include "cn2.h"

namespace tesra {

void cn2_finish(uint64_t state[kKeccakWords], uint8_t* out) {
  keccak_f1600(state);
  const uint8_t* bytes = reinterpret_cast<const uint8_t*>(state);
  constexpr size_t kSize = sizeof(uint64_t) * kKeccakWords;
  switch (bytes[0] & 3) {
    case 0: return blake256(bytes, kSize, out);
    case 1: return groestl256(bytes, kSize, out);
    case 2: return jh256(bytes, kSize, out);
    default: return skein512_256(bytes, kSize, out);
  }
}

bool cn2_wins(const uint8_t* hash, const uint8_t* target) {
  for (int i = 31; i >= 0; --i)
    if (hash[i] != target[i]) return hash[i] < target[i];
  return true;
}

void cn2_settle(std::vector<Cn2Winner>& winners, uint64_t tried, tesra_cn2_scan& s) {
  std::sort(winners.begin(), winners.end(),
            [](const Cn2Winner& p, const Cn2Winner& q) { return p.nonce < q.nonce; });
  // Hashes under way together may have won beyond the capacity: those are given back untried.
  const bool more = winners.size() > s.capacity;
  s.tried = more ? winners[s.capacity].nonce - s.nonce_start : tried;
  s.found = more ? s.capacity : static_cast<uint32_t>(winners.size());
  for (uint32_t i = 0; i < s.found; ++i) {
    s.nonces[i] = winners[i].nonce;
    std::memcpy(s.hashes + size_t{i} * 32, winners[i].hash, 32);
  }
}

}  // namespace tesra
