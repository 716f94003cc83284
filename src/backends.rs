//! Which executors this machine can offer, and which the configuration asks for.
//!
//! The only place of the shell that opens a device; it does not run anything on one.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use peregrine_actors::{ExecutorFactory, Meters, Placement};
use peregrine_shaders::cpu::CpuExecutor;
use peregrine_shaders::gpu::{
    self, AdapterChoice, AdapterFacts, GpuError, GpuExecutor, GpuOptions, Refusals,
};
use peregrine_shaders::{ExecuteError, Executor};

use crate::config::{BackendChoice, BackendConfig, PlacementChoice};
use crate::kernel_folder::kernel_folder;
use crate::nvml;

/// A software adapter may take long for the longest of what is measured.
const TUNER_TIMEOUT: Duration = Duration::from_secs(60);

/// What a node is started with.
#[derive(Clone)]
pub struct Factories {
    /// Always there.
    pub cpu: ExecutorFactory,
    /// One for each GPU; none: the CPU alone answers.
    pub gpus: Vec<ExecutorFactory>,
    /// Which device runs a request.
    pub placement: Placement,
    /// Whether the CPU answers until the GPUs are there: who asks for one by name waits for it.
    pub cpu_first: bool,
    /// How the devices fare, as their driver says; `None`: nothing can be asked.
    pub meters: Option<Arc<dyn Meters>>,
}

/// The device that was asked for is not there; the operator acts.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// `gpu` without a hardware adapter.
    #[error(
        "backend `gpu` needs a hardware Vulkan GPU and this machine has {found}; use auto, cpu or software"
    )]
    NoHardware {
        /// What is there instead.
        found: String,
    },
    /// `software` without a software adapter.
    #[error(
        "backend `software` needs a software Vulkan adapter such as llvmpipe and this machine has {found}"
    )]
    NoSoftware {
        /// What is there instead.
        found: String,
    },
    /// `backend.gpus` is more than there are.
    #[error(
        "backend.gpus asks for {wanted} GPUs and this machine has {} of its best kind ({}); ask for fewer, or 0 for all",
        names.len(), names.join(", ")
    )]
    TooFew {
        /// As many were asked for.
        wanted: usize,
        /// Those that are there.
        names: Vec<String>,
    },
    /// The CPU's executor has no kernels to choose from.
    #[error("there is no GPU whose kernels could be measured; `--backend software` takes a software adapter")]
    NothingToTune,
    /// The adapter is there and would not open.
    #[error("the {kind} adapter does not open: {source}")]
    Open {
        /// `gpu` or `software`.
        kind: &'static str,
        /// What the driver said.
        source: GpuError,
    },
}

/// Chooses by what adapters exist. Opens none: the node's device threads do, again after each loss.
///
/// # Errors
/// When an adapter is asked for by name and missing, or more of them than there are.
pub fn factories(config: &BackendConfig) -> Result<Factories, BackendError> {
    let threads = config.threads;
    let cpu: ExecutorFactory = Arc::new(move || Ok(Box::new(CpuExecutor::new(threads)) as Box<dyn Executor>));
    let meant = meant(gpu::adapters, config.choice, config.gpus)?;
    let placement = match (config.placement, &meant) {
        (PlacementChoice::Fastest, _) => Placement::Fastest,
        (PlacementChoice::Gpu, _) => Placement::Gpu,
        // A software adapter stands in for a GPU, for tests: it would never be the faster one.
        (PlacementChoice::Auto, Some(meant)) if meant.adapter == AdapterChoice::Software => Placement::Gpu,
        (PlacementChoice::Auto, _) => Placement::Fastest,
    };
    let places = meant.as_ref().map_or_else(Vec::new, |meant| meant.places.clone());
    let gpus = meant.into_iter().flat_map(|Meant { adapter, places }| {
        let kernels = kernel_folder(&config.kernel_cache, adapter, |name| std::env::var_os(name));
        let options = move |index| GpuOptions {
            adapter,
            index,
            timeout: config.gpu_timeout,
            memory: config.gpu_memory,
            kernels: kernels.clone(),
            refusals: Refusals::default(),
        };
        (0..places.len()).map(move |index| gpu_factory(options(index)))
    });
    let gpus = gpus.collect();
    let meters = match config.choice {
        BackendChoice::Auto | BackendChoice::Gpu => nvml::open(places),
        BackendChoice::Cpu | BackendChoice::Software => None,
    };
    Ok(Factories { cpu, gpus, placement, cpu_first: config.choice == BackendChoice::Auto, meters })
}

