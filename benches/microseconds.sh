#!/usr/bin/env bash
# What a kernel that stays answers in, on a machine with a GPU, and torch beside it: one run, about six minutes.
#
#   benches/microseconds.sh [REQUESTS]      of one row, 1,000,000 unless said
#
# Environment: BIN (a folder with the programs below; built when unset), TORCH (a Python that has torch; left out, and said
# so, when there is none), CPUS (0-11; a list for taskset that leaves out the CPU that takes the device's interrupt).
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
requests=${1:-1000000} cpus=${CPUS:-0-11} bin=${BIN:-}
if [ -z "$bin" ]; then
  cargo build --release --locked --example path
  cargo build --release --locked -p peregrine_shaders --example resident --example sliding
  bin=target/release/examples
fi
on() { taskset -c "$cpus" "$@"; }

echo "== N-HiTS, one, eight and 32 rows, then after pauses; every answer compared with one in f64"
on "$bin/resident" "$requests" --pauses --beside 20
echo "== stacked LSTM, sliding and whole windows, one and eight at once"
on "$bin/sliding" 2
echo "== a tick by websocket to its prediction, and a binary request, through the whole node"
PEREGRINE_MODELS__PROFILE=ultra_low_latency on "$bin/path" nhits-168x24-quantile gpu
echo "== torch: eager and CUDA graph"
if ${TORCH:-python3} -c 'import torch' 2>/dev/null; then
  ${TORCH:-python3} benches/peers/torch_gpu.py 0.2
  ${TORCH:-python3} benches/peers/torch_gpu.py 1 lstm
else
  echo "no torch in ${TORCH:-python3}: nothing to compare with" >&2
fi
