//! The executor of the host: packed weights, tiles of rows, vector instructions, threads where they pay.
//!
//! All commands run over one tile of rows before the next tile, so that activations stay in the nearest caches. A
//! result never depends on the number of rows, the number of threads or the vector instructions: see `linear`.

mod activation;
mod affine;
mod attention;
mod lanes;
mod layer_norm;
mod layout;
mod linear;
mod moves;
mod pack;
mod pool;
mod prepared;
mod recurrent;
mod rows;
pub(crate) mod simd;
mod weight;

use std::collections::HashMap;
use std::sync::Arc;

pub(crate) use pack::Panels;
use parking_lot::Mutex;
use prepared::{Prepared, Workspace};
pub use simd::Simd;

use crate::{Backend, DeviceMemory, ExecuteError, Executor, Plan, PlanId};

/// Multiply-adds below which waking a second thread costs more than it brings.
const PARALLEL_MACS_MIN: usize = 4_000_000;

/// Runs plans on the host. A plan's packed weights are kept until it is unloaded; a run allocates nothing once its
/// largest batch has been seen (but for a few bytes to wake each helper thread).
pub struct CpuExecutor {
    simd: Simd,
    device: String,
    plans: HashMap<PlanId, Prepared>,
    /// One for each thread that may take part, the caller's first.
    workspaces: Vec<Workspace>,
    helpers: Option<rayon::ThreadPool>,
}

impl CpuExecutor {
    /// With the best instructions of this machine and up to `threads` threads, the caller's included.
    #[must_use]
    pub fn new(threads: usize) -> Self {
        Self::with_simd(threads, Simd::best())
    }

    /// With given instructions.
    ///
    /// # Panics
    /// When this machine lacks them.
    #[must_use]
    pub fn with_simd(threads: usize, simd: Simd) -> Self {
        assert!(Simd::available().contains(&simd), "this machine has no {}", simd.name());
        // Where no thread can be had, the caller's alone is enough.
        let helpers = (threads > 1).then(|| helpers(threads - 1)).flatten();
        let threads = 1 + helpers.as_ref().map_or(0, rayon::ThreadPool::current_num_threads);
        let plural = if threads == 1 { "" } else { "s" };
        Self {
            simd,
            device: format!("{}, {threads} thread{plural}", simd.name()),
            plans: HashMap::new(),
            workspaces: (0..threads).map(|_| Workspace::default()).collect(),
            helpers,
        }
    }
}

impl Executor for CpuExecutor {
    fn backend(&self) -> Backend {
        Backend::Cpu
    }

    fn device(&self) -> &str {
        &self.device
    }

    fn load(&mut self, plan: &Arc<Plan>) -> Result<(), ExecuteError> {
        self.plans.entry(plan.id).or_insert_with(|| Prepared::new(plan, self.simd));
        Ok(())
    }

    /// In the host's memory: packed matrices and biases, and what one batch after the other is computed in.
    fn memory(&self) -> Option<DeviceMemory> {
        let plan_bytes = self.plans.values().map(|prepared| prepared.bytes as u64).sum();
        let batch_bytes = self.workspaces.iter().map(|workspace| workspace.arena_bytes() as u64).sum();
        Some(DeviceMemory { plans: self.plans.len(), plan_bytes, batch_bytes, ..DeviceMemory::default() })
    }

    fn unload(&mut self, plan: PlanId) {
        self.plans.remove(&plan);
    }

    fn run(
        &mut self,
        plan: &Arc<Plan>,
        rows: usize,
        inputs: &[&[f32]],
        output: &mut [f32],
    ) -> Result<(), ExecuteError> {
        plan.assert_fits(rows, inputs, output);
        let out_width = plan.width(plan.output);
        if rows == 0 {
            return Ok(());
        }
        self.load(plan)?;
        let prepared = &self.plans[&plan.id];

        let threads = if prepared.row_macs * rows < PARALLEL_MACS_MIN { 1 } else { self.workspaces.len() };
        let threads = threads.min(rows);
        let tile_count = rows.div_ceil(prepared.tile_rows).next_multiple_of(threads);
        let tile_rows = rows.div_ceil(tile_count);
        let tiles = output.chunks_mut(tile_rows * out_width).enumerate();
        match &self.helpers {
            Some(helpers) if threads > 1 => {
                // Whoever is free takes the next tile: the other core may be busy with something else.
                let tiles = Mutex::new(tiles);
                let work = |workspace: &mut Workspace| {
                    loop {
                        let next = tiles.lock().next();
                        let Some((index, out)) = next else { return };
                        prepared.run_tile(workspace, index * tile_rows, inputs, out);
                    }
                };
                let (own, others) = self.workspaces.split_at_mut(1);
                helpers.in_place_scope(|scope| {
                    for workspace in &mut others[..threads - 1] {
                        scope.spawn(|_| work(workspace));
                    }
                    work(&mut own[0]);
                });
            }
            _ => {
                for (index, out) in tiles {
                    prepared.run_tile(&mut self.workspaces[0], index * tile_rows, inputs, out);
                }
            }
        }
        Ok(())
    }
}

fn helpers(count: usize) -> Option<rayon::ThreadPool> {
    let built =
        rayon::ThreadPoolBuilder::new().num_threads(count).thread_name(|i| format!("cpu-{i}")).build();
    built.inspect_err(|error| tracing::warn!(%error, "no helper threads, running on one")).ok()
}