/// One executor for offline work: the chosen adapter, or the CPU where `auto` finds no hardware.
///
/// # Errors
/// When an adapter is asked for by name and missing, or it does not open.
pub fn open(
    choice: BackendChoice,
    threads: usize,
    gpu_timeout: Duration,
) -> Result<Box<dyn Executor>, BackendError> {
    match meant(gpu::adapters, choice, 1)? {
        Some(Meant { adapter, .. }) => {
            open_adapter(&GpuOptions { adapter, timeout: gpu_timeout, ..GpuOptions::default() })
        }
        None => Ok(Box::new(CpuExecutor::new(threads))),
    }
}

/// Every executor that `choice` allows here; `auto` means all of them, software adapters included.
///
/// # Errors
/// When an adapter is asked for by name and missing, or one does not open.
pub fn open_all(
    choice: BackendChoice,
    threads: usize,
    gpu_timeout: Duration,
) -> Result<Vec<Box<dyn Executor>>, BackendError> {
    if choice != BackendChoice::Auto {
        return Ok(vec![open(choice, threads, gpu_timeout)?]);
    }
    let mut all: Vec<Box<dyn Executor>> = vec![Box::new(CpuExecutor::new(threads))];
    let here = gpu::adapters();
    for (software, adapter) in [(false, AdapterChoice::Hardware), (true, AdapterChoice::Software)] {
        if here.iter().any(|facts| facts.software == software) {
            all.push(open_adapter(&GpuOptions { adapter, timeout: gpu_timeout, ..GpuOptions::default() })?);
        }
    }
    Ok(all)
}

/// A device whose kernels are to be measured.
pub struct Tuner {
    /// The first of those that the configuration means.
    pub executor: GpuExecutor,
    /// Where nodes of this configuration look for what is found; `None`: nowhere.
    pub folder: Option<PathBuf>,
}

/// Opens the device that measures.
///
/// # Errors
/// When there is no such device, or it does not open.
pub fn open_tuner(config: &BackendConfig) -> Result<Tuner, BackendError> {
    let Some(Meant { adapter, .. }) = meant(gpu::adapters, config.choice, 1)? else {
        return Err(BackendError::NothingToTune);
    };
    let folder = kernel_folder(&config.kernel_cache, adapter, |name| std::env::var_os(name));
    let (timeout, kernels) = (TUNER_TIMEOUT, folder.clone());
    let options = GpuOptions { adapter, timeout, kernels, ..GpuOptions::default() };
    let executor =
        GpuExecutor::open(&options).map_err(|source| BackendError::Open { kind: kind(adapter), source })?;
    Ok(Tuner { executor, folder })
}

/// Cores of this machine.
#[must_use]
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The adapters that a node is to use.
#[derive(Debug, PartialEq)]
struct Meant {
    adapter: AdapterChoice,
    /// Where each of them sits on the bus, in their order.
    places: Vec<String>,
}

/// Which of the adapters that Vulkan shows are meant, `wanted` of them or, where that is 0, all. `None`: the CPU alone,
/// for which Vulkan is not asked: its drivers take tens of MB and a tenth of a second to load.
fn meant(
    shown: impl FnOnce() -> Vec<AdapterFacts>,
    choice: BackendChoice,
    wanted: usize,
) -> Result<Option<Meant>, BackendError> {
    let adapter = match choice {
        BackendChoice::Cpu => return Ok(None),
        BackendChoice::Software => AdapterChoice::Software,
        BackendChoice::Auto | BackendChoice::Gpu => AdapterChoice::Hardware,
    };
    let shown = shown();
    let found = || match shown.iter().map(|facts| format!("`{}`", facts.name)).collect::<Vec<_>>() {
        names if names.is_empty() => "no Vulkan adapter at all".to_owned(),
        names => names.join(", "),
    };
    let there = adapter.among(&shown);
    match choice {
        _ if wanted > there.len() && !there.is_empty() => {
            let names = there.iter().map(|&at| format!("`{}`", shown[at].name)).collect();
            Err(BackendError::TooFew { wanted, names })
        }
        BackendChoice::Auto if there.is_empty() => Ok(None),
        BackendChoice::Gpu if there.is_empty() => Err(BackendError::NoHardware { found: found() }),
        BackendChoice::Software if there.is_empty() => Err(BackendError::NoSoftware { found: found() }),
        _ => {
            let count = if wanted == 0 { there.len() } else { wanted };
            let places = there[..count].iter().map(|&at| shown[at].pci.clone()).collect();
            Ok(Some(Meant { adapter, places }))
        }
    }
}

