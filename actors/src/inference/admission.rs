//! Decides whether a request may wait for a device, and how much may wait at all.
//!
//! Knows no actor and no device: what waits, what comes and times go in, a verdict comes out. Work is counted in
//! multiply-adds (rows × what the model takes for one), so that a portfolio of a large model weighs what it costs.
//! - What cannot be answered by its deadline, by the pace of late, is refused at once.
//! - The *limit* on waiting work follows the waits it causes, by their gradient: the idea of Netflix's
//!   concurrency-limits (`Gradient2Limit`), with the time that a batch computes, which is known here, in place of a
//!   guessed time without load.
//! - Of the limit, less important requests get less; no caller gets more than its share while others want theirs, and
//!   one that holds nothing gets in; a model gets `model_share` while others wait.

use std::time::{Duration, Instant};

use crate::request::Priority;

/// How much work may wait for one device, and for whom.
#[derive(Clone, Debug, PartialEq)]
pub struct AdmissionLimits {
    /// When requests wait longer than this, and than three batches, less is let in.
    pub delay_target: Duration,
    /// Of what may wait, what one model may hold while others wait too, in `(0, 1]`.
    pub model_share: f64,
}

impl Default for AdmissionLimits {
    fn default() -> Self {
        Self { delay_target: Duration::from_millis(250), model_share: 0.75 }
    }
}

/// Batches that a request may wait for without being said to wait long.
const BATCHES: u32 = 3;
/// Of the limit, by [`Priority`].
const SHARES: [f64; Priority::ALL.len()] = [0.6, 0.9, 1.0];
/// Up to this share of the limit nobody is asked who else wants some.
const UNCONTESTED: f64 = 0.5;
/// What a caller that holds nothing may add to a full limit.
const NEWCOMER: f64 = 1.25;

/// A request that wants to wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim {
    pub(crate) rows: usize,
    pub(crate) work: u64,
    pub(crate) priority: Priority,
    /// Until its deadline.
    pub(crate) remaining: Duration,
}

/// What waits already.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Load {
    pub(crate) requests: usize,
    pub(crate) rows: usize,
    pub(crate) work: u64,
    /// Of requests that leave before this one, whoever made them.
    pub(crate) rows_ahead: usize,
    pub(crate) work_ahead: u64,
    /// Of the same model version.
    pub(crate) model_work: u64,
    pub(crate) models: usize,
    /// Of the same caller.
    pub(crate) caller_work: u64,
    /// Callers of whom something waits, this one not counted unless it is among them.
    pub(crate) callers: usize,
}

/// What is known of the device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pulse {
    /// Nanoseconds for a multiply-add, of late; zero: not known yet.
    pub(crate) ns: f64,
    /// Until the batch that runs now should be done.
    pub(crate) busy: Duration,
    /// Rows that leave together.
    pub(crate) batch_rows: usize,
}

/// Why a request may not wait. All of them end by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Excess {
    /// As many rows wait as may.
    Rows,
    /// It would be answered too late.
    Deadline,
    /// As much work waits as may, for one of its importance.
    Work,
    /// Its caller holds its share, and others wait.
    Caller,
    /// Its model holds its share, and others wait.
    Model,
}

impl Excess {
    /// Each of them, in the order of [`Self::index`].
    pub(crate) const NAMES: [&str; 5] = ["rows", "deadline", "work", "caller", "model"];

    pub(crate) const fn index(self) -> usize {
        match self {
            Self::Rows => 0,
            Self::Deadline => 1,
            Self::Work => 2,
            Self::Caller => 3,
            Self::Model => 4,
        }
    }
}

/// A refusal, and the work that must be done before it would be another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Turned {
    pub(crate) why: Excess,
    pub(crate) excess: u64,
}

