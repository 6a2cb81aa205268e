#!/usr/bin/env bash
# Checks and times the CUDA back end on this machine's GPU and writes one JSON file. README.md says how to use it.
# Usage: bench/gpu/run.sh [RESULT.json]        exit: 0 all agree, 1 a check failed, 2 a tool is missing, 3 no GPU
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 2
result=${1:-bench/results/gpu-$(date +%F).json}
work=${TESRA_GPU_WORK:-build/gpu}
rounds=${TESRA_GPU_ROUNDS:-20}

say() { printf 'gpu: %s\n' "$*"; }
give_up() { say "$2" >&2; exit "$1"; }

# A missing GPU is found before anything is built.
if command -v nvidia-smi >/dev/null; then
  listing=$(nvidia-smi -L 2>&1) && grep -q '^GPU' <<<"$listing" || give_up 3 "no GPU: nvidia-smi says: ${listing:-nothing}"
elif ! ldconfig -p 2>/dev/null | grep -q 'libcuda\.so'; then
  give_up 3 "no GPU: there is neither nvidia-smi nor the driver's library libcuda.so"
fi
nvcc=$(command -v nvcc || ls /usr/local/cuda/bin/nvcc 2>/dev/null) || give_up 2 "nvcc is missing: install the CUDA toolkit"
command -v cmake >/dev/null || give_up 2 "cmake is missing"
node=${TESRA_NODE:-$( [ -x /tmp/node ] && echo /tmp/node || command -v node )}
[ -n "$node" ] || give_up 2 "node is missing: put it on the PATH or at /tmp/node"
for package in node-addon-api node-api-headers; do
  [ -d "node_modules/$package" ] || give_up 2 "node_modules/$package is missing: copy it along, or run npm ci"
done

sm=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -1 | tr -d '. ')
sm=${sm:-90}
[ "$sm" -ge 80 ] || give_up 3 "no usable GPU: compute capability 8.0 or newer is needed, this one has $sm"
[ "$sm" = 90 ] && arch=90a || arch=$sm # 90a: Hopper's own instructions
rm -rf "$work/objects" "$work"/*.json "$work"/*.txt
mkdir -p "$work/objects" "$(dirname "$result")"
jobs=$(nproc)
failed=0

say "building for sm_$arch with $jobs jobs"
begin=$SECONDS
cmake -S . -B "$work/addon" -DCMAKE_BUILD_TYPE=Release -DTESRA_CUDA_ARCHS="$arch-real" -DCMAKE_CUDA_COMPILER="$nvcc" \
  -DCMAKE_JS_INC="$PWD/node_modules/node-addon-api;$PWD/node_modules/node-api-headers/include" \
  >"$work/build.txt" 2>&1 && cmake --build "$work/addon" --parallel "$jobs" >>"$work/build.txt" 2>&1 ||
  { tail -20 "$work/build.txt" >&2; give_up 1 "the addon does not build; see $work/build.txt"; }
addon=$(find "$work/addon" -name tesra_native.node | head -1)
flags=(-std=c++17 -O3 -fmad=false -Xcompiler -ffp-contract=off -gencode "arch=compute_$arch,code=sm_$arch")
printf '%s\n' native/cuda/*.cu native/cuda/emulator/check.cc bench/gpu/kernel-time.cu |
  xargs -P "$jobs" -I{} sh -c '"$0" "$@" -x cu -c {} -o '"$work"'/objects/$(basename {}).o' "$nvcc" "${flags[@]}" \
    >>"$work/build.txt" 2>&1 || { tail -20 "$work/build.txt" >&2; give_up 1 "the kernels do not build; see $work/build.txt"; }
kernels=$(ls "$work"/objects/*.cu.o | grep -v kernel-time)
# shellcheck disable=SC2086
"$nvcc" "${flags[@]}" -cudart static -o "$work/check" $kernels "$work/objects/check.cc.o" &&
  "$nvcc" "${flags[@]}" -cudart static -o "$work/kernel-time" $kernels "$work/objects/kernel-time.cu.o" ||
  give_up 1 "the programs do not link"
build_seconds=$((SECONDS - begin))

# Runs one step: name, then the command; output to NAME.txt, verdict to NAME.status.
step() {
  local name=$1 start=$SECONDS code
  shift
  "$@" >"$work/$name.txt" 2>&1
  code=$?
  echo "$code" >"$work/$name.status"
  say "$name: exit $code, $((SECONDS - start)) s: $(tail -1 "$work/$name.txt" | cut -c1-150)"
  return $code
}
rm -f "$work"/*.status
for seed in 1 2 3; do
  step "check-$seed" "$work/check" $seed "$rounds" large || failed=1
  [ "$(cat "$work/check-$seed.status")" = 4 ] && give_up 3 "$(tail -1 "$work/check-$seed.txt")"
done
[ "$arch" = 90a ] && { step check-hopper env TESRA_HOPPER=1 "$work/check" 4 "$rounds" large || failed=1; }
step check-addon "$node" bench/gpu/check.mjs --addon="$addon" --rounds="$rounds" || failed=1
if command -v compute-sanitizer >/dev/null; then
  step memcheck compute-sanitizer --tool memcheck --error-exitcode 9 "$work/check" 5 2 || failed=1
  step racecheck compute-sanitizer --tool racecheck --error-exitcode 9 "$work/check" 6 1 || failed=1
  step memcheck-addon compute-sanitizer --tool memcheck --error-exitcode 9 "$node" bench/gpu/check.mjs --addon="$addon" --short --rounds=1 || failed=1
else
  say "compute-sanitizer is missing: memory and races go unchecked"
fi
# Times mean nothing where the bits are wrong.
if [ "$failed" = 0 ]; then
  step kernel-time "$work/kernel-time" || failed=1
  [ "$arch" = 90a ] && { step kernel-time-hopper env TESRA_HOPPER=1 "$work/kernel-time" || failed=1; }
  step addon-time "$node" bench/gpu/time.mjs --addon="$addon" || failed=1
  step peers python3 bench/gpu/peers.py || say "no peers on this machine"
fi
nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.mem,temperature.gpu,power.draw --format=csv >"$work/machine.txt" 2>&1
"$nvcc" --version | tail -2 >"$work/nvcc.txt"
"$node" bench/gpu/report.mjs "$work" "$result" "$build_seconds" || failed=1
exit "$failed"
