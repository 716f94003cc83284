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
        tree_ended: false,
        stopping: false,
        models_here,
        models_elsewhere,
        devices: &devices,
        open_breakers: 0,
        falls_back: policy.falls_back(),
    });
    assert!(verdict.live);
    assert_eq!(verdict.now == Now::Ready, expected.0);
    assert_eq!(verdict.reasons, expected.1);
}
