#!/usr/bin/env bash
# Builds test/native/threads.cc and the sources it watches with ThreadSanitizer, and runs it: half a minute of compiling,
# seconds of running. The scalar kernels stand for all: the others differ within a task only.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
flags=(-std=c++17 -O1 -g -fsanitize=thread -ffp-contract=off -fno-math-errno -pthread)
for source in native/addon/executor native/cpu/{thread-pool,workspace,gemm,int8-gemm,exact-gemm,kernels-scalar} test/native/threads; do
  printf '%s\0%s\0' "$source.cc" "$work/$(basename "$source").o"
done | xargs -0 -n 2 -P "$(nproc)" bash -c 'g++ "${@:1:$#-2}" -c "${@: -2:1}" -o "${@: -1}"' _ "${flags[@]}"
g++ "${flags[@]}" "$work"/*.o -o "$work/threads"
TSAN_OPTIONS=halt_on_error=1 "$work/threads"
