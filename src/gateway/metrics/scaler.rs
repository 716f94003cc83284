//! The fleet, while the scaler acts on this node: machines wanted and there, decisions, what they cost.

use std::collections::BTreeMap;
use std::fmt::Display;

use actix_web::web::Data;

use super::{Page, Shared};

pub(super) fn all(page: &mut Page, shared: &Data<Shared>) {
    let picture = shared.picture.load_full();
    page.family("peregrine_scaler_acting", "gauge", "1 while the scaler of the cluster acts on this node.");
    page.sample("", &[], u8::from(picture.is_some()));
    let Some(picture) = picture else { return };
    page.family("peregrine_scaler_machines_wanted", "gauge", "Machines that should run, by group.");
    for decision in &picture.round.decisions {
        page.sample("", &[("group", &decision.group)], decision.to);
    }
    page.family("peregrine_scaler_machines", "gauge", "Machines that there are, by group, region and state.");
    let mut counts: BTreeMap<(&str, &str, &str), u32> = BTreeMap::new();
    for machine in picture.machines.values().flatten().flatten() {
        let key = (machine.slot.group.as_str(), machine.region.as_str(), machine.state.name());
        *counts.entry(key).or_default() += 1;
    }
    for ((group, region, state), count) in counts {
        let labels: [(&str, &dyn Display); 3] =
            [("group", &group), ("machine_region", &region), ("state", &state)];
        page.sample("", &labels, count);
    }
    let help = "1 while a pool does not list its machines: nothing is done there.";
    page.family("peregrine_scaler_pool_silent", "gauge", help);
    for (pool, listed) in &picture.machines {
        page.sample("", &[("pool", pool)], u8::from(listed.is_err()));
    }
    let help = "Decisions that changed the number of machines, since the scaler began to act here.";
    page.family("peregrine_scaler_decisions_total", "counter", help);
    for group in &picture.report.groups {
        page.sample("", &[("group", &group.group)], group.changes);
    }
    page.family("peregrine_scaler_cost_total", "counter", "Money since the scaler began to act here.");
    for group in &picture.report.groups {
        page.sample("", &[("group", &group.group)], group.money);
    }
    page.family("peregrine_scaler_spent_month", "gauge", "Money of this calendar month, UTC.");
    page.sample("", &[], picture.spent.this_month);
}
