//! What goes to other nodes and comes from them: forecasts, links, replays.

use std::fmt::Display;

use peregrine_runtime::Cluster;

use super::Page;
use crate::gateway::Shared;
use crate::gateway::replay::Replays;

pub(super) fn remote(page: &mut Page, shared: &Shared) {
    let Some(stats) = shared.system.remote_stats() else { return };
    page.family(
        "peregrine_remote_ask_seconds",
        "summary",
        "There and back, of asks that another node answered.",
    );
    for one in &stats.peers {
        let labels: [(&str, &dyn Display); 2] = [("to", &one.node), ("to_region", &one.region)];
        let of = &one.latency;
        for (quantile, took) in [("0.5", of.p50), ("0.9", of.p90), ("0.99", of.p99), ("0.999", of.p999)] {
            page.sample("", &[labels[0], labels[1], ("quantile", &quantile)], took.as_secs_f64());
        }
        page.sample("_sum", &labels, of.mean.as_secs_f64() * of.count as f64);
        page.sample("_count", &labels, of.count);
    }
    page.family("peregrine_remote_asks_total", "counter", "Asks of another node, by how they ended.");
    for one in &stats.peers {
        let ends = [
            ("answered", one.answered),
            ("refused", one.refused),
            ("failed", one.failed),
            ("cancelled", one.cancelled),
        ];
        for (end, count) in ends {
            page.sample("", &[("to", &one.node), ("to_region", &one.region), ("end", &end)], count);
        }
    }
    page.family("peregrine_remote_in_flight", "gauge", "Asks on their way to another node.");
    for one in &stats.peers {
        page.sample("", &[("to", &one.node), ("to_region", &one.region)], one.in_flight);
    }
    let totals = [
        ("peregrine_remote_requests_total", "Requests that other nodes were to answer.", stats.requests),
        ("peregrine_remote_retries_total", "Asks because an earlier one was refused.", stats.retries),
        ("peregrine_remote_retries_refused_total", "Retries beyond the budget.", stats.retries_refused),
        ("peregrine_remote_hedges_total", "Asks because an earlier one was late.", stats.hedges),
        ("peregrine_remote_hedge_wins_total", "Hedges that answered first.", stats.hedge_wins),
        ("peregrine_remote_hedges_refused_total", "Hedges beyond the budget.", stats.hedges_refused),
    ];
    for (name, help, count) in totals {
        page.family(name, "counter", help);
        page.sample("", &[], count);
    }
}

pub(super) fn members(page: &mut Page, cluster: &Cluster) {
    let view = cluster.view();
    page.family("peregrine_cluster_members", "gauge", "Live nodes as this one sees them, itself included.");
    page.sample("", &[], view.members.len());
    page.family("peregrine_cluster_rtt_seconds", "gauge", "Smoothed round trip to a node.");
    for member in view.members.values().filter(|member| member.id != *cluster.id()) {
        if let Some(rtt) = cluster.rtt(&member.id) {
            page.sample("", &[("to", &member.id), ("to_region", &member.region)], rtt.as_secs_f64());
        }
    }
    let stats = cluster.stats();
    let counters = [
        ("peregrine_links_opened_total", "Links to other nodes that came about.", stats.links_opened),
        ("peregrine_links_lost_total", "Of those, links that were lost.", stats.links_lost),
        (
            "peregrine_links_refused_total",
            "Callers turned away after their credentials.",
            stats.links_refused,
        ),
        (
            "peregrine_link_violations_total",
            "Links ended because the peer broke the rules.",
            stats.violations,
        ),
        ("peregrine_answers_lost_total", "Answers to others that could not be sent.", stats.answers_lost),
        ("peregrine_detours_total", "Messages sent through a third node.", stats.detours),
        ("peregrine_relayed_total", "Frames passed on for others.", stats.relayed),
    ];
    for (name, help, count) in counters {
        page.family(name, "counter", help);
        page.sample("", &[], count);
    }
    page.family(
        "peregrine_remote_asks_waiting",
        "gauge",
        "Asks of this node that wait for another's answer.",
    );
    page.sample("", &[], stats.asks_waiting);
    let letters = [
        (
            "peregrine_remote_refused_total",
            "Messages of other nodes not taken here, by reason.",
            &stats.refused,
        ),
        (
            "peregrine_remote_tells_refused_total",
            "Messages that other nodes did not take.",
            &stats.tells_refused,
        ),
    ];
    for (name, help, by_reason) in letters {
        page.family(name, "counter", help);
        for (reason, count) in by_reason {
            page.sample("", &[("reason", reason)], count);
        }
    }
}

pub(super) fn replays(page: &mut Page, replays: &Replays) {
    page.family(
        "peregrine_replays_asked_total",
        "counter",
        "Requests that Fly's proxy was to send elsewhere.",
    );
    page.sample("", &[], replays.asked());
    page.family("peregrine_replays_taken_total", "counter", "Requests that another Machine had sent here.");
    page.sample("", &[], replays.taken());
    page.family("peregrine_replays_failed_total", "counter", "Requests that came back unanswered, by why.");
    for (reason, count) in replays.failed() {
        page.sample("", &[("reason", &reason)], count);
    }
}
