"""Prints what `run.sh servers` measured: ratios first, then the figures behind them.

    table.py RESULTS.jsonl [GRAPH]

Medians over the rounds, with the span of the rounds' requests per second. In the first table above 1 is better for
peregrine: its throughput over the peer's, and the peer's latency, processor time and memory over its own.
"""

import json
import os
import platform
import statistics
import sys
from collections import defaultdict

PEER, OURS = "onnxruntime", "peregrine"


def main() -> None:
    """Reads the lines, groups them by scenario and server."""
    runs = defaultdict(list)
    with open(sys.argv[1]) as lines:
        for line in lines:
            run = json.loads(line)
            scenario, server = run["label"].rsplit("/", 1)
            runs[scenario, server].append(run)
    graph = sys.argv[2] if len(sys.argv) > 2 else "plain"
    scenarios = list(dict.fromkeys(scenario for scenario, _ in runs))
    both = [s for s in scenarios if (s, PEER) in runs and (s, OURS) in runs]

    print(f"peregrine against actix-web + ONNX Runtime ({graph} graph), {len(os.sched_getaffinity(0))} cores, "
          f"{platform.machine()}, {max(map(len, runs.values()))} rounds; above 1 peregrine is better\n")
    print("| scenario | throughput | p50 | p99 | processor time | memory |\n|---|---|---|---|---|---|")
    for scenario in both:
        peer, ours = runs[scenario, PEER], runs[scenario, OURS]
        better = [ratio(ours, peer, "requests_per_s")]
        better += [ratio(peer, ours, key) for key in
                   ("p50_ms", "p99_ms", "server_cpu_us_per_request", "server_rss_mib")]
        print(f"| {scenario} | " + " | ".join(better) + " |")

    print("\n| scenario | server | requests/s (span) | windows/s | p50 ms | p99 ms | max ms | µs processor/request "
          "| cores | RSS MiB | starved | oldest ms | refused | broken | worst error |")
    print("|---" * 15 + "|")
    for scenario in scenarios:
        for server in (PEER, OURS):
            if (scenario, server) in runs:
                print(row(scenario, server, runs[scenario, server]))


def middle(runs: list, key: str) -> float:
    """Median over rounds."""
    return statistics.median(run[key] for run in runs)


def ratio(above: list, below: list, key: str) -> str:
    """Quotient of medians, for people."""
    divisor = middle(below, key)
    return f"{middle(above, key) / divisor:.2f}" if divisor else "–"


def row(scenario: str, server: str, runs: list) -> str:
    """One line of figures."""
    rates = [run["requests_per_s"] for run in runs]
    worst = max(run["worst_error"] for run in runs)
    sums = [str(sum(run[key] for run in runs)) for key in ("refused", "broken")]
    starved, oldest = max(run["starved"] for run in runs), max(run["oldest_waiting_ms"] for run in runs)
    checked = f"{worst:.0e}" + (" WRONG" if any(run["wrong"] for run in runs) else "")
    cells = [scenario, server, f"{middle(runs, 'requests_per_s'):,.0f} ({min(rates):,.0f}–{max(rates):,.0f})",
             f"{middle(runs, 'windows_per_s'):,.0f}", f"{middle(runs, 'p50_ms'):.3f}", f"{middle(runs, 'p99_ms'):.2f}",
             f"{middle(runs, 'max_ms'):.1f}", f"{middle(runs, 'server_cpu_us_per_request'):,.1f}",
             f"{middle(runs, 'server_cores'):.2f}", f"{middle(runs, 'server_rss_mib'):.0f}", str(starved),
             f"{oldest:.1f}", *sums, checked]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
