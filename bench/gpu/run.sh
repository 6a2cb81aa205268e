#!/usr/bin/env bash
# Checks and times the CUDA back end on this machine's GPU and writes one JSON file. README.md says how to use it.
# Usage: bench/gpu/run.sh [RESULT.json]   exit: 0 all agree, 1 a check or step failed, 2 a tool is missing, 3 no GPU
#        bench/gpu/run.sh build           builds alone, without a GPU, for a machine that has one
# Invariant: every step is bounded in time and writes its own files; whatever fails, is skipped or is cut short, the
# result holds what the others gave.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 2
work=${TESRA_GPU_WORK:-build/gpu}
rounds=${TESRA_GPU_ROUNDS:-20}
limit=${TESRA_GPU_SECONDS:-570} # a machine at hand gives ten minutes a command
report_s=10                     # kept back for the report
building=false
[ "${1:-}" = build ] && building=true
result=bench/results/gpu-$(date +%F).json
$building || result=${1:-$result}

say() { printf 'gpu: %s\n' "$*"; }
give_up() { say "$2" >&2; exit "$1"; }
left() { echo $((limit - report_s - SECONDS)); }

# A missing GPU is found before anything is built.
if ! $building; then
  if command -v nvidia-smi >/dev/null; then
    listing=$(nvidia-smi -L 2>&1) && grep -q '^GPU' <<<"$listing" || give_up 3 "no GPU: nvidia-smi says: ${listing:-nothing}"
  elif ! ldconfig -p 2>/dev/null | grep -q 'libcuda\.so'; then
    give_up 3 "no GPU: there is neither nvidia-smi nor the driver's library libcuda.so"
  fi
fi
nvcc=$(command -v nvcc || ls /usr/local/cuda/bin/nvcc 2>/dev/null)
node=${TESRA_NODE:-$([ -x /tmp/node ] && echo /tmp/node || command -v node)}
[ -n "$node" ] || give_up 2 "node is missing: put it on the PATH or at /tmp/node"

