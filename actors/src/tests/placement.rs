//! Requests go to whichever device answers first.

use std::time::Duration;

use peregrine_shaders::Backend;

use super::fake::Mode;
use super::{Rig, ramp, until};
use crate::{DeviceState, Placement, Settings};

const US: Duration = Duration::from_micros(1);

fn fastest(settings: &mut Settings) {
    settings.placement = Placement::Fastest;
}

#[tokio::test]
async fn a_request_goes_to_the_device_that_answers_first() {
    let rig = Rig::gpu(fastest).await;
    rig.cpu.set(Mode::Slow(30 * US));
    rig.gpu.set(Mode::Slow(60 * US));
    for turn in 0..20 {
        let answer = rig.ask().await.unwrap();
        // The first four find out, two on each device.
        let expected = if turn < 2 { Backend::Gpu } else { Backend::Cpu };
        assert_eq!(answer.backend, expected, "request {turn}");
        assert!(!answer.degraded, "nothing is wrong with either");
    }
    let paces = rig.system.paces();
    assert!(paces.iter().any(|pace| pace.backend == Backend::Cpu && pace.rows == 1 && pace.took >= 30 * US));
    assert!(paces.iter().any(|pace| pace.backend == Backend::Gpu && pace.rows == 1 && pace.took >= 60 * US));
}

#[tokio::test]
async fn a_device_that_becomes_slow_loses_its_requests() {
    let rig = Rig::gpu(fastest).await;
    rig.cpu.set(Mode::Slow(200 * US));
    rig.gpu.set(Mode::Slow(60 * US));
    for _ in 0..4 {
        rig.ask().await.unwrap();
    }
    assert_eq!(rig.ask().await.unwrap().backend, Backend::Gpu);
    // Its clock is down.
    rig.gpu.set(Mode::Slow(400 * US));
    for _ in 0..4 {
        rig.ask().await.unwrap();
    }
    assert_eq!(rig.ask().await.unwrap().backend, Backend::Cpu);
}

#[tokio::test]
async fn sizes_are_placed_apart() {
    let rig = Rig::gpu(fastest).await;
    for (rows, cpu, gpu, expected) in [(1, 30, 60, Backend::Cpu), (64, 800, 90, Backend::Gpu)] {
        rig.cpu.set(Mode::Slow(cpu * US));
        rig.gpu.set(Mode::Slow(gpu * US));
        for _ in 0..5 {
            rig.system.forecast(rig.request(ramp(rows))).await.unwrap();
        }
        let answer = rig.system.forecast(rig.request(ramp(rows))).await.unwrap();
        assert_eq!(answer.backend, expected, "{rows} rows");
    }
}

#[tokio::test]
async fn a_device_that_is_down_is_not_preferred() {
    let rig = Rig::gpu(fastest).await;
    rig.cpu.set(Mode::Slow(30 * US));
    rig.gpu.set(Mode::Slow(60 * US));
    for _ in 0..3 {
        rig.ask().await.unwrap();
    }
    rig.cpu.set(Mode::Panic);
    assert!(rig.ask().await.is_err(), "nobody stands by for the CPU");
    rig.cpu.set(Mode::Gone);
    until("the cpu is down", || rig.system.health().devices[0].state != DeviceState::Up).await;
    assert_eq!(rig.ask().await.unwrap().backend, Backend::Gpu);
}