/// Whether a request may wait. An empty queue takes any, so that none is refused forever.
pub(crate) fn judge(
    claim: &Claim,
    load: &Load,
    limit: u64,
    rows_max: usize,
    pulse: Pulse,
    limits: &AdmissionLimits,
) -> Result<(), Turned> {
    if load.requests == 0 {
        return Ok(());
    }
    let turned = |why, excess| Err(Turned { why, excess });
    if load.rows.saturating_add(claim.rows) > rows_max {
        return turned(Excess::Rows, claim.work.min(load.work));
    }
    let ahead = pulse.busy + time(load.work_ahead.saturating_add(claim.work), pulse.ns);
    // What leaves with the next batch is not worth a guess.
    if ahead > claim.remaining && load.rows_ahead.saturating_add(claim.rows) > pulse.batch_rows {
        let late = ahead - claim.remaining;
        return turned(Excess::Deadline, (late.as_nanos() as f64 / pulse.ns.max(f64::MIN_POSITIVE)) as u64);
    }
    let total = load.work.saturating_add(claim.work);
    let over = |held: u64, share: f64| {
        let allowed = scaled(limit, share);
        (held > allowed).then(|| held - allowed)
    };
    let is_new = load.caller_work == 0;
    let share = SHARES[claim.priority as usize] * if is_new && load.callers > 0 { NEWCOMER } else { 1.0 };
    if let Some(excess) = over(total, share) {
        return turned(Excess::Work, excess);
    }
    if over(total, UNCONTESTED).is_none() {
        return Ok(());
    }
    if load.callers > 1
        && !is_new
        && let Some(excess) = over(load.caller_work.saturating_add(claim.work), 1.0 / load.callers as f64)
    {
        return turned(Excess::Caller, excess);
    }
    if load.models > 1
        && load.model_work > 0
        && let Some(excess) = over(load.model_work.saturating_add(claim.work), limits.model_share)
    {
        return turned(Excess::Model, excess);
    }
    Ok(())
}

/// How long work takes at this pace.
pub(crate) fn time(work: u64, ns: f64) -> Duration {
    Duration::from_nanos((work as f64 * ns) as u64)
}

fn scaled(limit: u64, share: f64) -> u64 {
    // Saturates: a limit that was never needed is the largest number.
    (limit as f64 * share) as u64
}

/// How much work may wait: follows the waits that it causes.
#[derive(Clone, Debug)]
pub(crate) struct Limit {
    work: u64,
    /// Not changed before: what was changed last shows only in requests that came since.
    until: Option<Instant>,
    waited: Duration,
    took: Duration,
    batches: u32,
    /// The most that waited.
    held: u64,
}

/// The longest and the shortest time between two changes.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));
/// At most halved at once.
const GRADIENT_MIN: f64 = 0.5;

impl Limit {
    pub(crate) const fn new() -> Self {
        let zero = Duration::ZERO;
        Self { work: u64::MAX, until: None, waited: zero, took: zero, batches: 0, held: 0 }
    }

    pub(crate) const fn work(&self) -> u64 {
        self.work
    }

