"""Prints what `run.sh peers` measured: ratios first, then what was to be reached, then the figures behind them.

    table_peers.py RESULTS.jsonl

Medians over the rounds. In the first table above 1 is better for peregrine: its throughput over the peer's, and the
peer's latency, processor time, memory and start over its own. Cold starts are those of every server that was started.
"""

import json
import os
import platform
import statistics
import sys
from collections import defaultdict
from dataclasses import dataclass

OURS = "peregrine"
REPLACED = "fastapi-torch"
# What a user would pick; `tuned FastAPI` is the better of its two forms, as the best of all is taken.
PICKED = ("triton", "mosec", "fastapi-onnxruntime", "fastapi-torch-tuned")
COLD = "cold-start"
LOWER_IS_BETTER = ("p50_ms", "p99_ms", "server_cpu_us_per_request", "server_pss_mib", "cold_start_s")


@dataclass
class Target:
    """A ratio to reach against the best of `peers`."""

    text: str
    scenario: str
    key: str
    want: float
    peers: tuple[str, ...] = PICKED


TARGETS = [
    Target("throughput, 1 connection", "1-connection", "requests_per_s", 2.0),
    Target("throughput, 64 connections", "64-connections", "requests_per_s", 3.0),
    Target("throughput, 1,000 connections", "1000-connections", "requests_per_s", 2.0),
    Target("p99, 1 connection", "1-connection", "p99_ms", 2.0),
    Target("p99, 64 connections", "64-connections", "p99_ms", 2.0),
    Target("p99, 1,000 connections", "1000-connections", "p99_ms", 2.0),
    Target("p99, open loop of 1,000/s", "open-loop-1000", "p99_ms", 2.0),
    Target("p99, open loop of 4,000/s", "open-loop-4000", "p99_ms", 2.0),
    Target("processor time a request, 64 connections", "64-connections", "server_cpu_us_per_request", 2.3),
    Target("memory after 64 connections", "64-connections", "server_pss_mib", 4.0),
    Target("cold start", COLD, "cold_start_s", 10.0),
    Target("throughput, 1 connection, FastAPI + torch", "1-connection", "requests_per_s", 40.0, (REPLACED,)),
    Target("throughput, 64 connections, FastAPI + torch", "64-connections", "requests_per_s", 40.0, (REPLACED,)),
    Target("throughput, 1,000 connections, FastAPI + torch", "1000-connections", "requests_per_s", 40.0, (REPLACED,)),
]


def main() -> None:
    """Reads the lines, groups them by scenario and server."""
    runs = defaultdict(list)
    with open(sys.argv[1]) as lines:
        for line in lines:
            run = json.loads(line)
            scenario, server = run["label"].rsplit("/", 1)
            runs[scenario, server].append(run)
    servers = list(dict.fromkeys(server for _, server in runs))
    scenarios = [s for s in dict.fromkeys(scenario for scenario, _ in runs) if s != COLD]
    servers.sort(key=lambda server: (server != OURS, -sum(middle(runs[s, server], "requests_per_s")
                                                          for s in scenarios if (s, server) in runs)))
    rounds = max((len(value) for (scenario, _), value in runs.items() if scenario != COLD), default=0)
    print(f"peregrine against what a user would pick, {len(os.sched_getaffinity(0))} cores, {platform.machine()}, "
          f"{rounds} rounds; above 1 peregrine is better\n")
    if any(server == OURS for server in servers) and len(servers) > 1:
        ratios(runs, servers, scenarios)
        targets(runs)
    figures(runs, servers, scenarios)


def ratios(runs: dict, servers: list, scenarios: list) -> None:
    """One table a scenario would be long: one row for each peer and scenario."""
    print("| scenario | peer | throughput | p50 | p99 | processor time | memory |\n|---" + "|---" * 6 + "|")
    for scenario in scenarios:
        for server in servers[1:]:
            if (scenario, server) in runs and (scenario, OURS) in runs:
                cells = [ratio(runs, scenario, server, key) for key in
                         ("requests_per_s", "p50_ms", "p99_ms", "server_cpu_us_per_request", "server_pss_mib")]
                print(f"| {scenario} | {server} | " + " | ".join(cells) + " |")
    print("\n| cold start | ratio |\n|---|---|")
    for server in servers[1:]:
        print(f"| {server} | {ratio(runs, COLD, server, 'cold_start_s')} |")