fn gpu_factory(options: GpuOptions) -> ExecutorFactory {
    Arc::new(move || match GpuExecutor::open(&options) {
        Ok(executor) => Ok(Box::new(executor) as Box<dyn Executor>),
        Err(error) => Err(ExecuteError::DeviceLost(error.to_string())),
    })
}

fn open_adapter(options: &GpuOptions) -> Result<Box<dyn Executor>, BackendError> {
    match GpuExecutor::open(options) {
        Ok(executor) => Ok(Box::new(executor)),
        Err(source) => Err(BackendError::Open { kind: kind(options.adapter), source }),
    }
}

const fn kind(adapter: AdapterChoice) -> &'static str {
    match adapter {
        AdapterChoice::Software => "software",
        AdapterChoice::Hardware | AdapterChoice::Any => "gpu",
    }
}

#[cfg(test)]
mod tests {
    use peregrine_shaders::gpu::AdapterKind;

    use super::*;

    const CARD: (&str, AdapterKind) = ("card", AdapterKind::Discrete);
    const CHIP: (&str, AdapterKind) = ("chip", AdapterKind::Integrated);
    const LLVMPIPE: (&str, AdapterKind) = ("llvmpipe", AdapterKind::Software);

    /// `Ok`: how many; `Err`: a part of what is said.
    #[track_caller]
    fn check(
        shown: &[(&str, AdapterKind)],
        (choice, wanted): (BackendChoice, usize),
        expected: Result<usize, &str>,
    ) {
        let shown = shown.iter().enumerate().map(|(at, &(name, kind))| AdapterFacts {
            name: name.to_owned(),
            driver: String::new(),
            kind,
            software: kind == AdapterKind::Software,
            pci: format!("0000:{at:02x}:00.0"),
        });
        match (meant(|| shown.collect(), choice, wanted), expected) {
            (Ok(meant), Ok(count)) => assert_eq!(meant.map_or(0, |meant| meant.places.len()), count),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (got, expected) => panic!("{got:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn all_of_the_best_kind_serve_unless_fewer_are_asked_for() {
        use BackendChoice::{Auto, Cpu, Gpu, Software};
        let host = [CARD, CHIP, LLVMPIPE, CARD];
        for choice in [Auto, Gpu] {
            check(&host, (choice, 0), Ok(2));
            check(&host, (choice, 1), Ok(1));
            check(&host, (choice, 2), Ok(2));
            check(
                &host,
                (choice, 3),
                Err("asks for 3 GPUs and this machine has 2 of its best kind (`card`, `card`)"),
            );
        }
        check(&host, (Software, 0), Ok(1));
        check(&host, (Software, 2), Err("has 1 of its best kind (`llvmpipe`)"));
        check(&host, (Cpu, 7), Ok(0));
    }

    #[test]
    fn nothing_is_asked_for_the_cpu_alone() {
        assert_eq!(meant(|| panic!("asked"), BackendChoice::Cpu, 1).unwrap(), None);
    }

    #[test]
    fn without_a_gpu_only_auto_goes_on() {
        use BackendChoice::{Auto, Gpu, Software};
        check(&[LLVMPIPE], (Auto, 2), Ok(0));
        check(&[LLVMPIPE], (Gpu, 2), Err("needs a hardware Vulkan GPU and this machine has `llvmpipe`"));
        check(&[CARD], (Software, 0), Err("needs a software Vulkan adapter"));
        check(&[], (Gpu, 0), Err("no Vulkan adapter at all"));
    }
}
