//! What the scaler keeps of money and decisions: the ledger, filled once a round.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use peregrine_scaler::control::{Controller, Decision, Start};
use peregrine_scaler::cost::{Accrual, Accrued};
use peregrine_scaler::fleet::{GroupSpec, Machine};

use tracing::warn;

use super::ledger::{Ledger, LedgerError, ReadyTime};
use super::rounds::{Accounts, Keeper};
use crate::config::ScalerConfig;

/// Money for 1,000 predictions is of so long: an hour of the ledger is counted whole.
const UNIT_COST_OVER: SignedDuration = SignedDuration::from_hours(2);

/// Records that wait for a ledger that takes none: a week of rounds.
const UNWRITTEN_MAX: usize = 40_320;

/// The ledger, with what it needs to know of the last round.
pub(crate) struct LedgerKeeper {
    ledger: Ledger,
    groups: Vec<GroupSpec>,
    accrual: Accrual,
    is_caught_up: bool,
    /// Costs that the ledger has yet to take: it may be without a disk for a while.
    unwritten: Vec<Accrued>,
    counted_at: Option<Timestamp>,
    /// Starts that were measured, as of the last round.
    known: BTreeMap<(String, Start), Vec<Duration>>,
}

impl LedgerKeeper {
    /// Opens the ledger of the configuration.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub(crate) fn open(config: &ScalerConfig) -> Result<Self, LedgerError> {
        let (ledger, _found) = Ledger::open(&config.dir.join("ledger"), config.keep)?;
        let groups = config.groups.iter().map(|group| group.spec.clone()).collect();
        Ok(Self {
            ledger,
            groups,
            accrual: Accrual::new(config.evaluate_every * 4),
            is_caught_up: false,
            unwritten: Vec::new(),
            counted_at: None,
            known: BTreeMap::new(),
        })
    }
}

impl Keeper for LedgerKeeper {
    fn account(
        &mut self,
        machines: &[Machine],
        prediction_rates: &BTreeMap<(String, String), f64>,
        now: Timestamp,
    ) -> Result<Accounts, LedgerError> {
        // What was made before this scaler counted is not known.
        let since =
            self.counted_at.replace(now).map_or(0.0, |at| now.duration_since(at).as_secs_f64().max(0.0));
        if self.is_caught_up {
            match self.accrual.observe(now, &self.groups, machines.iter()) {
                Ok(accrued) => self.unwritten.extend(accrued),
                Err(error) => warn!(%error, "what machines cost is not added up"),
            }
        } else {
            self.ledger.catch_up(&mut self.accrual, &self.groups, machines, now)?;
            self.is_caught_up = true;
        }
        if self.unwritten.len() > UNWRITTEN_MAX {
            self.unwritten.drain(..self.unwritten.len() - UNWRITTEN_MAX);
        }
        self.ledger.charge(&self.unwritten, now)?;
        let accrued = std::mem::take(&mut self.unwritten);
        let made = prediction_rates.iter().map(|(place, rate)| (place.clone(), rate * since)).collect();
        self.ledger.predicted(&made, now)?;
        let from = now.checked_sub(UNIT_COST_OVER).unwrap_or(now);
        let mut cost_per_1000 = BTreeMap::new();
        for group in &self.groups {
            if let Some(cost) = self.ledger.cost_per_1000(&group.name, from, now)? {
                cost_per_1000.insert(group.name.clone(), cost);
            }
        }
        Ok(Accounts { spent: self.ledger.spent(now)?, accrued, cost_per_1000 })
    }

    fn keep(
        &mut self,
        decisions: &[Decision],
        controller: &Controller,
        now: Timestamp,
    ) -> Result<(), LedgerError> {
        for decision in decisions.iter().filter(|decision| decision.from != decision.to) {
            self.ledger.decided(decision)?;
        }
        for group in &self.groups {
            for start in [Start::Cold, Start::Warm] {
                let Some(times) = controller.ready_times(&group.name) else { continue };
                let times: Vec<Duration> = times.measured(start).collect();
                let known = self.known.entry((group.name.clone(), start)).or_default();
                for took in &times[overlap(known, &times)..] {
                    let time = ReadyTime { at: now, group: group.name.clone(), start, took: *took };
                    self.ledger.was_ready(&time)?;
                }
                *known = times;
            }
        }
        Ok(())
    }
}

/// How many of `now` were in `before` already: the latest of those that are kept, in order.
fn overlap(before: &[Duration], now: &[Duration]) -> usize {
    let dropped = (0..=before.len()).find(|dropped| now.starts_with(&before[*dropped..]));
    before.len() - dropped.unwrap_or(before.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_new_is_kept_again() {
        let seconds = |list: &[u64]| list.iter().map(|s| Duration::from_secs(*s)).collect::<Vec<_>>();
        let check =
            |before: &[u64], now: &[u64], known| assert_eq!(overlap(&seconds(before), &seconds(now)), known);
        check(&[], &[], 0);
        check(&[], &[5], 0);
        check(&[5], &[5], 1);
        check(&[5], &[5, 6], 1);
        check(&[5, 6, 7], &[6, 7, 8], 2);
        check(&[5, 6], &[7, 8], 0);
    }
}