    /// A batch has run: how long its requests had waited on average, what it took, and how much waits now.
    pub(crate) fn observe(
        &mut self,
        waited: Duration,
        took: Duration,
        held: u64,
        now: Instant,
        target: Duration,
    ) {
        self.waited += waited;
        self.took += took;
        self.batches += 1;
        self.held = self.held.max(held);
        if self.until.is_some_and(|until| now < until) {
            return;
        }
        let (waited, took) = (self.waited / self.batches, self.took / self.batches);
        let allowed = target.max(took.saturating_mul(BATCHES));
        if waited > allowed {
            let gradient = (allowed.as_secs_f64() / waited.as_secs_f64()).max(GRADIENT_MIN);
            self.work = scaled(self.work.min(self.held), gradient).max(1);
        } else if self.held >= self.work / 2 {
            self.work = self.work.saturating_add(self.work / 8 + 1);
        }
        (self.waited, self.took, self.batches, self.held) = (Duration::ZERO, Duration::ZERO, 0, 0);
        self.until = Some(now + waited.max(PATIENCE.0).min(PATIENCE.1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = 1000;

    fn claim() -> Claim {
        Claim { rows: 1, work: 10, priority: Priority::Normal, remaining: Duration::from_secs(1) }
    }

    /// Of one caller and one model, unless a test says otherwise.
    fn load(work: u64) -> Load {
        let rows = work as usize / 10;
        Load {
            requests: rows,
            rows,
            work,
            rows_ahead: rows,
            work_ahead: work,
            model_work: work,
            models: 1,
            caller_work: work,
            callers: 1,
        }
    }

    fn pulse() -> Pulse {
        Pulse { ns: 1000.0, busy: Duration::ZERO, batch_rows: 8 }
    }

    #[track_caller]
    fn check(claim: Claim, load: Load, pulse: Pulse, want: Result<(), Excess>) {
        let limits = AdmissionLimits { model_share: 0.5, ..AdmissionLimits::default() };
        let got = judge(&claim, &load, LIMIT, 500, pulse, &limits);
        assert_eq!(got.map_err(|turned| turned.why), want, "{claim:?} {load:?}");
    }

    #[test]
    fn an_empty_queue_takes_anything() {
        let huge = Claim { rows: 100_000, work: 1 << 60, remaining: Duration::ZERO, ..claim() };
        check(huge, Load::default(), pulse(), Ok(()));
    }

    #[test]
    fn the_limit_is_for_work_and_the_less_important_get_less_of_it() {
        for (priority, full) in [(Priority::Low, 600), (Priority::Normal, 900), (Priority::High, 1000)] {
            let claim = Claim { priority, ..claim() };
            check(claim, load(full - 10), pulse(), Ok(()));
            check(claim, load(full), pulse(), Err(Excess::Work));
        }
        let large = Claim { rows: 40, work: 400, ..claim() };
        check(large, load(600), pulse(), Err(Excess::Work));
        check(claim(), Load { rows: 500, ..load(100) }, pulse(), Err(Excess::Rows));
    }

    #[test]
    fn what_would_be_late_is_refused_unless_it_leaves_with_the_next_batch() {
        let urgent = Claim { remaining: Duration::from_micros(300), ..claim() };
        check(urgent, load(280), pulse(), Ok(()));
        check(urgent, load(300), pulse(), Err(Excess::Deadline));
        check(urgent, Load { work_ahead: 0, rows_ahead: 0, ..load(300) }, pulse(), Ok(()));
        check(
            urgent,
            load(280),
            Pulse { busy: Duration::from_micros(100), ..pulse() },
            Err(Excess::Deadline),
        );
        check(urgent, load(300), Pulse { batch_rows: 100, ..pulse() }, Ok(()));
        check(urgent, load(300), Pulse { ns: 0.0, ..pulse() }, Ok(()));
    }

    #[test]
    fn callers_share_what_is_contested_and_a_newcomer_gets_in() {
        let both = |work, mine| Load { caller_work: mine, callers: 2, ..load(work) };
        check(claim(), both(480, 480), pulse(), Ok(()));
        check(claim(), both(600, 490), pulse(), Ok(()));
        check(claim(), both(600, 500), pulse(), Err(Excess::Caller));
        check(claim(), both(600, 100), pulse(), Ok(()));
        check(claim(), both(1000, 100), pulse(), Err(Excess::Work));
        check(claim(), Load { callers: 1, ..both(1000, 0) }, pulse(), Ok(()));
        check(claim(), Load { callers: 1, ..both(1200, 0) }, pulse(), Err(Excess::Work));
    }

    #[test]
    fn a_model_leaves_room_for_others_that_wait() {
        let two = |work, own| Load { model_work: own, models: 2, ..load(work) };
        check(claim(), two(700, 480), pulse(), Ok(()));
        check(claim(), two(700, 500), pulse(), Err(Excess::Model));
        check(claim(), Load { models: 1, ..two(700, 700) }, pulse(), Ok(()));
    }

    /// A queue that is fed twice what it can do settles near the wait that is wanted, and the limit recovers.
    #[test]
    fn the_limit_follows_the_waits_it_causes() {
        const TARGET: Duration = Duration::from_millis(50);
        let start = Instant::now();
        let (mut limit, mut held, mut waits) = (Limit::new(), 0_u64, Vec::new());
        // A batch of 10 units each millisecond, 20 units come meanwhile.
        for ms in 0..4000_u64 {
            let now = start + Duration::from_millis(ms);
            held = (held + 20).min(limit.work().max(held));
            let waited = Duration::from_millis(held / 10);
            held = held.saturating_sub(10);
            limit.observe(waited, Duration::from_millis(1), held, now, TARGET);
            waits.push(waited);
        }
        let (least, most) = waits[1000..]
            .iter()
            .fold((TARGET * 9, Duration::ZERO), |(least, most), wait| (least.min(*wait), most.max(*wait)));
        assert!(least >= TARGET / 3 && most <= TARGET * 2, "{least:?} to {most:?}");
        let full = limit.work();
        for ms in 4000..4500_u64 {
            limit.observe(
                Duration::ZERO,
                Duration::from_millis(1),
                limit.work(),
                start + Duration::from_millis(ms),
                TARGET,
            );
        }
        assert!(limit.work() > 4 * full);
    }

    #[test]
    fn slow_batches_are_no_overload() {
        let (start, mut limit) = (Instant::now(), Limit::new());
        for second in 0..20 {
            let waited = Duration::from_secs(2);
            limit.observe(
                waited,
                Duration::from_secs(1),
                100,
                start + Duration::from_secs(second),
                Duration::from_millis(50),
            );
        }
        assert_eq!(limit.work(), u64::MAX);
    }
}
