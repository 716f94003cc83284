//! `[backend]`, as used.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::checker::{Checker, DAY, SECOND};
use super::file::{BackendChoice, BackendFile, FallbackChoice, PlacementChoice};
use super::units::WrittenSize;

/// Bytes of a GPU's memory below which no model could be run.
const GPU_MEMORY_MIN: usize = 1 << 20;

/// Where plans run.
#[derive(Clone, Debug, PartialEq)]
pub struct BackendConfig {
    /// Which device.
    pub choice: BackendChoice,
    /// Threads of the CPU executor, at least 1.
    pub threads: usize,
    /// GPUs that serve; 0: all of the best kind.
    pub gpus: usize,
    /// A GPU batch that takes longer counts as failed.
    pub gpu_timeout: Duration,
    /// Bytes that models and batches may take of each GPU's memory; `None`: as much as there is.
    pub gpu_memory: Option<u64>,
    /// Where what the driver made of kernels is kept.
    pub kernel_cache: KernelCache,
    /// Which device runs a request when both could.
    pub placement: PlacementChoice,
    /// Who answers when the GPU cannot.
    pub fallback: FallbackChoice,
    /// By model name.
    pub fallbacks: BTreeMap<String, FallbackChoice>,
    /// Do models that are served for the time of a single request stay on the GPU between requests?
    pub resident: bool,
    /// After so long without a request they rest; `None`: never.
    pub rest_after: Option<Duration>,
}

/// Where what a driver made of kernels is kept, so that the next start need not compile them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KernelCache {
    /// Nowhere.
    None,
    /// In the user's folder of caches, if there is one; for a hardware GPU.
    Auto,
    /// In this folder.
    Folder(PathBuf),
}

impl KernelCache {
    fn of(written: &str) -> Self {
        match written {
            "" => Self::None,
            "auto" => Self::Auto,
            folder => Self::Folder(PathBuf::from(folder)),
        }
    }
}

impl Checker<'_> {
    pub(super) fn backend(&mut self, written: &BackendFile) -> Option<BackendConfig> {
        let choice = self.present("backend.choice", written.choice);
        let threads = self.cores("backend.threads", written.threads);
        let gpus = self.present("backend.gpus", written.gpus);
        let gpu_timeout = self.time("backend.gpu_timeout", written.gpu_timeout, SECOND / 1000..=SECOND * 600);
        let gpu_memory = self.gpu_memory(written);
        let kernel_cache = self.present("backend.kernel_cache", written.kernel_cache.clone());
        let placement = self.present("backend.placement", written.placement);
        let fallback = self.present("backend.fallback", written.fallback);
        let resident = self.present("backend.resident", written.resident);
        let rest_after = self.time("backend.rest_after", written.rest_after, Duration::ZERO..=DAY);
        Some(BackendConfig {
            choice: choice?,
            threads: threads?,
            gpus: gpus?,
            gpu_timeout: gpu_timeout?,
            gpu_memory: gpu_memory?,
            kernel_cache: KernelCache::of(&kernel_cache?),
            placement: placement?,
            fallback: fallback?,
            fallbacks: written.fallbacks.clone().unwrap_or_default(),
            resident: resident?,
            rest_after: rest_after.map(|after| (!after.is_zero()).then_some(after))?,
        })
    }

    fn gpu_memory(&mut self, written: &BackendFile) -> Option<Option<u64>> {
        const KEY: &str = "backend.gpu_memory";
        let WrittenSize(bytes) = self.present(KEY, written.gpu_memory)?;
        self.require((bytes == 0 || bytes >= GPU_MEMORY_MIN).then_some(()), KEY, || {
            format!("less than {} MiB hold no model and its batches", GPU_MEMORY_MIN >> 20)
        })?;
        Some((bytes > 0).then_some(bytes as u64))
    }
}
