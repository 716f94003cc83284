#!/bin/sh
# What a Machine is told by the platform, as configuration of the node. What is set already stays: elsewhere than on
# Fly nothing is added. Then the node takes this process's place, so that it is the one that signals reach.
set -eu

if [ -n "${FLY_MACHINE_ID:-}" ]; then
    # The Machine's id outlives its address, which is read anew at each start (FLY_PRIVATE_IP, by the node itself).
    export PEREGRINE_NODE__NAME="${PEREGRINE_NODE__NAME:-$FLY_MACHINE_ID}"
    export PEREGRINE_NODE__REGION="${PEREGRINE_NODE__REGION:-${FLY_REGION:?is not set, but FLY_MACHINE_ID is}}"
    app="${FLY_APP_NAME:?is not set, but FLY_MACHINE_ID is}"
    export PEREGRINE_CLUSTER__SEEDS="${PEREGRINE_CLUSTER__SEEDS:-[\"$app.internal:7946\"]}"
fi

# A secret is a variable, a file of keys is a file: only hashes are in it.
if [ -n "${API_KEYS:-}" ]; then
    keys="${STATE_DIR:-/var/lib/peregrine}/keys.toml"
    (umask 077 && printf '%s\n' "$API_KEYS" >"$keys")
    export PEREGRINE_SECURITY__KEYS="${PEREGRINE_SECURITY__KEYS:-$keys}"
    unset API_KEYS
fi

exec "${PEREGRINE:-/usr/local/bin/peregrine}" "$@"
