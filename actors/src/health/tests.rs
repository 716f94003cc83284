//! Findings as values, verdicts as values.

use peregrine_shaders::Backend;

use super::{Findings, Now, judge};
use crate::devices::DeviceId;
use crate::settings::FallbackPolicy;
use crate::status::{DeviceState, DeviceStatus};

#[test]
fn a_node_with_a_device_and_a_model_is_ready() {
    check(&[(Backend::Cpu, true)], 1, FallbackPolicy::Allow, (true, &[]));
}

#[test]
fn without_a_model_it_is_not_ready() {
    check(&[(Backend::Cpu, true)], 0, FallbackPolicy::Allow, (false, &["no model is ready"]));
}

#[test]
fn a_lost_gpu_degrades_but_serves() {
    let devices = [(Backend::Cpu, true), (Backend::Gpu, false)];
    check(&devices, 1, FallbackPolicy::Allow, (true, &["gpu is down: lost"]));
}

#[test]
fn a_lost_gpu_without_fallback_does_not_serve() {
    let devices = [(Backend::Cpu, true), (Backend::Gpu, false)];
    check(&devices, 1, FallbackPolicy::Never, (false, &["no device serves", "gpu is down: lost"]));
}

#[test]
fn a_node_whose_models_are_elsewhere_is_ready_whatever_its_devices_do() {
    let check = |devices, ready, reasons| {
        check_elsewhere(devices, (0, true), FallbackPolicy::Never, (ready, reasons));
    };
    check(&[(Backend::Cpu, true)], true, &[]);
    check(&[(Backend::Gpu, false)], true, &["gpu is down: lost"]);
}

#[test]
fn a_node_whose_breakers_refuse_every_model_is_not_ready() {
    let verdict = |shut_models, models_elsewhere| {
        let cpu = DeviceStatus { state: DeviceState::Up, ..DeviceStatus::idle(DeviceId::CPU) };
        let verdict =
            judge(Findings { models_here: 2, devices: &[cpu], shut_models, models_elsewhere, ..WELL });
        (verdict.now == Now::Ready, verdict.reasons.join(", "))
    };
    assert_eq!(verdict(1, false), (true, String::new()), "the other one is answered");
    assert_eq!(verdict(2, false), (false, "breakers of every model are forced open".to_owned()));
    assert_eq!(verdict(2, true), (true, String::new()), "another node answers");
}

#[test]
fn a_node_that_may_not_answer_without_a_record_is_not_ready_while_it_cannot_keep_one() {
    let cpu = DeviceStatus { state: DeviceState::Up, ..DeviceStatus::idle(DeviceId::CPU) };
    let verdict = judge(Findings { models_here: 1, devices: &[cpu], unrecorded: Some("no space"), ..WELL });
    assert_eq!(verdict.now, Now::NotReady);
    assert_eq!(verdict.reasons, ["predictions cannot be recorded: no space"]);
}

/// Nothing is there, and nothing is wrong.
const WELL: Findings<'static> = Findings {
    tree_ended: false,
    stopping: false,
    models_here: 0,
    models_elsewhere: false,
    devices: &[],
    open_breakers: 0,
    shut_models: 0,
    unrecorded: None,
    falls_back: true,
};

#[track_caller]
fn check(devices: &[(Backend, bool)], models: usize, policy: FallbackPolicy, expected: (bool, &[&str])) {
    check_elsewhere(devices, (models, false), policy, expected);
}

#[track_caller]
fn check_elsewhere(
    devices: &[(Backend, bool)],
    (models_here, models_elsewhere): (usize, bool),
    policy: FallbackPolicy,
    expected: (bool, &[&str]),
) {
    let device = |&(backend, up): &(Backend, bool)| DeviceStatus {
        state: if up { DeviceState::Up } else { DeviceState::Down { reason: "lost".into() } },
        ..DeviceStatus::idle(DeviceId { backend, index: 0 })
    };
    let devices: Vec<_> = devices.iter().map(device).collect();
    let verdict = judge(Findings {
        models_here,
        models_elsewhere,
        devices: &devices,
        falls_back: policy.falls_back(),
        ..WELL
    });
    assert!(verdict.live);
    assert_eq!(verdict.now == Now::Ready, expected.0);
    assert_eq!(verdict.reasons, expected.1);
}
