//! Puts the next state of a release into the table: ordered, reviewed, or settled after versions came and went.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use peregrine_shaders::ModelSpec;

use super::{Route, Table};
use crate::breaker::{Looked, Trusts};
use crate::release::{
    CanarySpec, CoverageLimits, Live, Ready, Release, ReleaseOrder, ReleaseRefused, Scores, Waiting,
};
use crate::scorecard::{Question, Score, Scorecard};

type Routes = Table<Arc<Route>>;

/// The table after an operator's order about a model.
pub(super) fn ordered(
    table: Routes,
    model: &str,
    order: &ReleaseOrder,
    now: Instant,
) -> Result<Routes, ReleaseRefused> {
    let ready = ready(&table, model);
    if ready.is_empty() {
        return Err(ReleaseRefused::UnknownModel(model.to_owned()));
    }
    let current = table.release(model).map(|live| &live.release);
    let next = Release::ordered(current, order, &ready, now)?;
    let next = next.and_then(|next| next.with_only(&ready, now));
    if next.is_none() && current.is_some() {
        tracing::info!(model, "no release any more: the highest version answers");
    }
    Ok(replaced(table, model, next).with_rest(model, false))
}

/// The table after a look at every canary; `None`: nothing has changed.
pub(super) fn reviewed(table: &Routes, card: Option<&Scorecard>, now: Instant) -> Option<Routes> {
    let mut next: Option<Routes> = None;
    for (model, live) in table.releases() {
        let Some(mut evidence) = live.evidence() else { continue };
        // Scores are dear: they are read when all else is in favour.
        let mut reviewed = live.release.reviewed(&evidence, now);
        if reviewed == Err(Waiting::Scores)
            && let Some(canary) = live.release.canary()
        {
            let known = card.map(|card| scores(card, model, &canary.spec, live.release.stable));
            evidence.scores = Some(known.unwrap_or(Scores::Unscored));
            reviewed = live.release.reviewed(&evidence, now);
        }
        if let Ok(release) = reviewed {
            let table = next.take().unwrap_or_else(|| table.clone());
            next = Some(replaced(table, model, Some(release)));
        }
    }
    next
}

/// The table after a look at what intervals held of the truth; `None`: nothing has changed.
pub(super) fn trusted(
    table: &Routes,
    card: &Scorecard,
    (limits, trusts): (&CoverageLimits, &Trusts),
    now: Instant,
) -> Option<Routes> {
    let scores = card.scores(Question::default());
    let mut models = BTreeMap::<String, BTreeMap<u32, Looked>>::new();
    for route in table.ready() {
        let (model, version) = (&route.status.spec.name, route.status.version);
        let score = scores.iter().find(|score| *score.model == **model && score.version == version);
        let judged = score.and_then(|score| limits.judge(score));
        let looked = trusts.look(model, version, judged, now, || card.renew(model, version));
        models.entry(model.clone()).or_default().insert(version, looked);
    }
    trusts.retain(|model, version| models.get(model).is_some_and(|looks| looks.contains_key(&version)));
    let mut next: Option<Routes> = None;
    for (model, looks) in &models {
        let known = next.as_ref().unwrap_or(table);
        if let Some(release) = believed(known, model, looks, trusts, now) {
            next = Some(replaced(known.clone(), model, Some(release)));
        }
    }
    next
}

/// What becomes of the release of a model, or of none, after a look at its versions: who is not believed gives way, who
/// is again comes back. `None`: nothing.
fn believed(
    table: &Routes,
    model: &str,
    looks: &BTreeMap<u32, Looked>,
    trusts: &Trusts,
    now: Instant,
) -> Option<Release> {
    if table.rests(model) {
        return None;
    }
    let (ready, current) = (ready(table, model), table.release(model).map(|live| &live.release));
    let fault = |version: u32| looks.get(&version)?.fault;
    if let Some(next) = Release::trusted(current, fault, &ready, now) {
        let before =
            current.map(|release| release.stable).or_else(|| ready.last().map(|newest| newest.version));
        // A canary that gives way has yet to prove itself: it does not come back by itself.
        if let Some(version) = before.filter(|version| *version != next.stable) {
            trusts.set_heir(model, version, Some(next.stable));
        }
        return Some(next);
    }
    looks.iter().find_map(|(version, looked)| {
        let heir = looked.heir?;
        trusts.set_heir(model, *version, None);
        current?.returned(*version, heir, &ready, now)
    })
}