def targets(runs: dict) -> None:
    """What was to be reached, against whom it is hardest, and whether it was."""
    print("\n| to reach, against the best of " + ", ".join(PICKED) + " | wanted | seen | best peer | |\n|---|---|---|---|---|")
    for target in TARGETS:
        seen = {peer: quotient(runs, target.scenario, peer, target.key) for peer in target.peers}
        seen = {peer: value for peer, value in seen.items() if value is not None}
        if not seen:
            print(f"| {target.text} | {target.want:g} | – | – | not measured |")
            continue
        best = min(seen, key=seen.get)
        verdict = "reached" if seen[best] >= target.want else "NOT reached"
        print(f"| {target.text} | {target.want:g} | {seen[best]:.2f} | {best} | {verdict} |")


def figures(runs: dict, servers: list, scenarios: list) -> None:
    """The medians themselves, with the span of the rounds' throughput."""
    heads = ["scenario", "server", "requests/s (span)", "p50 ms", "p99 ms", "max ms", "µs processor/request", "cores",
             "PSS MiB", "starved", "oldest ms", "refused", "broken", "load µs/request", "others' cores", "worst error"]
    print("\n| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")
    for scenario in scenarios:
        for server in servers:
            if (scenario, server) in runs:
                print(row(scenario, server, runs[scenario, server]))
    print("\n| server | cold start s (span) | starts | processes |\n|---|---|---|---|")
    for server in servers:
        if (COLD, server) in runs:
            starts = [run["cold_start_s"] for run in runs[COLD, server]]
            processes = {run["server_processes"] for (scenario, of), measured in runs.items()
                         if of == server and scenario != COLD for run in measured}
            print(f"| {server} | {statistics.median(starts):.2f} ({min(starts):.2f}–{max(starts):.2f}) | {len(starts)} | "
                  f"{max(processes, default=0)} |")


def middle(runs: list, key: str) -> float:
    """Median over rounds."""
    return statistics.median(run[key] for run in runs)


def quotient(runs: dict, scenario: str, peer: str, key: str) -> float | None:
    """Above 1 peregrine is better; nothing where either was not measured or answered nothing."""
    if (scenario, peer) not in runs or (scenario, OURS) not in runs:
        return None
    ours, theirs = middle(runs[scenario, OURS], key), middle(runs[scenario, peer], key)
    above, below = (theirs, ours) if key in LOWER_IS_BETTER else (ours, theirs)
    return above / below if below and above else None


def ratio(runs: dict, scenario: str, peer: str, key: str) -> str:
    """The quotient for people; a peer that gave wrong answers is marked."""
    value = quotient(runs, scenario, peer, key)
    wrong = " WRONG" if any(run.get("wrong") for run in runs[scenario, peer]) else ""
    return "–" if value is None else f"{value:.2f}{wrong}"


def row(scenario: str, server: str, runs: list) -> str:
    """One line of figures."""
    rates = [run["requests_per_s"] for run in runs]
    sums = [str(sum(run[key] for run in runs)) for key in ("refused", "broken")]
    starved, oldest = max(run["starved"] for run in runs), max(run["oldest_waiting_ms"] for run in runs)
    checked = f"{max(run['worst_error'] for run in runs):.0e}" + (" WRONG" if any(run["wrong"] for run in runs) else "")
    cells = [scenario, server, f"{middle(runs, 'requests_per_s'):,.0f} ({min(rates):,.0f}–{max(rates):,.0f})",
             f"{middle(runs, 'p50_ms'):.3f}", f"{middle(runs, 'p99_ms'):.2f}", f"{middle(runs, 'max_ms'):.1f}",
             f"{middle(runs, 'server_cpu_us_per_request'):,.1f}", f"{middle(runs, 'server_cores'):.2f}",
             f"{middle(runs, 'server_pss_mib'):.0f}", str(starved), f"{oldest:.1f}", *sums,
             f"{middle(runs, 'load_cpu_us_per_request'):.1f}", f"{max(run['others_cores'] for run in runs):.2f}", checked]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
