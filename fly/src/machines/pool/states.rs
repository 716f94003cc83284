//! What a machine does, from what the platform says that it does.

use std::time::Duration;

use peregrine_scaler::Timestamp;
use peregrine_scaler::fleet::MachineState;

use crate::machines::wire::{Event, HostStatus, Machine, State};

/// A change of state that takes longer is stuck. Source: `flyctl`.
const STUCK_AFTER: Duration = Duration::from_secs(5 * 60);
/// The same for a change of its configuration.
const UPDATE_STUCK_AFTER: Duration = Duration::from_secs(10 * 60);

/// The state of a machine. What cannot be known is said to be unknown.
pub(super) fn of(machine: &Machine, now: Timestamp) -> MachineState {
    if machine.host_status == HostStatus::Unreachable {
        // Its state is the last one that was heard of.
        return MachineState::Unknown;
    }
    let patience = match machine.state {
        State::Updating | State::Replacing => UPDATE_STUCK_AFTER,
        _ => STUCK_AFTER,
    };
    let seen = seen(&machine.state);
    let is_moving = !matches!(
        machine.state,
        State::Created
            | State::Started
            | State::Stopped
            | State::Suspended
            | State::Failed
            | State::LaunchFailed
    );
    let is_stuck = machine
        .updated()
        .and_then(|updated| updated.checked_add(patience).ok())
        .is_some_and(|until| until < now);
    match seen {
        MachineState::Destroying => MachineState::Destroying,
        _ if is_moving && is_stuck => MachineState::Unknown,
        MachineState::Started => running(machine),
        seen => seen,
    }
}

/// The state alone, without what else is known.
pub(super) fn seen(state: &State) -> MachineState {
    match state {
        State::Creating | State::Starting | State::Restarting | State::Updating | State::Replacing => {
            MachineState::Starting
        }
        State::Started => MachineState::Started,
        State::Stopping | State::Suspending => MachineState::Stopping,
        // Never started, which costs the same and starts the same.
        State::Created | State::Stopped => MachineState::Stopped,
        State::Suspended => MachineState::Suspended,
        State::Failed | State::LaunchFailed => MachineState::Failed,
        State::Destroying | State::Destroyed | State::Replaced | State::Migrated => MachineState::Destroying,
        State::Unheard => MachineState::Unknown,
    }
}

/// One that is said to run may have just ended: its latest event is ahead of its state.
fn running(machine: &Machine) -> MachineState {
    match machine.events.first().filter(|event| event.kind == "exit").and_then(Event::exit) {
        Some(exit) if exit.restarting => MachineState::Starting,
        Some(_) => MachineState::Stopping,
        None => MachineState::Started,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-11-28T12:00:00Z";

    #[track_caller]
    fn check(json: serde_json::Value, expected: MachineState) {
        let mut whole = serde_json::json!({ "id": "a", "updated_at": "2026-11-28T11:59:00Z" });
        whole.as_object_mut().unwrap().extend(json.as_object().unwrap().clone());
        let machine: Machine = serde_json::from_value(whole.clone()).unwrap();
        assert_eq!(of(&machine, NOW.parse().unwrap()), expected, "{whole}");
    }

    #[test]
    fn every_state_has_its_word() {
        use MachineState as To;
        for (word, expected) in [
            ("created", To::Stopped),
            ("started", To::Started),
            ("stopped", To::Stopped),
            ("suspended", To::Suspended),
            ("failed", To::Failed),
            ("creating", To::Starting),
            ("starting", To::Starting),
            ("stopping", To::Stopping),
            ("restarting", To::Starting),
            ("suspending", To::Stopping),
            ("destroying", To::Destroying),
            ("updating", To::Starting),
            ("replacing", To::Starting),
            ("launch_failed", To::Failed),
            ("something new", To::Unknown),
        ] {
            check(serde_json::json!({ "state": word }), expected);
        }
    }

    #[test]
    fn what_is_old_is_not_known() {
        let unreachable = serde_json::json!({ "state": "started", "host_status": "unreachable" });
        check(unreachable, MachineState::Unknown);
        check(serde_json::json!({ "state": "started", "host_status": "unknown" }), MachineState::Unknown);
        let at =
            |state: &str, updated_at: &str| serde_json::json!({ "state": state, "updated_at": updated_at });
        check(at("starting", "2026-11-28T11:55:00Z"), MachineState::Starting);
        check(at("starting", "2026-11-28T11:54:59Z"), MachineState::Unknown);
        check(at("replacing", "2026-11-28T11:51:00Z"), MachineState::Starting);
        check(at("replacing", "2026-11-28T11:49:00Z"), MachineState::Unknown);
        check(at("destroying", "2026-11-28T01:00:00Z"), MachineState::Destroying);
        check(at("stopped", "2026-11-27T01:00:00Z"), MachineState::Stopped);
        check(at("starting", "some time ago"), MachineState::Starting);
    }

    #[test]
    fn a_process_that_has_just_ended_does_not_serve() {
        let ended = |exit: serde_json::Value| {
            serde_json::json!({ "state": "started",
                "events": [{ "type": "exit", "request": { "exit_event": exit } }, { "type": "start" }] })
        };
        check(ended(serde_json::json!({ "exit_code": 1, "restarting": true })), MachineState::Starting);
        check(ended(serde_json::json!({ "exit_code": 1, "restarting": false })), MachineState::Stopping);
        let started =
            serde_json::json!({ "state": "started", "events": [{ "type": "start" }, { "type": "exit" }] });
        check(started, MachineState::Started);
    }
}