/// The table with releases that wait for their models, as if those had been away.
pub(super) fn resumed(table: Routes, releases: Vec<(String, Release)>) -> Routes {
    releases.into_iter().fold(table, |table, (model, release)| {
        let live = Arc::new(Live::after(None, release));
        table.with_awaited(&model, live)
    })
}

/// The table after versions of a model came or went. A release stays while its model is away, and goes on once all
/// versions that it names are back.
pub(super) fn settled(table: Routes, model: &str, now: Instant) -> Routes {
    let Some(live) = table.kept_release(model) else { return table };
    let (release, ready) = (live.release.clone(), ready(&table, model));
    let is_ready = |version: &u32| ready.iter().any(|ready| ready.version == *version);
    if ready.is_empty() {
        let next = Some(release.at_rest(now));
        changed(table, model, next).with_rest(model, true)
    } else if table.rests(model) && !release.named().iter().all(is_ready) {
        table
    } else {
        all_back(table, model, now)
    }
}

/// The table once no more versions of a model come for now: a release goes on with those that are there.
pub(super) fn all_back(table: Routes, model: &str, now: Instant) -> Routes {
    let Some(live) = table.release(model) else { return table };
    let next = live.release.with_only(&ready(&table, model), now);
    changed(table, model, next).with_rest(model, false)
}

fn changed(table: Routes, model: &str, next: Option<Release>) -> Routes {
    if table.kept_release(model).map(|live| &live.release) == next.as_ref() {
        table
    } else {
        replaced(table, model, next)
    }
}

fn replaced(table: Routes, model: &str, next: Option<Release>) -> Routes {
    let before = table.kept_release(model).cloned();
    let known = before.as_ref().and_then(|before| before.release.log.last());
    if let Some(next) = &next {
        let is_new = |event: &&crate::release::Event| Some(*event) != known;
        let news: Vec<_> = next.log.iter().rev().take_while(is_new).collect();
        for event in news.into_iter().rev() {
            tracing::info!(model, stable = next.stable, plan = next.plan.name(), "{}", event.change);
        }
    }
    let live = next.map(|release| Arc::new(Live::after(before.as_deref(), release)));
    table.with_release(model, live)
}

/// Versions that take and answer the same have one number.
fn ready(table: &Routes, model: &str) -> Vec<Ready> {
    let mut shapes: Vec<Arc<ModelSpec>> = Vec::new();
    let number = |(version, route): (u32, Arc<Route>)| {
        let spec = &route.status.spec;
        let shape = shapes.iter().position(|known| is_same(known, spec)).unwrap_or_else(|| {
            shapes.push(Arc::clone(spec));
            shapes.len() - 1
        });
        Ready { version, shape }
    };
    table.ready_of(model).into_iter().map(number).collect()
}

fn is_same(a: &ModelSpec, b: &ModelSpec) -> bool {
    (a.horizon, a.window, a.series) == (b.horizon, b.window, b.series)
        && (&a.head, &a.columns) == (&b.head, &b.columns)
        && (&a.hist_exog, &a.futr_exog, &a.stat_exog) == (&b.hist_exog, &b.futr_exog, &b.stat_exog)
}

/// Errors of two versions, as a part of those of a naive forecast where both series move; zero has no ratio.
fn scores(card: &Scorecard, model: &str, spec: &CanarySpec, stable: u32) -> Scores {
    let score = |version: u32| -> Option<Score> {
        card.scores(Question { model: Some(model), version: Some(version), ..Question::default() }).pop()
    };
    let Some(stable) = score(stable) else { return Scores::Unscored };
    let Some(canary) = score(spec.version) else { return Scores::Few };
    if canary.weight.min(stable.weight) < spec.limits.values_min() {
        return Scores::Few;
    }
    match (canary.mase, stable.mase) {
        (Some(canary), Some(stable)) => Scores::Known { canary, stable },
        _ => Scores::Known { canary: canary.mae, stable: stable.mae },
    }
}
