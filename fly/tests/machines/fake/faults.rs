//! Faults that a test injects, by action: the next so many calls, or a share of them by seed.

use std::time::Duration;

use super::Fake;

/// What goes wrong.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Fault {
    /// Nothing gets there.
    Unreached,
    /// It is carried out or not, and no answer comes.
    Lost { happens: bool },
    /// It is carried out or not, and this is the answer.
    Status { status: u16, happens: bool },
    /// It is carried out, and the answer is broken.
    Garbled,
    /// It is refused with this status and body.
    Refused(u16, String),
    /// The change takes so many times as long.
    Slow(u32),
    /// The host cannot boot it.
    LaunchFails,
    /// The change does not end for `Settings::stuck_for`.
    Stuck,
    /// A machine that is made without being started refuses a start for so long.
    Unsettled(Duration),
    /// A machine that is made is shown only after so long, and the answer is a 408.
    Late(Duration),
    /// A start moves it to another host.
    Moves,
}

impl Fault {
    pub(crate) fn refused(status: u16, error: &str) -> Self {
        Self::Refused(status, serde_json::json!({ "error": error }).to_string())
    }

    /// Row: 409, host.
    pub(crate) fn host_full() -> Self {
        let text = "aborted: could not reserve resource for machine: insufficient CPUs available to fulfill request on the \
                    current host";
        Self::refused(409, text)
    }

    /// Row: 409, region.
    pub(crate) fn region_full() -> Self {
        Self::refused(409, "aborted: no capacity")
    }

    /// Row: 422, region.
    pub(crate) fn no_candidate() -> Self {
        let body = serde_json::json!({ "status": "insufficient_capacity", "error": "could not find a candidate host" });
        Self::Refused(422, body.to_string())
    }

    /// Row: 409, concurrent update.
    pub(crate) fn concurrent() -> Self {
        Self::refused(409, "aborted: machine update failed due to concurrent update")
    }

    /// Row: 429.
    pub(crate) fn rate_limited() -> Self {
        Self::refused(429, "rate limit exceeded")
    }
}

/// A fault that waits for its calls.
#[derive(Clone, Debug)]
pub(crate) struct Injection {
    /// The action, or `*` for each.
    pub(crate) action: &'static str,
    /// Of this machine alone.
    pub(crate) machine: Option<String>,
    pub(crate) fault: Fault,
    pub(crate) share: f64,
    pub(crate) left: u32,
}

impl Fake {
    /// The next `times` calls of `action` go wrong.
    pub(crate) fn inject(&mut self, action: &'static str, fault: Fault, times: u32) {
        self.injections.push(Injection { action, machine: None, fault, share: 1.0, left: times });
    }

    /// A share of the calls of `action` goes wrong.
    pub(crate) fn inject_share(&mut self, action: &'static str, fault: Fault, share: f64) {
        self.injections.push(Injection { action, machine: None, fault, share, left: u32::MAX });
    }

    pub(super) fn draw(&mut self, action: &'static str, machine: Option<&str>) -> Option<Fault> {
        for index in 0..self.injections.len() {
            let Injection { action: meant, machine: of, share, left, .. } = &self.injections[index];
            let is_meant =
                (*meant == action || *meant == "*") && of.as_deref().is_none_or(|of| machine == Some(of));
            let (share, left) = (*share, *left);
            if is_meant && left > 0 && self.happens(share) {
                let injection = &mut self.injections[index];
                injection.left -= u32::from(left < u32::MAX);
                self.faults += 1;
                return Some(injection.fault.clone());
            }
        }
        None
    }
}
