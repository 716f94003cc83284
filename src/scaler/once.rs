//! One evaluation by hand: `peregrine scaler once`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use peregrine_scaler::budget::Spent;
use peregrine_scaler::carry::Nodes;
use peregrine_scaler::control::{Controller, Done, GroupView, Markets, Round, Seen, run_once};
use peregrine_scaler::fleet::Machine;
use peregrine_scaler::place::RoundTrips;
use peregrine_scaler::reconcile::Action;
use peregrine_scaler::signal::NodeReport;

use super::open::{OpenError, can_meet, meeting, pools};
use super::rounds::until_next_month;
use crate::config::{Config, PoolConfig};

/// What was decided, and what became of it where it was applied.
pub(crate) struct Evaluated {
    /// The decisions and their actions.
    pub(crate) round: Round,
    /// `None`: nothing was done.
    pub(crate) done: Option<Vec<Done>>,
}

impl Evaluated {
    /// Each action, and what became of it.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (String, String)> {
        let decided = self.round.actions.iter().map(|(_, action)| (words(action), "not done".to_owned()));
        let done = self.done.iter().flatten().map(|Done { action, result }| {
            (words(action), result.as_ref().map_or_else(ToString::to_string, |()| "done".to_owned()))
        });
        let is_applied = self.done.is_some();
        decided.filter(move |_| !is_applied).chain(done)
    }
}

/// An action in words.
pub(crate) fn words(action: &Action) -> String {
    match action {
        Action::Create(order) => format!("create {} in {} with {}", order.slot, order.region, order.release),
        Action::Change(machine, change) => format!("{} {}", change.name(), machine.slot),
        Action::Drain(machine) => format!("drain {}", machine.slot),
        Action::Undrain(machine) => format!("take back the drain of {}", machine.slot),
        Action::Hold(machine) => format!("hold {}", machine.slot),
        Action::Release(machine) => format!("let go of {}", machine.slot),
    }
}

/// Nobody is told: nodes hear from the scaler that acts. One that is to go ends with its drain.
struct NobodyTold;

impl Nodes for NobodyTold {
    fn drain(&mut self, _: &Machine, _: Timestamp) {}
    fn undrain(&mut self, _: &Machine, _: Timestamp) {}
}

/// Evaluates a configuration once, over the machines that its pools list now.
pub(crate) fn evaluate(
    config: &Config,
    reports: BTreeMap<String, NodeReport>,
    apply: bool,
) -> Result<Evaluated, OpenError> {
    let scaler = &config.scaler;
    let now = Timestamp::now();
    let known = &scaler.calendars;
    let meeting = meeting(config);
    if apply {
        can_meet(config, &meeting)?;
    }
    // A folder that is not there holds no machine, and whoever only looks makes none.
    let is_there = |pool: &PoolConfig| !matches!(pool, PoolConfig::Local(local) if !local.dir.is_dir());
    let mut pools = pools(config, &meeting, |pool| apply || is_there(pool))?;
    let mut controller = Controller::new(scaler.fleet());
    let mut views = BTreeMap::new();
    for group in &scaler.groups {
        let followed = group.markets.iter().filter_map(|name| known.get(name).ok().cloned());
        let markets = Markets::of(&followed.collect::<Vec<_>>(), now);
        let release = group.release.clone();
        views.insert(group.spec.name.clone(), GroupView { markets, release, ..GroupView::default() });
    }
    let look = |machines: BTreeMap<_, _>| Seen {
        now,
        machines,
        reports,
        groups: views,
        round_trips: RoundTrips::new(),
        spent: Spent { this_month: 0.0, remaining: until_next_month(now) },
    };
    if apply {
        let chance = rand::random::<f64>;
        let (round, done) = run_once(&mut controller, &mut pools, &mut NobodyTold, now, look, chance);
        return Ok(Evaluated { round, done: Some(done) });
    }
    let empty = scaler
        .pools
        .iter()
        .filter(|(_, pool)| !is_there(pool))
        .map(|(name, _)| (name.clone(), Ok(Vec::new())));
    let lists = pools.iter_mut().map(|(name, at)| (name.clone(), at.pool.list(now))).chain(empty).collect();
    Ok(Evaluated { round: controller.round(&look(lists)), done: None })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::config::{Sources, resolve};

    #[test]
    fn who_only_looks_makes_no_folder_and_machines_without_a_secret_are_not_begun() {
        let dir = tempfile::TempDir::new().unwrap();
        let scaler = dir.path().join("scaler");
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "[scaler]\ndir = {:?}", scaler.display().to_string()).unwrap();
        let sources = Sources { files: vec![file.path().to_owned()], ..Sources::default() };
        let config = resolve(&sources).unwrap().config;
        let looked = evaluate(&config, BTreeMap::new(), false).unwrap();
        assert!(looked.done.is_none() && !looked.round.decisions.is_empty());
        let refused = evaluate(&config, BTreeMap::new(), true).err().unwrap().to_string();
        assert!(refused.starts_with("pool `local`: its machines show `cluster.secret`"), "{refused}");
        assert!(!scaler.exists(), "nothing was made");
    }

    #[test]
    fn a_pool_that_no_group_uses_needs_no_secret() {
        let dir = tempfile::TempDir::new().unwrap();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(
            file,
            "[scaler]\ndir = {:?}\n[scaler.groups.inference]\npool = \"none\"\n[scaler.pools.none]\nkind = \"simulated\"",
            dir.path().display().to_string()
        )
        .unwrap();
        let sources = Sources { files: vec![file.path().to_owned()], ..Sources::default() };
        let config = resolve(&sources).unwrap().config;
        assert!(config.scaler.pools.contains_key("local"), "it is built in");
        assert!(evaluate(&config, BTreeMap::new(), true).is_ok());
    }
}
