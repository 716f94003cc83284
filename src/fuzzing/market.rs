//! What the scaler reads: calendars of markets, conditions of rules, past demand and past decisions.

use std::sync::LazyLock;

use peregrine_scaler::calendar::Calendars;
use peregrine_scaler::control::FleetSpec;
use peregrine_scaler::rule::Condition;
use peregrine_scaler::simulate::{Trace, replay};

use crate::config::{Sources, resolve};

static CALENDARS: LazyLock<Calendars> = LazyLock::new(Calendars::built_in);
static FLEET: LazyLock<FleetSpec> = LazyLock::new(|| {
    resolve(&Sources::default()).expect("what is built in is in order").config.scaler.fleet()
});

/// A calendar, which may extend those that come with the product.
pub fn calendar(input: &[u8]) -> bool {
    std::str::from_utf8(input).is_ok_and(|text| CALENDARS.clone().with(&[("mine", text)]).is_ok())
}

/// The condition of a rule.
pub fn condition(input: &[u8]) -> bool {
    std::str::from_utf8(input).is_ok_and(|text| Condition::new(text).is_ok())
}

/// Demand of the past: what is read writes itself down, and is read again as the same.
pub fn demand(input: &[u8]) -> bool {
    let Some(trace) = std::str::from_utf8(input).ok().and_then(|text| Trace::read(text).ok()) else {
        return false;
    };
    let written = trace.written();
    assert_eq!(Trace::read(&written).map(|again| again.written()), Ok(written));
    true
}

/// What a scaler saw and decided, decided again.
pub fn decisions(input: &[u8]) -> bool {
    std::str::from_utf8(input).is_ok_and(|text| replay(text, FLEET.clone()).is_ok())
}
