//! One level: warm up, then windows until three of them agree.

use std::time::Duration;

use indicatif::ProgressBar;
use peregrine_load::control;
use peregrine_load::recorder::{Failure, Window};
use peregrine_load::session::{Level, Session};
use peregrine_load::split::{Between, Counters};
use peregrine_load::stable::{Point, WINDOWS, is_stable};
use peregrine_load::target::Target;

use super::{CliError, Plan, of_key};

/// What became of one level.
pub(super) struct Measured {
    pub(super) level: Level,
    /// Whether the last three windows agreed.
    pub(super) settled: bool,
    /// All windows, in order.
    pub(super) windows: Vec<Window>,
    /// The last three as one: the figures.
    pub(super) figures: Window,
    /// All windows and the warm-up, of which only the failures are anybody's business.
    pub(super) failures: Failures,
    /// Means over all windows, where the server tells.
    pub(super) server: Option<Between>,
    /// The client's, over the same span.
    pub(super) mean: Duration,
}

pub(super) type Failures = std::collections::BTreeMap<Failure, u64>;

pub(super) fn level(plan: &Plan, level: Level, bar: &ProgressBar) -> Result<Measured, CliError> {
    bar.set_message(format!("{}: opening", name(level)));
    let mut session =
        Session::open(&plan.target, &plan.shape, &plan.ask, level, plan.threads).map_err(of_key)?;
    let mut failures = Failures::new();
    bar.set_message(format!("{}: warming up", name(level)));
    if !plan.warmup.is_zero() {
        note(&mut failures, &session.window(plan.warmup)?);
    }
    let before = counters(plan, &plan.target);
    let (mut windows, mut points, mut settled) = (Vec::new(), Vec::new(), false);
    while windows.len() < plan.windows_max && !settled {
        let window = session.window(plan.window)?;
        note(&mut failures, &window);
        points.push(Point { rate: window.rate(), latency: window.latency.at(plan.percentile / 100.0) });
        bar.inc(1);
        bar.set_message(format!(
            "{}: {:.0} requests/s, p99 {:.2} ms",
            name(level),
            window.rate(),
            window.latency.at(0.99).as_secs_f64() * 1e3
        ));
        windows.push(window);
        settled = is_stable(&points, plan.stable_percent);
    }
    let after = counters(plan, &plan.target);
    note(&mut failures, &session.drain()?);
    let joined = |windows: &[Window]| {
        let (first, rest) = windows.split_first()?;
        let mut whole = first.clone();
        rest.iter().for_each(|next| whole.then(next));
        Some(whole)
    };
    let figures = joined(&windows[windows.len().saturating_sub(WINDOWS)..]).unwrap_or_default();
    let mean = joined(&windows).map(|all| all.latency.mean()).unwrap_or_default();
    let server = before.zip(after).and_then(|(before, after)| after.since(&before));
    Ok(Measured { level, settled, windows, figures, failures, server, mean })
}

pub(super) fn note(failures: &mut Failures, window: &Window) {
    for (failure, count) in &window.failures {
        *failures.entry(*failure).or_default() += count;
    }
}

/// `8 connections`, `500/s`.
pub(super) fn name(level: Level) -> String {
    match level.rate {
        Some(rate) => format!("{rate}/s"),
        None if level.connections == 1 => "1 connection".to_owned(),
        None => format!("{} connections", level.connections),
    }
}

/// `None` where a server has no statistics of the model.
fn counters(plan: &Plan, target: &Target) -> Option<Counters> {
    let statistics = control::get(target, &format!("/v2/models/{}/stats", plan.shape.model)).ok()?;
    Counters::of(&statistics)
}
