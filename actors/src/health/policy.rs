//! Decides whether a node is worth keeping and whether it can answer, and says why not.
//!
//! Knows no clock and samples nothing.

use peregrine_shaders::Backend;

use super::steady::Now;
use crate::status::{DeviceState, DeviceStatus};

/// What the verdict is made from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Findings<'a> {
    pub(crate) tree_ended: bool,
    pub(crate) stopping: bool,
    pub(crate) models_here: usize,
    /// Whether other nodes answer for this one.
    pub(crate) models_elsewhere: bool,
    pub(crate) devices: &'a [DeviceStatus],
    pub(crate) open_breakers: usize,
    /// Models here that no device may answer, as an operator has it.
    pub(crate) shut_models: usize,
    /// Why predictions cannot be recorded, where none is given without a record.
    pub(crate) unrecorded: Option<&'a str>,
    /// Whether the CPU stands in for the GPU.
    pub(crate) falls_back: bool,
}

/// The verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) live: bool,
    pub(crate) now: Now,
    pub(crate) reasons: Vec<String>,
}

pub(crate) fn judge(findings: Findings<'_>) -> Verdict {
    let mut reasons = Vec::new();
    let mut now = Now::Ready;
    let mut missing = |is_missing: bool, verdict: Now, reason: &str| {
        if is_missing {
            // The first reason counts: the later ones are milder.
            now = if now == Now::Ready { verdict } else { now };
            reasons.push(reason.to_owned());
        }
    };
    missing(findings.tree_ended, Now::Closed, "the actors have ended");
    missing(findings.stopping, Now::Closed, "the node is stopping");
    let no_model = findings.models_here == 0 && !findings.models_elsewhere;
    missing(no_model, Now::Closed, "no model is ready");
    let up = |backend| findings.devices.iter().any(|d| d.backend == backend && d.state == DeviceState::Up);
    let wants_gpu = findings.devices.iter().any(|device| device.backend == Backend::Gpu);
    let serves = match (wants_gpu, findings.falls_back) {
        (false, _) => up(Backend::Cpu),
        (true, true) => up(Backend::Gpu) || up(Backend::Cpu),
        (true, false) => up(Backend::Gpu),
    };
    missing(!serves && !findings.models_elsewhere, Now::NotReady, "no device serves");
    let all_shut = findings.models_here > 0 && findings.shut_models == findings.models_here;
    missing(all_shut && !findings.models_elsewhere, Now::NotReady, "breakers of every model are forced open");
    if let Some(reason) = findings.unrecorded {
        missing(true, Now::NotReady, &format!("predictions cannot be recorded: {reason}"));
    }
    for device in findings.devices {
        match &device.state {
            DeviceState::Up => {}
            DeviceState::Starting => reasons.push(format!("{} is starting", device.id())),
            DeviceState::Down { reason } => {
                reasons.push(format!("{} is down: {reason}", device.id()));
            }
        }
    }
    if findings.open_breakers > 0 {
        reasons.push(format!("{} breakers are not closed", findings.open_breakers));
    }
    Verdict { live: !findings.tree_ended, now, reasons }
}
