//! Runs plans through WGSL on a Vulkan device.
//!
//! One chunk of a batch is one submission: commands in order, one dispatch each. Where the host reaches the device's
//! memory it writes the inputs straight into the arena, and the last layer stores its results straight where the host
//! reads them; copies are for everything else. Two chunks may be under way, so that the host carries one while the
//! device computes another. Everything is allocated when a plan is loaded or the first batch of a size arrives;
//! afterwards a run allocates nothing on the device. No fault of a driver leaves this folder as a panic: it becomes an [`ExecuteError`](crate::ExecuteError).

mod adapter;
mod cells;
mod choices;
mod compiler;
mod device;
mod executor;
mod flow;
#[doc(hidden)]
pub mod fuzzing;
mod halved;
mod kept;
mod kernels;
mod layout;
mod loaded;
mod mapped;
mod matrices;
mod memory;
mod narrow;
mod params;
mod prepared;
mod recent;
mod recurrent;
mod refusals;
mod resident;
mod slide;
mod spirv;
mod stand;
mod tiles;
mod timer;
mod tuner;
mod tuning;
mod variants;
mod walk;
mod weights;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

pub use adapter::{AdapterChoice, AdapterFacts, AdapterKind, adapters};
pub use device::KillSwitch;
pub use executor::GpuExecutor;
pub use refusals::Refusals;
pub use slide::Slider;
pub use tuning::{KernelChoice, Tuned};

/// How a device is opened and how long it may take.
#[derive(Clone, Debug)]
pub struct GpuOptions {
    /// Which adapters are acceptable.
    pub adapter: AdapterChoice,
    /// Which of the devices that are meant, as [`AdapterChoice::among`] has them.
    pub index: usize,
    /// Longest time that one batch may take on the device, from its upload to its read-back.
    pub timeout: Duration,
    /// Bytes that plans and batches may take on the device; plans that were not run for longest leave for others, and come
    /// back when they are run. `None`: as much as the driver gives.
    pub memory: Option<u64>,
    /// Folder for what the driver makes of kernels, so that the next start need not compile them: up to a second for each
    /// model. It is made when needed, and belongs to the owner of the process alone. `None`: nothing is kept.
    pub kernels: Option<PathBuf>,
    /// Kernels over which devices were lost: the same for all that take each other's place.
    pub refusals: Refusals,
}

impl Default for GpuOptions {
    /// The first real GPU, two seconds, all of its memory; nothing is kept.
    fn default() -> Self {
        let timeout = Duration::from_secs(2);
        let (adapter, refusals) = (AdapterChoice::Hardware, Refusals::default());
        Self { adapter, index: 0, timeout, memory: None, kernels: None, refusals }
    }
}

/// Why no device was opened; each message says who must act.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GpuError {
    /// The image or host lacks Vulkan itself.
    #[error("no Vulkan: install a loader (libvulkan1) and the device's driver, or serve from cpu")]
    NoVulkan,
    /// Vulkan runs, but shows no device.
    #[error(
        "Vulkan shows no adapter: give this machine a device, or install mesa-vulkan-drivers for a software one"
    )]
    NoAdapter,
    /// There are devices, but `AdapterChoice` rules them out.
    #[error("only software adapters ({}): allow them in the configuration, or give this machine a GPU", names.join(", "))]
    OnlySoftware {
        /// What Vulkan shows.
        names: Vec<String>,
    },
    /// There are devices, but `AdapterChoice` rules them out.
    #[error("no software adapter among {}: install mesa-vulkan-drivers, or allow hardware", names.join(", "))]
    OnlyHardware {
        /// What Vulkan shows.
        names: Vec<String>,
    },
    /// A device of the best kind was asked for that is not there, or not any more.
    #[error(
        "there is no device {index} among the {count} of the best kind: ask for fewer, or give this machine more"
    )]
    TooFew {
        /// Its place among them, from 0.
        index: usize,
        /// Those that are there.
        count: usize,
    },
    /// The driver did not open the adapter.
    #[error("`{adapter}` did not open: {reason}; update its driver, or serve from cpu")]
    DeviceRefused {
        /// The adapter's name.
        adapter: String,
        /// The driver's words.
        reason: String,
    },
    /// The driver did not compile a kernel: report it together with the driver's version.
    #[error("`{adapter}` refused a kernel: {reason}; report this driver, serve from cpu until then")]
    KernelRefused {
        /// The adapter's name.
        adapter: String,
        /// The driver's words.
        reason: String,
    },
}
