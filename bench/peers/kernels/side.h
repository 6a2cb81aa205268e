// Owns the talk of a C++ side with bench/kernels/suite.mjs: one case a line in, one figure a line out.
// Invariant: a case is prepared once and kept until another comes; only its body is timed.
#pragma once
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

namespace side {

// A flat JSON object of numbers and plain strings, which is all that the suite sends.
struct Case {
  std::string text;

  double number(const char* key, double fallback = 0) const {
    const size_t at = text.find("\"" + std::string(key) + "\":");
    return at == std::string::npos ? fallback : std::atof(text.c_str() + at + std::string(key).size() + 3);
  }
  int integer(const char* key, int fallback = 0) const { return static_cast<int>(number(key, fallback)); }
  std::string word(const char* key) const {
    const std::string start = "\"" + std::string(key) + "\":\"";
    const size_t at = text.find(start);
    if (at == std::string::npos) return "";
    const size_t from = at + start.size();
    return text.substr(from, text.find('"', from) - from);
  }
};

// An empty body says that this side has no such operation. `work` is what one run does, where the suite cannot know.
struct Body {
  Body(std::nullptr_t = nullptr) {}
  template <class F>
  Body(F f, double w = 0) : run(std::move(f)), work(w) {}
  std::function<void()> run;
  double work = 0;
};
using Prepare = std::function<Body(const Case&)>;

// Uninitialised, on a cache line's boundary.
template <class T>
std::shared_ptr<T> buffer(size_t count) {
  const size_t bytes = (count * sizeof(T) + 4095) / 4096 * 4096;
  return std::shared_ptr<T>(static_cast<T*>(std::aligned_alloc(4096, bytes ? bytes : 4096)), std::free);
}

inline std::shared_ptr<float> random_floats(size_t count) {
  auto out = buffer<float>(count);
  uint32_t state = 1;
  for (size_t i = 0; i < count; ++i) {
    state = state * 1664525u + 1013904223u;
    out.get()[i] = static_cast<float>(static_cast<int32_t>(state)) / 2147483648.0f;
  }
  return out;
}

inline std::shared_ptr<int8_t> random_bytes(size_t count) {
  auto out = buffer<int8_t>(count);
  uint32_t state = 1;
  for (size_t i = 0; i < count; ++i) {
    state = state * 1664525u + 1013904223u;
    out.get()[i] = static_cast<int8_t>(state >> 24);
  }
  return out;
}

// Median seconds a run, of batches of at least a millisecond.
inline double measure(const std::function<void()>& body, double seconds) {
  using clock = std::chrono::steady_clock;
  const auto since = [](clock::time_point t) { return std::chrono::duration<double>(clock::now() - t).count(); };
  body();
  auto start = clock::now();
  body();
  const int batch = std::max(1, static_cast<int>(1e-3 / std::max(1e-9, since(start))));
  std::vector<double> times;
  const auto begin = clock::now();
  do {
    start = clock::now();
    for (int i = 0; i < batch; ++i) body();
    times.push_back(since(start) / batch);
  } while (since(begin) < seconds);
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  return times[times.size() / 2];
}

inline int serve(const std::string& version, const Prepare& prepare) {
  std::printf("{\"version\":\"%s\"}\n", version.c_str());
  std::fflush(stdout);
  std::string line, prepared;
  Body body;
  while (std::getline(std::cin, line)) {
    if (line != prepared) {
      body = nullptr;
      try {
        body = prepare({line});
      } catch (const std::exception& e) {
        std::fprintf(stderr, "%s\n", e.what());
      }
      prepared = line;
    }
    if (body.run)
      std::printf("{\"seconds\":%.9g,\"work\":%.9g}\n", measure(body.run, Case{line}.number("seconds", 0.1)), body.work);
    else std::printf("{\"reason\":\"no such operation here\"}\n");
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace side
