# shellcheck shell=bash
# What run.sh does for `setup-peers`, `peers` and `tune`: environments, starts and stops, and the order of measurements.
# Its variables (here, venv, model, port, …) are run.sh's.
# shellcheck disable=SC2154

peer_names=${PEERS:-peregrine triton mosec fastapi-onnxruntime litserve ray fastapi-torch-tuned fastapi-torch}
scenarios='64-connections --connections 64
1-connection --connections 1
1000-connections --connections 1000
open-loop-1000 --connections 256 --rate 1000
open-loop-4000 --connections 256 --rate 4000'

setup_peers() {
  local list name environment
  for list in "$here"/serving/requirements-*.txt; do
    name=$(basename "$list" .txt)
    environment=$PEERS_BUILD/venv-${name#requirements-}
    cmp -s "$list" "$environment/installed.txt" && continue
    python3 -m venv "$environment"
    # The lists are whole: nothing is resolved, so that nothing unlisted (the GPU half of torch's needs) comes along.
    "$environment/bin/pip" install --quiet --no-deps --requirement "$list"
    cp "$list" "$environment/installed.txt"
  done
  setup_triton
}

# Triton wants its backends and models in folders of a certain form; the stub is the one of this Python's version.
setup_triton() {
  local server stub folder=$PEERS_BUILD/triton
  server=$(echo "$PEERS_BUILD"/venv-triton/lib/python3.*/site-packages/pytriton/tritonserver)
  stub=$server/python_backend_stubs/$("$venv/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  rm -rf "$folder"
  mkdir -p "$folder/backends/python" "$folder/models/$model/1"
  ln -s "$server"/backends/python/*triton_python* "$stub/triton_python_backend_stub" "$folder/backends/python/"
  cp "$here/serving/triton_repository/config.pbtxt" "$folder/models/$model/"
  cp "$here/serving/triton_repository/model.py" "$here/serving/common.py" "$folder/models/$model/1/"
}

# start_peer NAME: starts a server in the background; sets server_pid, started_at and path.
start_peer() {
  local log=$PEERS_BUILD/$1.log environment=() command=() python server
  path=/v2/models/$model/infer
  case $1 in
    peregrine) command=("$peregrine" serve --models "$PEERS_BUILD/models" --listen "127.0.0.1:$port" --backend cpu) ;;
    triton)
      server=$(echo "$PEERS_BUILD"/venv-triton/lib/python3.*/site-packages/pytriton/tritonserver)
      python=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_config_var("LIBDIR"))')
      # The stub finds its packages by the first Python on the path.
      environment=(PATH="$PEERS_BUILD/venv-triton/bin:$PATH" LD_LIBRARY_PATH="$python")
      command=("$server/bin/tritonserver" --model-repository="$PEERS_BUILD/triton/models"
        --backend-directory="$PEERS_BUILD/triton/backends" --http-address=127.0.0.1 --http-port="$port"
        --http-thread-count="${PEER_HTTP_THREADS:-8}" --allow-grpc=false --allow-metrics=false) ;;
    mosec) command=("$PEERS_BUILD/venv-mosec/bin/python" mosec_onnxruntime.py --address 127.0.0.1 --port "$port"
        --log-level error --capacity 8192) ;;
    ray)
      environment=(RAY_SERVE_THROUGHPUT_OPTIMIZED="${PEER_THROUGHPUT:-1}" RAY_SERVE_ENABLE_HA_PROXY="${PEER_HAPROXY:-1}")
      command=("$PEERS_BUILD/venv-ray/bin/python" ray_onnxruntime.py) ;;
    litserve) command=("$PEERS_BUILD/venv-litserve/bin/python" litserve_onnxruntime.py) ;;
    fastapi-onnxruntime) command=("$PEERS_BUILD/venv-fastapi-onnxruntime/bin/python" fastapi_onnxruntime.py) ;;
    fastapi-torch-tuned) command=("$PEERS_BUILD/venv-torch/bin/python" fastapi_torch_tuned.py) ;;
    fastapi-torch)
      path=/neural/predict
      command=("$PEERS_BUILD/venv-torch/bin/python" fastapi_torch.py) ;;
    *) echo "unknown server $1" >&2 && exit 2 ;;
  esac
  started_at=$EPOCHREALTIME
  # Compiled Python is kept between starts, as it is where servers are installed.
  ${cpus:+taskset -c "$cpus"} env -C "$here/serving" -u PYTHONDONTWRITEBYTECODE PEER_PORT="$port" "${environment[@]}" \
    "${command[@]}" >"$log" 2>&1 &
  server_pid=$!
}

