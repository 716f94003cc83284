#!/usr/bin/env bash
# Whether a node answers as its own description says: schemathesis over /openapi.json, bounded. Needs Python, and the network
# the first time: tests/contract.sh [EXAMPLES] [SEED]
set -euo pipefail
cd "$(dirname "$0")/.."

examples=${1:-40} seed=${2:-7}
venv=$PWD/target/schemathesis

# Exits like a success: what this machine lacks is no fault of the product. But it is said.
not_run() {
    echo "tests/contract.sh: NOT RUN: $1" >&2
    exit 0
}
can_make_venv() { python3 -c 'import ensurepip, venv' 2>/dev/null; }

if ! cmp -s tests/contract.txt "$venv/installed"; then
    if ! can_make_venv && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv; } ||
            not_run "apt-get cannot install python3-venv"
    fi
    can_make_venv || not_run "it needs Python with venv: as root, apt-get install python3-venv"
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --no-input --retries 3 --timeout 20 -r tests/contract.txt ||
        not_run "tests/contract.txt cannot be installed from the registry of Python packages"
    cp tests/contract.txt "$venv/installed"
fi

# With what the tests build, so that behind them nothing is left to build.
cargo test --quiet --release --workspace --locked --no-run --test integration
work=$(mktemp -d)
# A member of a cluster of its own that keeps records and scales nothing: there is something behind every path.
PEREGRINE_DEMO__RATE=0 PEREGRINE_LOG__FILTER=error PEREGRINE_AUDIT__DIR=$work/audit PEREGRINE_SCALER__DIR=$work/scaler \
    PEREGRINE_SCALER__ENABLED=true PEREGRINE_SCALER__DRY_RUN=true PEREGRINE_CLUSTER__LISTEN=127.0.0.1:0 \
    PEREGRINE_CLUSTER__SECRET=for-this-run-alone-0123456789abcdef \
    ./target/release/peregrine serve --listen 127.0.0.1:0 --backend cpu >"$work/log" &
node=$!
trap 'kill $node 2>/dev/null; wait $node 2>/dev/null || true; rm -rf "$work"' EXIT
eventually() {
    for _ in $(seq 300); do
        "$@" && return
        kill -0 $node || { echo "tests/contract.sh: the node ended" >&2; exit 1; }
        sleep 0.1
    done
    echo "tests/contract.sh: still not so after 30 s: $*" >&2
    exit 1
}
eventually grep -q '^ready ' "$work/log"
url=$(sed -n 's/^ready //p' "$work/log")
eventually curl -sfo /dev/null "$url/v1/scaler/report"

# Two minutes at most, however slow the machine is.
PYTHONPATH=tests "$venv/bin/schemathesis" --config-file tests/contract.toml run "$url/openapi.json" --url "$url" \
    --max-examples "$examples" --seed "$seed" --max-time 100 --request-timeout 20 --warnings off \
    --checks not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance
kill -0 $node || { echo "tests/contract.sh: the node did not survive it" >&2; exit 1; }
