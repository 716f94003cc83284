//! What the scaler keeps: what machines have cost, hour by hour; what was decided, and why; how long machines took to
//! be ready.
//!
//! All of it is on the disk before a call returns. It is bounded by age and by number. A store that cannot be read is
//! put aside, and [`Found`] says so: money that was spent may then be missing, and whoever keeps a budget must know.

pub(super) mod entry;
mod store;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan as _};
use peregrine_scaler::budget::Spent;
use peregrine_scaler::control::Decision;
use peregrine_scaler::cost::{Accrual, Accrued, Billing};
use peregrine_scaler::fleet::{GroupSpec, Machine};
use tracing::{info, warn};

use self::entry::{Kind, cost_key, hour_of, is_name, next_hour, number_of, numbered_key};
use self::store::{Entry, Failure, Lock, Store};

pub use self::entry::{Cost, LoggedDecision, ReadyTime};

/// Decisions that are kept.
const DECISIONS_MAX: usize = 50_000;
/// Starts that are kept.
const READY_MAX: usize = 10_000;
/// Hours, times groups, times regions.
const COSTS_MAX: usize = 500_000;
/// How often the oldest entries are looked for.
const PRUNE_EVERY: Duration = Duration::from_secs(3600);

/// The ledger does not do what it was asked. The operator acts.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Two processes must not write one ledger.
    #[error("{}: another process has this ledger open", .0.display())]
    Locked(PathBuf),
    /// Written by another version of this program, which can read it.
    #[error("{}: {found}, which this build does not read", dir.display())]
    Format {
        /// Where.
        dir: PathBuf,
        /// What it says.
        found: String,
    },
    /// The disk, or who may write to it.
    #[error("{}: {source}", dir.display())]
    Io {
        /// Where.
        dir: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// What is on the disk is not what was written. The next start puts it aside.
    #[error("{}: {what}", dir.display())]
    Damage {
        /// Where.
        dir: PathBuf,
        /// What was found.
        what: String,
    },
}

/// What was found when the ledger was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Values that were none, and were removed.
    pub skipped: u64,
    /// A store that could not be read.
    pub aside: Option<Aside>,
}

/// A store that was put aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aside {
    /// Where it is now.
    pub path: PathBuf,
    /// What was wrong with it.
    pub why: String,
    /// Entries that could still be read and were taken over.
    pub kept: u64,
}

/// The ledger.
pub struct Ledger {
    /// `None` after a commit failed, until it is opened again.
    store: Option<Store>,
    dir: PathBuf,
    keep: Duration,
    charged_until: Option<Timestamp>,
    pruned_at: Option<Timestamp>,
    _lock: Lock,
}