# descendants PID: it and everything below it.
descendants() {
  local child
  echo "$1"
  for child in $(ps -o pid= --ppid "$1"); do descendants "$child"; done
}

# Ends the server and all that it started: three seconds for those that clean up, then not.
stop_peer() {
  [ -n "${server_pid:-}" ] || return 0
  local tree
  tree=$(descendants "$server_pid")
  kill -TERM "$server_pid" 2>/dev/null || true
  for _ in $(seq 30); do
    # shellcheck disable=SC2086
    ps -o pid= -p "$(echo $tree | tr ' ' ,)" >/dev/null || break
    sleep 0.1
  done
  # shellcheck disable=SC2086
  kill -KILL $tree 2>/dev/null || true
  wait "$server_pid" 2>/dev/null || true
  server_pid=
}

# Waits while others take more than a tenth of a core, at most QUIET_MAX seconds.
quiet() {
  local before after
  for _ in $(seq "$((${QUIET_MAX:-60} * 2))"); do
    before=$(busy_ticks)
    sleep 0.5
    after=$(busy_ticks)
    ((after - before > 5)) || return 0
  done
  echo "measured beside other work" >&2
}

# Ticks of 10 ms that all cores have worked: user, nice, system and interrupts.
busy_ticks() { awk '/^cpu / { print $2 + $3 + $4 + $7 + $8 }' /proc/stat; }

# measure_peer SCENARIO SERVER LOAD-ARGUMENTS…
measure_peer() {
  local scenario=$1 server=$2 load
  shift 2
  quiet
  start_peer "$server"
  load=(${cpus:+taskset -c "$cpus"} "$CARGO_TARGET_DIR/release/load" --address "127.0.0.1:$port" --path "$path"
    --cases "$PEERS_BUILD/cases" --window 256 --horizon 24)
  if "${load[@]}" --label "cold-start/$server" --started-at "$started_at" >>"$results"; then
    "${load[@]}" --pid "$server_pid" --seconds "$seconds" --label "$scenario/$server" "$@" >>"$results" ||
      echo "$scenario/$server: load failed, see the last line of $results" >&2
  else
    echo "$scenario/$server: no right answer, see $PEERS_BUILD/$server.log" >&2
  fi
  stop_peer
}

peers() {
  local order scenario arguments server turn
  results=$PEERS_BUILD/peers.jsonl
  : >"$results"
  trap stop_peer EXIT
  for round in $(seq "$rounds"); do
    turn=0
    while read -r scenario arguments; do
      # The order turns with each scenario and each round: a slow drift of the machine favours nobody.
      order=$peer_names
      (((turn + round) % 2)) || order=$(echo "$peer_names" | tr ' ' '\n' | tac)
      turn=$((turn + 1))
      for server in $order; do
        # shellcheck disable=SC2086
        measure_peer "$scenario" "$server" $arguments </dev/null
      done
    done <<<"$scenarios"
  done
  "$venv/bin/python" "$here/table_peers.py" "$results"
}

# tune NAME VARIABLE=VALUE…: one server with other settings (PEER_WORKERS, PEER_BATCH, …), three loads.
tune() {
  local name=$1 scenario arguments
  shift
  results=$PEERS_BUILD/tune.jsonl
  : >"$results"
  trap stop_peer EXIT
  # shellcheck disable=SC2163
  [ $# -eq 0 ] || export "$@"
  while read -r scenario arguments; do
    # shellcheck disable=SC2086
    measure_peer "$scenario" "$name" $arguments </dev/null
  done < <(head -n 3 <<<"$scenarios")
  echo "$name $*"
  "$venv/bin/python" "$here/table_peers.py" "$results" | grep "/s\|| $name |"
}
