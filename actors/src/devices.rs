//! Which devices a node has: its CPU and any number of GPUs, told apart by kind and place.
//!
//! Knows nothing of what a device does.

use std::fmt;
use std::ops::Index;

use peregrine_shaders::Backend;
use smallvec::SmallVec;

/// One device of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceId {
    /// Its kind.
    pub backend: Backend,
    /// Its place among those of its kind, from 0.
    pub index: usize,
}

impl DeviceId {
    /// The only one of its kind.
    pub const CPU: Self = Self { backend: Backend::Cpu, index: 0 };

    /// One of the GPUs.
    #[must_use]
    pub const fn gpu(index: usize) -> Self {
        Self { backend: Backend::Gpu, index }
    }
}

/// The first of a kind bears the name of the kind: `gpu`, `gpu-1`, `gpu-2`.
impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.index {
            0 => f.write_str(self.backend.name()),
            index => write!(f, "{}-{index}", self.backend.name()),
        }
    }
}

/// Some devices of a node, without an allocation for as many as most nodes have.
pub(crate) type Devices = SmallVec<[DeviceId; 4]>;

/// One value for each device of a node.
#[derive(Clone, Debug)]
pub(crate) struct PerDevice<T> {
    pub(crate) cpu: T,
    pub(crate) gpus: Vec<T>,
}

impl<T> PerDevice<T> {
    /// The CPU first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (DeviceId, &T)> {
        std::iter::once((DeviceId::CPU, &self.cpu)).chain(self.gpus())
    }

    pub(crate) fn gpus(&self) -> impl Iterator<Item = (DeviceId, &T)> {
        self.gpus.iter().enumerate().map(|(index, value)| (DeviceId::gpu(index), value))
    }

    /// Other values, for the same devices.
    pub(crate) fn map<U>(&self, mut made: impl FnMut(DeviceId, &T) -> U) -> PerDevice<U> {
        PerDevice {
            cpu: made(DeviceId::CPU, &self.cpu),
            gpus: self.gpus().map(|(id, value)| made(id, value)).collect(),
        }
    }
}

/// Ids come from the same node, so there is a value for each.
impl<T> Index<DeviceId> for PerDevice<T> {
    type Output = T;

    fn index(&self, id: DeviceId) -> &T {
        match id.backend {
            Backend::Cpu => &self.cpu,
            Backend::Gpu => &self.gpus[id.index],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_told_apart_and_the_first_bears_its_kinds_name() {
        let values = PerDevice { cpu: 1, gpus: vec![2, 3] };
        let named = values.map(|id, value| format!("{id}: {value}"));
        assert_eq!(named.iter().map(|(_, text)| text).collect::<Vec<_>>(), ["cpu: 1", "gpu: 2", "gpu-1: 3"]);
        assert_eq!(values.iter().map(|(id, _)| values[id]).collect::<Vec<_>>(), [1, 2, 3]);
    }
}