impl Ledger {
    /// Opens what is in `dir`, made if it is not there. Entries older than `keep` are dropped.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn open(dir: &Path, keep: Duration) -> Result<(Self, Found), LedgerError> {
        let lock = store::lock(dir)?;
        let (store, skipped, aside) = Store::open(dir)?;
        let mut ledger = Self {
            store: Some(store),
            dir: dir.to_owned(),
            keep,
            charged_until: None,
            pruned_at: None,
            _lock: lock,
        };
        ledger.charged_until = ledger.asked(Store::charged_until)?;
        if let Some(aside) = &aside {
            let (path, why, kept) = (aside.path.display(), &aside.why, aside.kept);
            warn!(%path, why, kept, "the scaler's ledger could not be read and was put aside");
        }
        info!(dir = %dir.display(), skipped, "scaler ledger open");
        Ok((ledger, Found { skipped, aside }))
    }

    /// Until when costs are known; `None`: none are.
    #[must_use]
    pub fn charged_until(&self) -> Option<Timestamp> {
        self.charged_until
    }

    /// Charges for machines over times that were added up; no second of them twice, whatever is handed in.
    ///
    /// # Errors
    /// See [`LedgerError`]. Nothing of it was charged then, and it may be handed in again.
    pub fn charge(&mut self, accrued: &[Accrued], now: Timestamp) -> Result<(), LedgerError> {
        let mut costs = BTreeMap::new();
        let mut until = self.charged_until.unwrap_or(Timestamp::MIN);
        for time in accrued {
            // What would be dropped at once need not be written.
            let from = time.from.max(until).max(self.oldest(now));
            for line in &time.lines {
                let mut hour = hour_of(from);
                while hour < time.to {
                    let next = next_hour(hour);
                    let share = seconds(hour.max(from), next.min(time.to)) / time.seconds();
                    let cost = self.cost(&mut costs, hour, &line.group, &line.region)?;
                    match line.billing {
                        Billing::Running => cost.running_seconds += line.machine_seconds * share,
                        Billing::Stopped => cost.stopped_seconds += line.machine_seconds * share,
                    }
                    cost.cost += line.money * share;
                    hour = next;
                }
            }
            until = until.max(time.to);
        }
        let put: Vec<Entry> = costs.into_iter().map(|(key, cost): (_, Cost)| (key, cost.encode())).collect();
        let until = (until > Timestamp::MIN).then_some(until);
        self.written(put, &[], until)?;
        self.charged_until = until;
        self.prune(now)
    }

    /// Charges for the time in which no scaler looked: `machines`, the first that are seen, are taken to have been as
    /// they are since the last charge, or since they were made. From then on `accrual` adds up.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn catch_up(
        &mut self,
        accrual: &mut Accrual,
        groups: &[GroupSpec],
        machines: &[Machine],
        now: Timestamp,
    ) -> Result<(), LedgerError> {
        let mut accrued = Vec::new();
        if let Some(last) = self.charged_until.filter(|last| *last < now) {
            let there = machines.iter().filter(|machine| machine.created_at <= last);
            let mut missed = Accrual::new(Duration::MAX);
            let first = missed.observe(last, groups, there);
            match first.and_then(|_| missed.observe(now, groups, machines.iter())) {
                Ok(times) => accrued = times,
                Err(far) => warn!(error = %far, "what machines have cost meanwhile is not known"),
            }
        }
        if let Err(refused) = accrual.observe(now, groups, machines.iter()) {
            warn!(error = %refused, "what machines cost is not added up yet");
        }
        self.charge(&accrued, now)?;
        if self.charged_until.is_none() {
            self.written(Vec::new(), &[], Some(now))?;
            self.charged_until = Some(now);
        }
        Ok(())
    }

    /// Counts predictions that were made of late, by group and region.
    ///
    /// # Errors
    /// See [`LedgerError`]. None of them was counted then.
    pub fn predicted(
        &mut self,
        predictions: &BTreeMap<(String, String), f64>,
        now: Timestamp,
    ) -> Result<(), LedgerError> {
        let mut costs = BTreeMap::new();
        for ((group, region), made) in predictions {
            let fits = made.is_finite() && *made > 0.0 && is_name(group) && is_name(region);
            if fits {
                self.cost(&mut costs, hour_of(now), group, region)?.predictions += made;
            }
        }
        let put: Vec<Entry> = costs.into_iter().map(|(key, cost): (_, Cost)| (key, cost.encode())).collect();
        if put.is_empty() { Ok(()) } else { self.written(put, &[], None) }
    }

    /// Keeps a decision.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn decided(&mut self, decision: &Decision) -> Result<(), LedgerError> {
        let logged = LoggedDecision::from(decision);
        let key = self.next_key(Kind::Decision, decision.at)?;
        self.written(vec![(key, logged.encode())], &[], None)
    }

    /// Keeps how long a machine took to be ready.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn was_ready(&mut self, time: &ReadyTime) -> Result<(), LedgerError> {
        let key = self.next_key(Kind::Ready, time.at)?;
        self.written(vec![(key, time.encode())], &[], None)
    }

    /// The costs of the hours that begin from one time up to, and not with, another, in order.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn costs(&mut self, from: Timestamp, until: Timestamp) -> Result<Vec<Cost>, LedgerError> {
        let entries = self.asked(|store| store.newest(Kind::Cost, from, until, COSTS_MAX))?;
        Ok(entries.iter().filter_map(|(key, value)| Cost::decode(key, value)).collect())
    }

    /// The newest `max` decisions from one time up to, and not with, another, in order.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn decisions(
        &mut self,
        from: Timestamp,
        until: Timestamp,
        max: usize,
    ) -> Result<Vec<LoggedDecision>, LedgerError> {
        let entries = self.asked(|store| store.newest(Kind::Decision, from, until, max))?;
        Ok(entries.iter().filter_map(|(key, value)| LoggedDecision::decode(key, value)).collect())
    }

    /// The newest `max` times to ready from one time up to, and not with, another, in order.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn ready_times(
        &mut self,
        from: Timestamp,
        until: Timestamp,
        max: usize,
    ) -> Result<Vec<ReadyTime>, LedgerError> {
        let entries = self.asked(|store| store.newest(Kind::Ready, from, until, max))?;
        Ok(entries.iter().filter_map(|(key, value)| ReadyTime::decode(key, value)).collect())
    }

    /// What was spent of the calendar month, UTC.
    ///
    /// # Errors
    /// See [`LedgerError`]. What was spent is not known then, and is not nothing.
    pub fn spent(&mut self, now: Timestamp) -> Result<Spent, LedgerError> {
        let (first, next) = month_of(now);
        // The sum of no numbers is -0, which would be read as such.
        let this_month = self.costs(first, next)?.iter().fold(0.0, |sum, cost| sum + cost.cost);
        let remaining = Duration::try_from(next.duration_since(now)).unwrap_or_default();
        Ok(Spent { this_month, remaining })
    }

    /// Money for 1,000 predictions of a group in the hours from `from` on, the present one too; `None`: it made none.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn cost_per_1000(
        &mut self,
        group: &str,
        from: Timestamp,
        now: Timestamp,
    ) -> Result<Option<f64>, LedgerError> {
        let costs = self.costs(hour_of(from), next_hour(now))?;
        let own = costs.iter().filter(|cost| cost.group == group);
        let (cost, made) =
            own.fold((0.0, 0.0), |(cost, made), hour| (cost + hour.cost, made + hour.predictions));
        Ok((made > 0.0).then(|| cost / made * 1000.0))
    }

    /// The row of an hour, as it is on the disk or as it will be.
    fn cost<'a>(
        &mut self,
        costs: &'a mut BTreeMap<Vec<u8>, Cost>,
        hour: Timestamp,
        group: &str,
        region: &str,
    ) -> Result<&'a mut Cost, LedgerError> {
        let key = cost_key(hour, group, region);
        if !costs.contains_key(&key) {
            let value = self.asked(|store| store.get(&key))?;
            let kept = value.and_then(|value| Cost::decode(&key, &value));
            costs.insert(key.clone(), kept.unwrap_or_else(|| Cost::empty(hour, group, region)));
        }
        Ok(costs.entry(key).or_insert_with(|| Cost::empty(hour, group, region)))
    }

    /// Behind all that is there of that millisecond.
    fn next_key(&mut self, kind: Kind, at: Timestamp) -> Result<Vec<u8>, LedgerError> {
        let until = at.checked_add(SignedDuration::from_millis(1)).unwrap_or(Timestamp::MAX);
        let last = self.asked(|store| store.newest(kind, at, until, 1))?;
        let number = last.first().and_then(|(key, _)| number_of(key));
        Ok(numbered_key(kind, at, number.map_or(0, |number| number.saturating_add(1))))
    }

    fn oldest(&self, now: Timestamp) -> Timestamp {
        let keep = SignedDuration::try_from(self.keep).unwrap_or(SignedDuration::MAX);
        now.checked_sub(keep).unwrap_or(Timestamp::MIN)
    }

    fn prune(&mut self, now: Timestamp) -> Result<(), LedgerError> {
        let is_due = self.pruned_at.is_none_or(|at| {
            Duration::try_from(now.duration_since(at)).is_ok_and(|since| since >= PRUNE_EVERY)
        });
        if !is_due {
            return Ok(());
        }
        let oldest = self.oldest(now);
        for (kind, max) in
            [(Kind::Cost, COSTS_MAX), (Kind::Decision, DECISIONS_MAX), (Kind::Ready, READY_MAX)]
        {
            let surplus = self.asked(|store| store.surplus(kind, oldest, max))?;
            for keys in surplus.chunks(1024) {
                self.written(Vec::new(), keys, None)?;
            }
        }
        self.pruned_at = Some(now);
        Ok(())
    }

    fn written(
        &mut self,
        put: Vec<Entry>,
        removed: &[Vec<u8>],
        charged_until: Option<Timestamp>,
    ) -> Result<(), LedgerError> {
        self.asked(|store| store.write(put, removed, charged_until))
    }

    /// Asks the store, opened again where it failed before.
    fn asked<T>(&mut self, ask: impl FnOnce(&Store) -> Result<T, Failure>) -> Result<T, LedgerError> {
        let store = match self.store.take() {
            Some(store) => store,
            None => Store::reopen(&self.dir).map_err(|failure| self.failed(failure))?,
        };
        match ask(&store) {
            Ok(answer) => {
                self.store = Some(store);
                Ok(answer)
            }
            Err(failure) => Err(self.failed(failure)),
        }
    }

    fn failed(&self, failure: Failure) -> LedgerError {
        let dir = self.dir.clone();
        match failure {
            Failure::Io(source) => LedgerError::Io { dir, source },
            Failure::Format(found) => LedgerError::Format { dir, found },
            Failure::Damage(what) => LedgerError::Damage { dir, what },
        }
    }
}

/// From one time to another; none if that is before.
fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64().max(0.0)
}

/// When the month of `now`, UTC, begins, and when the next one does.
fn month_of(now: Timestamp) -> (Timestamp, Timestamp) {
    let first = TimeZone::UTC.to_datetime(now).date().first_of_month();
    let begins = |date: jiff::civil::Date| TimeZone::UTC.to_timestamp(date.to_datetime(Time::midnight()));
    let next = first.checked_add(1.month()).and_then(begins);
    (begins(first).unwrap_or(Timestamp::MIN), next.unwrap_or(Timestamp::MAX))
}
