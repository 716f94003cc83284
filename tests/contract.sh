#!/usr/bin/env bash
# Whether a node answers as its own description says: schemathesis over /openapi.json, bounded. Needs Python and the network the
# first time, so it is run by hand: tests/contract.sh [EXAMPLES] [SEED]
set -euo pipefail
cd "$(dirname "$0")/.."

examples=${1:-15} seed=${2:-7}
venv=target/schemathesis
if [ ! -x "$venv/bin/schemathesis" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet schemathesis==4.32.5
fi
cargo build --release --locked --bin peregrine
log=$(mktemp)
PEREGRINE_DEMO__RATE=0 PEREGRINE_LOG__FILTER=error \
    ./target/release/peregrine serve --listen 127.0.0.1:0 --backend cpu >"$log" &
node=$!
trap 'kill $node; rm -f "$log"' EXIT
for _ in $(seq 100); do
    grep -q '^ready ' "$log" && break
    kill -0 $node
    sleep 0.1
done
url=$(sed -n 's/^ready //p' "$log")
# Websockets speak no HTTP; ticks (NDJSON) and configurations (TOML) are not made by this tool.
"$venv/bin/schemathesis" run "$url/openapi.json" --url "$url" --max-examples "$examples" --seed "$seed" \
    --checks not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance \
    --exclude-path /v1/stream --exclude-path /v1/echo --exclude-path /v1/ticks \
    --exclude-path-regex '^/v1/config$' --request-timeout 20
