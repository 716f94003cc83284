#!/usr/bin/env bash
# Measures peregrine beside what else serves such models, on this machine: answers first, then kernels, then servers.
#
#   ./run.sh            everything (about 8 minutes when all is built)
#   ./run.sh setup      Python environment, models, graphs, builds
#   ./run.sh kernels    the criterion bench
#   ./run.sh cpu        the CPU executor beside ONNX Runtime, faer and torch in turns (after setup and setup-peers)
#   ./run.sh servers    the servers, alternating, and the table
#   ./run.sh runtime    the actor runtime beside other carriers of messages (needs no setup)
#   ./run.sh setup-peers   an environment of its own for each of what a user would pick (5 GB; after setup)
#   ./run.sh peers         those servers and peregrine, alternating: ratios, and what was to be reached
#   ./run.sh tune NAME VARIABLE=VALUE…   one of them at 1, 64 and 1,000 connections with other settings
#
# Environment: ROUNDS (2), SECONDS_EACH (4), PEER_GRAPH (plain | folded), OURS_BIN (built when unset),
# PEERS_BUILD (build/ beside this file), CPUS (a list for taskset that binds servers and load, e.g. 0,1),
# PEERS (names of servers), QUIET_MAX (60: seconds to wait before each measurement while others work).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
export PEERS_BUILD=${PEERS_BUILD:-$here/build}
export PYTHONDONTWRITEBYTECODE=1
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PEERS_BUILD/target}
rounds=${ROUNDS:-2} seconds=${SECONDS_EACH:-4} graph=${PEER_GRAPH:-plain} cpus=${CPUS:-}
peregrine=${OURS_BIN:-$root/target/release/peregrine}
venv=$PEERS_BUILD/venv model=serve-256x24-point results=$PEERS_BUILD/results.jsonl
port=${PORT:-9201}

setup() {
  mkdir -p "$PEERS_BUILD"
  if ! cmp -s "$here/requirements.txt" "$venv/installed.txt"; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --requirement "$here/requirements.txt"
    cp "$here/requirements.txt" "$venv/installed.txt"
  fi
  "$venv/bin/python" "$here/make_model.py" "$PEERS_BUILD/models" 256x24 "$PEERS_BUILD/cases"
  "$venv/bin/python" "$here/make_model.py" "$PEERS_BUILD/models-cpu" 512x96
  "$venv/bin/python" "$here/export.py" "$PEERS_BUILD/models/$model" "$PEERS_BUILD" --folded --scaled
  "$venv/bin/python" "$here/export.py" "$root/models/nhits-168x24-quantile" "$PEERS_BUILD" --folded
  "$venv/bin/python" "$here/export.py" "$PEERS_BUILD/models-cpu/serve-512x96-point" "$PEERS_BUILD" --folded
  (cd "$here" && cargo build --release --locked --bins)
  [ -n "${OURS_BIN:-}" ] || (cd "$root" && cargo build --release --locked --bin peregrine --target-dir target)
}

find_runtime() {
  ORT_DYLIB_PATH=$(ls "$venv"/lib/python3*/site-packages/onnxruntime/capi/libonnxruntime.so.* | head -n 1)
  export ORT_DYLIB_PATH
}

kernels() {
  find_runtime
  (cd "$here" && cargo bench --locked -p peer_onnxruntime --bench cpu)
}

cpu() {
  find_runtime
  (cd "$here" && cargo build --release --locked -p peer_cpu)
  TORCH_PYTHON=$PEERS_BUILD/venv-torch/bin/python TORCH_PEER=$here/torch_cpu.py \
    "$CARGO_TARGET_DIR/release/peer_cpu" "$rounds" "$PEERS_BUILD/models-cpu/serve-512x96-point" "$root/models/nhits-168x24-quantile"
}

# serve NAME: starts a server in the background; sets server_pid once it is ready.
serve() {
  local log=$PEERS_BUILD/$1.log suffix=
  [ "$graph" = plain ] || suffix=.$graph
  case $1 in
    onnxruntime) set -- "$CARGO_TARGET_DIR/release/serve_ort" "$PEERS_BUILD/$model$suffix.onnx" "$model" "127.0.0.1:$port" ;;
    peregrine) set -- "$peregrine" serve --models "$PEERS_BUILD/models" --listen "127.0.0.1:$port" --backend cpu ;;
  esac
  ${cpus:+taskset -c "$cpus"} "$@" >"$log" 2>&1 &
  server_pid=$!
  for _ in $(seq 300); do
    if grep -q '^ready' "$log"; then return; fi
    kill -0 "$server_pid" 2>/dev/null || break
    sleep 0.1
  done
  echo "server does not get ready:" >&2
  cat "$log" >&2
  exit 1
}

# measure SCENARIO SERVER LOAD-ARGUMENTS…
measure() {
  local scenario=$1 server=$2
  shift 2
  serve "$server"
  ${cpus:+taskset -c "$cpus"} "$CARGO_TARGET_DIR/release/load" --address "127.0.0.1:$port" \
    --path "/v2/models/$model/infer" --cases "$PEERS_BUILD/cases" --window 256 --horizon 24 \
    --pid "$server_pid" --seconds "$seconds" --label "$scenario/$server" "$@" >>"$results" ||
    echo "$scenario/$server: load failed, see the last line of $results" >&2
  kill "$server_pid"
  wait "$server_pid" 2>/dev/null || true
  server_pid=
}

servers() {
  find_runtime
  : >"$results"
  trap '[ -z "${server_pid:-}" ] || kill "$server_pid" 2>/dev/null' EXIT
  local order scenario arguments server
  for round in $(seq "$rounds"); do
    # Each round turns the order, so that a slow drift of the machine favours nobody.
    if ((round % 2)); then order="onnxruntime peregrine"; else order="peregrine onnxruntime"; fi
    while read -r scenario arguments; do
      for server in $order; do
        # shellcheck disable=SC2086
        measure "$scenario" "$server" $arguments </dev/null
      done
    done <<'SCENARIOS'
64-connections --connections 64
1-connection --connections 1
1000-windows-json --connections 4 --body json:1000
1000-windows-binary --connections 4 --body binary:1000
1000-connections --connections 1000
open-loop-4000 --connections 256 --rate 4000
SCENARIOS
  done
  "$venv/bin/python" "$here/table.py" "$results" "$graph"
}

runtime() {
  (cd "$here" && cargo build --release --locked -p peer_runtime)
  ${cpus:+taskset -c "$cpus"} "$CARGO_TARGET_DIR/release/peer_runtime" local "$rounds"
  ${cpus:+taskset -c "$cpus"} "$CARGO_TARGET_DIR/release/peer_runtime" remote "$rounds" "$seconds"
}

. "$here/serving/peers.sh"

case ${1:-all} in
  setup) setup ;;
  kernels) kernels ;;
  cpu) cpu ;;
  servers) servers ;;
  runtime) runtime ;;
  setup-peers) setup_peers ;;
  peers) peers ;;
  tune) shift && tune "$@" ;;
  all) setup && kernels && servers ;;
  *) sed -n '2,17p' "$0" && exit 2 ;;
esac
