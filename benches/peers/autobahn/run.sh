#!/usr/bin/env bash
# All cases of Autobahn's fuzzing client against /v1/echo of a node built for release. Needs Python 2.7 with
# requirements.txt installed, and says which cases did not pass; exit 1 if there are any.
set -euo pipefail
cd "$(dirname "$0")/../../.."

python=${PYTHON2:-python2}
PEREGRINE_SERVER__LISTEN=127.0.0.1:18090 PEREGRINE_BACKEND__CHOICE=cpu \
    ./target/release/peregrine serve >/dev/null 2>&1 &
cd benches/peers/autobahn
trap 'kill $! 2>/dev/null' EXIT
for _ in $(seq 100); do
    if (exec 3<>/dev/tcp/127.0.0.1/18090) 2>/dev/null; then break; fi
    sleep 0.1
done

rm -rf reports
"$python" -m autobahntestsuite.wstest -m fuzzingclient -s fuzzingclient.json >/dev/null
"$python" - <<'PY'
import json, sys
cases = json.load(open("reports/index.json"))["peregrine"]
good = ("OK", "INFORMATIONAL", "NON-STRICT")
bad = sorted(case for case, seen in cases.items() if seen["behavior"] not in good or seen["behaviorClose"] not in good)
print("%d cases, %d strictly passed, %d failed %s" % (
    len(cases), sum(seen["behavior"] == "OK" for seen in cases.values()), len(bad), " ".join(bad)))
sys.exit(1 if bad or not cases else 0)
PY
