//! Devices of this node as metrics: whether they serve, what they keep in their memory, and what stays on them.

use std::fmt::Display;

use peregrine_actors::{DeviceState, DeviceStatus, Health};
use peregrine_shaders::{Backend, DeviceMemory, KernelFacts, ResidentCounts};

use super::Page;

/// Which device a sample is of.
pub(super) fn labels(backend: Backend, index: &usize) -> [(&'static str, &dyn Display); 2] {
    let backend: &'static dyn Display = match backend {
        Backend::Cpu => &"cpu",
        Backend::Gpu => &"gpu",
    };
    [("backend", backend), ("device", index)]
}

pub(super) fn all(page: &mut Page, health: &Health) {
    page.family("peregrine_device_up", "gauge", "1 while the device serves.");
    for device in &health.devices {
        let up = u8::from(device.state == DeviceState::Up);
        let [backend, index] = labels(device.backend, &device.index);
        page.sample("", &[backend, index, ("name", &device.name)], up);
    }
    page.family("peregrine_device_busy_seconds_total", "counter", "Computing; its rate is the utilisation.");
    for device in &health.devices {
        page.sample("", &labels(device.backend, &device.index), device.busy.as_secs_f64());
    }
    done(page, health);
    memory(page, health);
    kernels(page, health);
    residents(page, health);
}

/// What each device has answered.
fn done(page: &mut Page, health: &Health) {
    type Read = fn(&DeviceStatus) -> u64;
    let families: [(&str, &str, Read); 3] = [
        ("peregrine_device_requests_total", "Requests that the device answered.", |device| device.requests),
        ("peregrine_device_rows_total", "Rows of batches that it ran for them.", |device| device.rows),
        ("peregrine_device_batches_total", "Those batches.", |device| device.batches),
    ];
    for (name, help, read) in families {
        page.family(name, "counter", help);
        for device in &health.devices {
            page.sample("", &labels(device.backend, &device.index), read(device));
        }
    }
}

/// Plans that stay on a device between requests.
fn residents(page: &mut Page, health: &Health) {
    type Read = fn(&ResidentCounts) -> u64;
    let families: [(&str, &str, &str, Read); 4] = [
        ("peregrine_resident_up", "gauge", "1 while a plan that stays on its device answers.", |counts| {
            u64::from(counts.serves)
        }),
        ("peregrine_resident_requests_total", "counter", "Requests that such a plan answered.", |counts| {
            counts.requests
        }),
        (
            "peregrine_resident_handovers_total",
            "counter",
            "Launches of its kernel that took over.",
            |counts| counts.handovers,
        ),
        ("peregrine_resident_silences_total", "counter", "Requests that it did not answer.", |counts| {
            counts.silences
        }),
    ];
    for (name, kind, help, read) in families {
        page.family(name, kind, help);
        for device in &health.devices {
            for resident in &device.residents {
                let labels: [(&str, &dyn Display); 2] = [("plan", &resident.plan), ("device", &device.index)];
                page.sample("", &labels, read(&resident.counts));
            }
        }
    }
}

/// What executors know of their kernels.
fn kernels(page: &mut Page, health: &Health) {
    type Read = fn(&KernelFacts) -> usize;
    let families: [(&str, &str, Read); 2] = [
        (
            "peregrine_device_kernel_choices",
            "Layers over numbers of rows whose fastest kernel was measured on such a device.",
            |kernels| kernels.choices,
        ),
        (
            "peregrine_device_kernels_refused",
            "Kernels that the driver refused; others do their work.",
            |kernels| kernels.refused,
        ),
    ];
    for (name, help, read) in families {
        page.family(name, "gauge", help);
        for (device, kernels) in health.devices.iter().filter_map(|device| Some((device, device.kernels?))) {
            page.sample("", &labels(device.backend, &device.index), read(&kernels));
        }
    }
}

/// What executors keep in the memory of their devices, the CPU's in the host's.
fn memory(page: &mut Page, health: &Health) {
    type Read = fn(&DeviceMemory) -> Option<u64>;
    let families: [(&str, &str, &str, Read); 5] = [
        ("peregrine_device_plans", "gauge", "Plans whose weights are on the device.", |memory| {
            Some(memory.plans as u64)
        }),
        ("peregrine_device_plan_bytes", "gauge", "What they take of its memory.", |memory| {
            Some(memory.plan_bytes)
        }),
        ("peregrine_device_batch_bytes", "gauge", "What batches take of it.", |memory| {
            Some(memory.batch_bytes)
        }),
        ("peregrine_device_budget_bytes", "gauge", "What both may take.", |memory| memory.budget_bytes),
        (
            "peregrine_device_evictions_total",
            "counter",
            "Plans that left the device for others, to come back when they are run.",
            |memory| Some(memory.evictions),
        ),
    ];
    let kept = || health.devices.iter().filter_map(|device| Some((device, device.memory?)));
    for (name, kind, help, read) in families {
        page.family(name, kind, help);
        for (device, memory) in kept() {
            let Some(value) = read(&memory) else { continue };
            page.sample("", &labels(device.backend, &device.index), value);
        }
    }
}
