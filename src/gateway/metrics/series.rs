//! The series that ticks feed, their journal, and how good the predictions of them were.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix_web::web;
use peregrine_actors::scorecard::{Question, Score, Scorecard};

use super::Page;
use crate::gateway::Shared;
use crate::journal::TickJournal;

pub(super) fn all(page: &mut Page, shared: &Shared) {
    let stats = shared.live.series.stats();
    page.family(
        "peregrine_ticks_total",
        "counter",
        "Ticks that came to this node as their owner, by effect.",
    );
    let effects = [
        ("advanced", stats.advanced),
        ("inserted", stats.inserted),
        ("duplicate", stats.duplicate),
        ("conflict", stats.conflict),
        ("too_late", stats.too_late),
        ("refused", stats.refused),
    ];
    for (effect, count) in effects {
        page.sample("", &[("effect", &effect)], count);
    }
    let mut one = |name, kind, help, value: f64| {
        page.family(name, kind, help);
        page.sample("", &[], value);
    };
    let count = |count: u64| count as f64; // counters of a node stay far below 2^53
    let seconds = Duration::from_nanos(stats.predict_nanos).as_secs_f64();
    one("peregrine_ticks_acknowledged_total", "counter", "Ticks answered.", count(stats.acknowledged));
    one("peregrine_series", "gauge", "Series held, owned or as copies.", stats.series as f64);
    one("peregrine_series_bytes", "gauge", "Of their observations.", stats.bytes as f64);
    one("peregrine_shards_owned", "gauge", "Shards of series owned.", stats.shards_owned as f64);
    one("peregrine_shards_taken_over_total", "counter", "Shards taken over.", count(stats.recoveries));
    let help = "…of which a node that is there did not answer in time.";
    one("peregrine_shards_incomplete_total", "counter", help, count(stats.incomplete));
    one(
        "peregrine_predictions_total",
        "counter",
        "Predictions that followed ticks.",
        count(stats.predictions),
    );
    let help = "From tick to prediction, of all predictions together.";
    one("peregrine_predictions_seconds_total", "counter", help, seconds);
    let help = "Of these predictions, those made in the thread that took their tick.";
    one("peregrine_predictions_in_line_total", "counter", help, count(stats.in_line));
    let help = "Windows skipped because newer ones came before there was time.";
    one("peregrine_predictions_conflated_total", "counter", help, count(stats.conflated));
    let help = "Windows that could not be forecast.";
    one("peregrine_predictions_failed_total", "counter", help, count(stats.failed));
    let help = "Predictions that other nodes wanted and that were lost on the way.";
    let lost = shared.live.lost.load(Ordering::Relaxed);
    one("peregrine_predictions_lost_total", "counter", help, count(lost));
    let help = "Threads awake for `server.busy_poll`, the work that they did meanwhile included.";
    one("peregrine_busy_poll_seconds_total", "counter", help, shared.live.looked.time().as_secs_f64());
    let help = "How often such a thread asked for work.";
    one("peregrine_busy_poll_turns_total", "counter", help, count(shared.live.looked.turns()));
}

pub(super) fn journal(page: &mut Page, journal: &TickJournal) {
    let status = journal.status();
    page.family("peregrine_journal_queued", "gauge", "Ticks that wait for the journal.");
    page.sample("", &[], status.queued);
    page.family("peregrine_journal_written_total", "counter", "Ticks that the journal has kept.");
    page.sample("", &[], status.written);
    page.family("peregrine_journal_failed_total", "counter", "Ticks that the disk refused.");
    page.sample("", &[], status.failed);
}

/// Of model versions, never of series, of which there are many. Missing, not zero, until something was scored.
pub(super) async fn scores(page: &mut Page, card: &Arc<Scorecard>, values_min: f64) {
    type Read = fn(&Score) -> Option<f64>;
    let gauges: [(&str, &str, Read); 3] = [
        ("peregrine_score_mae", "Mean absolute error of the median of late.", |score| Some(score.mae)),
        ("peregrine_score_mase", "That by what a naive forecast of one step is off by.", |score| score.mase),
        ("peregrine_score_pinball", "Mean pinball loss over the model's levels of late.", |score| {
            score.pinball
        }),
    ];
    let read = Arc::clone(card);
    // Reads every stream of the node: not on a thread that answers requests.
    let scores = web::block(move || read.scores(Question::default())).await.unwrap_or_default();
    for (name, help, read) in gauges {
        page.family(name, "gauge", help);
        for score in &scores {
            let Some(value) = read(score) else { continue };
            page.sample("", &[("model", &score.model), ("version", &score.version)], value);
        }
    }
    page.family(
        "peregrine_score_coverage",
        "gauge",
        "Share of truths within the interval of a level, 0 to 1.",
    );
    for score in &scores {
        for one in &score.coverage {
            let labels: [(&str, &dyn Display); 3] =
                [("model", &score.model), ("version", &score.version), ("level", &one.level)];
            page.sample("", &labels, one.held / 100.0);
        }
    }
    page.family(
        "peregrine_score_coverage_shortfall",
        "gauge",
        "By how much the worst interval that rests on enough values held less than its level, 0 to 1.",
    );
    for score in &scores {
        let Some(worst) = score.worst_interval(values_min) else { continue };
        page.sample("", &[("model", &score.model), ("version", &score.version)], worst.shortfall());
    }
    page.family("peregrine_score_scored_total", "counter", "Values of predictions that met their truth.");
    for (model, version, scored) in card.scored() {
        page.sample("", &[("model", &model), ("version", &version)], scored);
    }
    let status = card.status();
    let plain: [(&str, &str, &str, u64); 4] = [
        ("peregrine_score_series", "gauge", "Series on the scorecard.", status.series as u64),
        ("peregrine_score_bytes", "gauge", "Memory of its streams.", status.bytes as u64),
        (
            "peregrine_score_unscored_total",
            "counter",
            "Predictions and truths that it had no room for, or that cannot be scored.",
            status.unscored,
        ),
        ("peregrine_score_late_total", "counter", "Truths too late to be scored in full.", status.too_late),
    ];
    for (name, kind, help, value) in plain {
        page.family(name, kind, help);
        page.sample("", &[], value);
    }
}