sm=$($building || nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -1 | tr -d '. ')
sm=${sm:-90}
[ "$sm" -ge 80 ] || give_up 3 "no usable GPU: compute capability 8.0 or newer is needed, this one has $sm"
[ "$sm" = 90 ] && arch=90a || arch=$sm # 90a: Hopper's own instructions
mkdir -p "$work" "$(dirname "$result")"
rm -f "$work"/*.txt "$work"/*.status "$work"/*.seconds

# step NAME BOUND COMMAND...: output to NAME.txt, exit code to NAME.status; at most BOUND seconds and what is left.
step() {
  local name=$1 bound=$2 start=$SECONDS code
  shift 2
  [ "$(left)" -lt "$bound" ] && bound=$(left)
  if [ "$bound" -lt 5 ]; then
    echo "skipped: no time was left" >"$work/$name.txt"
    code=124
  else
    timeout -k 5 "$bound" "$@" >"$work/$name.txt" 2>&1
    code=$?
    [ "$code" = 124 ] && echo "cut short after $bound s" >>"$work/$name.txt"
  fi
  echo "$code" >"$work/$name.status"
  echo $((SECONDS - start)) >"$work/$name.seconds"
  say "$name: exit $code, $((SECONDS - start)) s: $(tail -1 "$work/$name.txt" | cut -c1-150)"
  return "$code"
}

failed=0
write_report() {
  trap - EXIT INT TERM
  if command -v nvidia-smi >/dev/null; then
    nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.mem,temperature.gpu,power.draw --format=csv >"$work/machine.txt" 2>&1
  fi
  [ -n "$nvcc" ] && "$nvcc" --version | tail -2 >"$work/nvcc.txt"
  "$node" bench/gpu/report.mjs "$work" "$result" || failed=1
  exit "$failed"
}

build() {
  local programs=(check kernel-time) jobs kernels flags program host
  jobs=$(nproc)
  cmake -S . -B "$work/addon" -DCMAKE_BUILD_TYPE=Release -DTESRA_CUDA_ARCHS="$arch-real" -DCMAKE_CUDA_COMPILER="$nvcc" \
    -DCMAKE_JS_INC="$PWD/node_modules/node-addon-api;$PWD/node_modules/node-api-headers/include" &&
    cmake --build "$work/addon" --parallel "$jobs" || return 1
  cp "$(find "$work/addon" -name tesra_native.node | head -1)" "$work/tesra_native.node" || return 1
  # The programs take the addon's own objects.
  kernels=$(find "$work/addon" -path '*native/cuda/*.o')
  host=$(for name in portable finish keccak blake256 groestl256 jh256 skein256; do
    find "$work/addon" -path "*native/cpu/cn2/$name.cc.o"
  done)
  flags=(-std=c++17 -O3 -fmad=false -Xcompiler -ffp-contract=off -gencode "arch=compute_$arch,code=sm_$arch")
  "$nvcc" "${flags[@]}" -x cu -c native/cuda/emulator/check.cc -o "$work/check.o" &&
    "$nvcc" "${flags[@]}" -x cu -c bench/gpu/kernel-time.cu -o "$work/kernel-time.o" || return 1
  for program in "${programs[@]}"; do
    # shellcheck disable=SC2086
    "$nvcc" "${flags[@]}" -cudart static -o "$work/$program" $kernels $host "$work/$program.o" || return 1
  done
  echo "$arch" >"$work/built" # last: what lies there is whole
}

if [ "${TESRA_GPU_BUILT:-}" = 1 ]; then
  [ "$(cat "$work/built" 2>/dev/null)" = "$arch" ] || give_up 2 "$work holds no build for sm_$arch: run bench/gpu/run.sh build"
else
  [ -n "$nvcc" ] || give_up 2 "nvcc is missing: install the CUDA toolkit, or carry $work and set TESRA_GPU_BUILT=1"
  command -v cmake >/dev/null || give_up 2 "cmake is missing"
  for package in node-addon-api node-api-headers; do
    [ -d "node_modules/$package" ] || give_up 2 "node_modules/$package is missing: copy it along, or run npm ci"
  done
  rm -f "$work/built"
  export -f build
  export work arch nvcc
  say "building for sm_$arch with $(nproc) jobs"
  $building && limit=3600
  step build 400 bash -c build || { tail -20 "$work/build.txt" >&2; failed=1; }
  $building && exit "$failed"
fi
trap 'failed=1; write_report' INT TERM
trap write_report EXIT
hopper=(env TESRA_HOPPER=1)
addon=$work/tesra_native.node

if [ -x "$work/check" ]; then
  step check-1 60 "$work/check" 1 "$rounds" large || failed=1
  [ "$(cat "$work/check-1.status")" = 4 ] && failed=3 && give_up 3 "$(tail -1 "$work/check-1.txt")"
  [ "$arch" = 90a ] && { step check-hopper 60 "${hopper[@]}" "$work/check" 4 "$rounds" large || failed=1; }
  step check-2 40 "$work/check" 2 "$rounds" || failed=1
fi
if [ -f "$addon" ]; then
  step check-addon 60 "$node" bench/gpu/check.mjs --addon="$addon" --rounds="$rounds" || failed=1
  [ "$arch" = 90a ] && { step check-addon-hopper 40 "${hopper[@]}" "$node" bench/gpu/check.mjs --addon="$addon" --seed=2 --rounds=5 || failed=1; }
fi
if [ -x "$work/kernel-time" ]; then
  step kernel-time 60 "$work/kernel-time" || failed=1
  [ "$arch" = 90a ] && { step kernel-time-hopper 30 "${hopper[@]}" "$work/kernel-time" tensor || failed=1; }
fi
step peers 100 python3 bench/gpu/peers.py || say "no peers, or not all of them"
if [ -f "$addon" ]; then
  step gpt 60 "${hopper[@]}" "$node" bench/gpu/gpt.mjs --addon="$addon" || failed=1
  step addon-time 40 "$node" bench/gpu/time.mjs --addon="$addon" || failed=1
fi
if command -v compute-sanitizer >/dev/null; then
  sanitizer=(compute-sanitizer --error-exitcode 9)
  if [ -x "$work/check" ]; then
    step memcheck 60 "${sanitizer[@]}" --tool memcheck "$work/check" 5 1 small || failed=1
    step racecheck 60 "${sanitizer[@]}" --tool racecheck "$work/check" 6 1 small || failed=1
    [ "$arch" = 90a ] && { step memcheck-hopper 40 "${hopper[@]}" "${sanitizer[@]}" --tool memcheck "$work/check" 7 1 small || failed=1; }
  fi
  [ -f "$addon" ] && { step memcheck-addon 60 "${sanitizer[@]}" --tool memcheck "$node" bench/gpu/check.mjs --addon="$addon" --short --rounds=1 || failed=1; }
else
  say "compute-sanitizer is missing: memory and races go unchecked"
fi
