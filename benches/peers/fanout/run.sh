#!/usr/bin/env bash
# Fan-out of one stream to many websockets, each server fresh for each round, the order turned each round.
# ROUNDS=3 SECONDS_EACH=10 SERVERS="peregrine actix_ws tungstenite bun" SUBSCRIBERS="1000 10000" ./run.sh
set -euo pipefail
cd "$(dirname "$0")"
ulimit -n "$(ulimit -Hn)"

rate=${RATE:-100}
servers=(${SERVERS:-peregrine actix_ws tungstenite bun})
if [ "${BUILD:-1}" = 1 ]; then
    cargo build --release
    (cd ../../.. && cargo build --release --example fanout)
    [ -x node_modules/.bin/bun ] || npm install
fi

start() {
    case $1 in
        peregrine) (cd ../../.. && exec ./target/release/examples/fanout "$rate" "$go") ;;
        bun) exec ./node_modules/bun/bin/bun.exe bun.js "$rate" "$go" ;;
        *) exec "./target/release/$1" "$rate" "$go" ;;
    esac
}

for round in $(seq "${ROUNDS:-3}"); do
    for count in ${SUBSCRIBERS:-1000 10000}; do
        for place in $(seq 0 $((${#servers[@]} - 1))); do
            server=${servers[$(((place + round) % ${#servers[@]}))]}
            out=$(mktemp) go=$(mktemp -u)
            start "$server" >"$out" 2>/dev/null &
            pid=$!
            until grep -q ready "$out"; do sleep 0.1; done
            port=$(grep -o 'ready [0-9]*' "$out" | cut -d' ' -f2)
            child=$(pgrep -P "$pid" || true)
            printf 'load %s  %-11s ' "$(cut -d' ' -f1 /proc/loadavg)" "$server"
            ./target/release/load "$go" "$port" "${child:-$pid}" "$count" "$rate" "${SECONDS_EACH:-10}" ${STOPPED:-}
            kill "$pid" ${child:-} 2>/dev/null || true
            wait "$pid" 2>/dev/null || true
            rm -f "$out" "$go"
        done
    done
done
