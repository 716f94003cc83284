//! The right to change a machine, as it is kept beside the machine's record.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use peregrine_scaler::pool::{Hold, PoolError};
use rand::RngExt as _;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};

/// As written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HoldFile {
    nonce: String,
    until: String,
}

impl From<&Hold> for HoldFile {
    fn from(hold: &Hold) -> Self {
        Self { nonce: hold.nonce.clone(), until: hold.until.to_string() }
    }
}

impl HoldFile {
    /// `None`: no point in time is written there.
    pub(super) fn hold(self) -> Option<Hold> {
        Some(Hold { until: self.until.parse().ok()?, nonce: self.nonce })
    }
}

/// The hold that `held` asks for, in place of the `present` one.
pub(super) fn taken(
    present: Option<&Hold>,
    held: Option<&Hold>,
    ttl: Duration,
    now: Timestamp,
    chance: &mut StdRng,
) -> Result<Hold, PoolError> {
    let nonce = match (present.filter(|hold| hold.until > now), held) {
        (Some(present), Some(held)) if present.nonce == held.nonce => present.nonce.clone(),
        (Some(present), _) => return Err(PoolError::Held { until: present.until }),
        (None, _) => format!("{:032x}", chance.random::<u128>()),
    };
    Ok(Hold { nonce, until: later(now, ttl) })
}

/// Is `hold` the present one?
pub(super) fn check(present: Option<&Hold>, hold: &Hold, now: Timestamp) -> Result<(), PoolError> {
    match present.filter(|present| present.until > now) {
        Some(present) if present.nonce == hold.nonce => Ok(()),
        Some(present) => Err(PoolError::Held { until: present.until }),
        // It has run out: whoever had it must not act on what was true then.
        None => Err(PoolError::Held { until: now }),
    }
}

/// `now` and `delay`, as far as time goes.
pub(super) fn later(now: Timestamp, delay: Duration) -> Timestamp {
    let delay = SignedDuration::try_from(delay).ok();
    delay.and_then(|delay| now.checked_add(delay).ok()).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    const TTL: Duration = Duration::from_secs(30);

    #[test]
    fn one_holds_until_the_time_is_over() {
        let mut chance = StdRng::seed_from_u64(1);
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let first = taken(None, None, TTL, now, &mut chance).unwrap();
        assert_eq!(first.until, later(now, TTL));
        let refused = Err(PoolError::Held { until: first.until });
        assert_eq!(taken(Some(&first), None, TTL, now, &mut chance), refused);
        let renewed = taken(Some(&first), Some(&first), TTL, later(now, TTL / 2), &mut chance).unwrap();
        assert_eq!((&renewed.nonce, renewed.until), (&first.nonce, later(now, TTL + TTL / 2)));
        assert_eq!(check(Some(&renewed), &first, now), Ok(()), "the nonce is what counts");
        let over = renewed.until;
        assert_eq!(check(Some(&renewed), &renewed, over), Err(PoolError::Held { until: over }));
        let second = taken(Some(&renewed), Some(&renewed), TTL, over, &mut chance).unwrap();
        assert_ne!(second.nonce, renewed.nonce, "what has run out is not renewed");
        assert_eq!(check(Some(&second), &renewed, over), Err(PoolError::Held { until: second.until }));
        assert_eq!(check(None, &second, over), Err(PoolError::Held { until: over }));
    }

    #[test]
    fn time_has_an_end() {
        assert_eq!(later(Timestamp::MAX, TTL), Timestamp::MAX);
        assert_eq!(later(Timestamp::UNIX_EPOCH, Duration::MAX), Timestamp::MAX);
    }
}
