//! Which executors this machine can offer, and which the configuration asks for.
//!
//! The only place of the shell that opens a device; it does not run anything on one.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use peregrine_actors::{ExecutorFactory, Meters, Placement};
use peregrine_shaders::cpu::CpuExecutor;
use peregrine_shaders::gpu::{self, AdapterChoice, GpuError, GpuExecutor, GpuOptions};
use peregrine_shaders::{ExecuteError, Executor};

use crate::config::{BackendChoice, BackendConfig, KernelCache, PlacementChoice};
use crate::nvml;

/// What a node is started with.
#[derive(Clone)]
pub struct Factories {
    /// Always there.
    pub cpu: ExecutorFactory,
    /// `None`: the CPU alone answers.
    pub gpu: Option<ExecutorFactory>,
    /// Which of the two runs a request.
    pub placement: Placement,
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
/// When an adapter is asked for by name and missing.
pub fn factories(config: &BackendConfig) -> Result<Factories, BackendError> {
    let threads = config.threads;
    let cpu: ExecutorFactory = Arc::new(move || Ok(Box::new(CpuExecutor::new(threads)) as Box<dyn Executor>));
    let adapter = adapter(config.choice, config.gpu_timeout, config.gpu_memory)?;
    let adapter = adapter.map(|options| {
        let kernels = kernel_folder(&config.kernel_cache, options.adapter, |name| std::env::var_os(name));
        GpuOptions { kernels, ..options }
    });
    let placement = match (config.placement, &adapter) {
        (PlacementChoice::Fastest, _) => Placement::Fastest,
        (PlacementChoice::Gpu, _) => Placement::Gpu,
        // A software adapter stands in for a GPU, for tests: it would never be the faster one.
        (PlacementChoice::Auto, Some(options)) if options.adapter == AdapterChoice::Software => {
            Placement::Gpu
        }
        (PlacementChoice::Auto, _) => Placement::Fastest,
    };
    let meters = match config.choice {
        BackendChoice::Auto | BackendChoice::Gpu => nvml::open(),
        BackendChoice::Cpu | BackendChoice::Software => None,
    };
    Ok(Factories { cpu, gpu: adapter.map(gpu_factory), placement, meters })
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
    match adapter(choice, gpu_timeout, None)? {
        Some(options) => open_adapter(&options),
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

/// Cores of this machine.
#[must_use]
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn adapter(
    choice: BackendChoice,
    timeout: Duration,
    memory: Option<u64>,
) -> Result<Option<GpuOptions>, BackendError> {
    if choice == BackendChoice::Cpu {
        return Ok(None);
    }
    let here = gpu::adapters();
    let has = |software: bool| here.iter().any(|facts| facts.software == software);
    let found = || match here.iter().map(|facts| format!("`{}`", facts.name)).collect::<Vec<_>>() {
        names if names.is_empty() => "no Vulkan adapter at all".to_owned(),
        names => names.join(", "),
    };
    match choice {
        BackendChoice::Software if has(true) => Ok(Some(GpuOptions {
            adapter: AdapterChoice::Software,
            timeout,
            memory,
            ..GpuOptions::default()
        })),
        BackendChoice::Software => Err(BackendError::NoSoftware { found: found() }),
        _ if has(false) => Ok(Some(GpuOptions {
            adapter: AdapterChoice::Hardware,
            timeout,
            memory,
            ..GpuOptions::default()
        })),
        BackendChoice::Gpu => Err(BackendError::NoHardware { found: found() }),
        BackendChoice::Auto | BackendChoice::Cpu => Ok(None),
    }
}

/// The user's folder of caches is where the XDG base directory specification has it.
fn kernel_folder(
    cache: &KernelCache,
    adapter: AdapterChoice,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Option<PathBuf> {
    let absolute = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    match cache {
        KernelCache::None => None,
        KernelCache::Folder(folder) => Some(folder.clone()),
        KernelCache::Auto if adapter == AdapterChoice::Software => None,
        KernelCache::Auto => {
            let caches = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
            Some(caches.join("peregrine").join("kernels"))
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
    let kind = match options.adapter {
        AdapterChoice::Software => "software",
        AdapterChoice::Hardware | AdapterChoice::Any => "gpu",
    };
    match GpuExecutor::open(options) {
        Ok(executor) => Ok(Box::new(executor)),
        Err(source) => Err(BackendError::Open { kind, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(cache: KernelCache, adapter: AdapterChoice, variables: &[(&str, &str)], expected: Option<&str>) {
        let variable = |wanted: &str| {
            variables.iter().find(|(name, _)| *name == wanted).map(|(_, value)| OsString::from(value))
        };
        assert_eq!(
            kernel_folder(&cache, adapter, variable),
            expected.map(PathBuf::from),
            "{cache:?}, {variables:?}"
        );
    }

    #[test]
    fn kernels_are_kept_where_the_user_keeps_caches_or_where_it_is_said() {
        use AdapterChoice::{Hardware, Software};
        let home = ("HOME", "/home/ana");
        check(KernelCache::Auto, Hardware, &[home], Some("/home/ana/.cache/peregrine/kernels"));
        check(KernelCache::Auto, Hardware, &[home, ("XDG_CACHE_HOME", "/c")], Some("/c/peregrine/kernels"));
        check(
            KernelCache::Auto,
            Hardware,
            &[home, ("XDG_CACHE_HOME", "")],
            Some("/home/ana/.cache/peregrine/kernels"),
        );
        check(KernelCache::Auto, Hardware, &[], None);
        check(KernelCache::Auto, Software, &[home], None);
        check(KernelCache::None, Hardware, &[home], None);
        let folder = || KernelCache::Folder(PathBuf::from("/data/kernels"));
        check(folder(), Hardware, &[], Some("/data/kernels"));
        check(folder(), Software, &[home], Some("/data/kernels"));
    }
}
