//! Compiles kernels, and keeps what the driver made of them: that takes it up to a second for the kernel of one model, and
//! milliseconds to read it back.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use parking_lot::Mutex;

use super::AdapterFacts;
use super::kept::Kept;

/// Of one device.
pub(super) struct Compiler {
    /// `None`: nothing is kept.
    cache: Option<Cache>,
    /// The same for kernels that stay, which are compiled below wgpu.
    stays: Option<Kept>,
}

struct Cache {
    made: wgpu::PipelineCache,
    kept: Kept,
    news: Mutex<News>,
}

/// What was compiled, by the hash of its source, and whether all of it was kept.
#[derive(Default)]
struct News {
    known: HashSet<u64>,
    is_kept: bool,
}

impl Compiler {
    /// With what lies in `folder` for such a device; `None`: nothing is kept.
    pub(super) fn new(raw: &wgpu::Device, facts: &AdapterFacts, folder: Option<&Path>) -> Self {
        let folder = folder.filter(|_| raw.features().contains(wgpu::Features::PIPELINE_CACHE));
        let name = file_name(&facts.name);
        let maker = format!("peregrine {}, {}, {}", env!("CARGO_PKG_VERSION"), facts.name, facts.driver);
        let cache = folder.map(|folder| {
            let kept = Kept::new(folder, &format!("{name}.kernels"), &maker);
            let data = kept.read();
            let descriptor = wgpu::PipelineCacheDescriptor {
                label: Some("kernels"),
                data: data.as_deref(),
                fallback: true,
            };
            // SAFETY: what was read was written by `keep`, by the same driver and build: `Kept` sees to it that it is whole
            // and that nobody but the owner of this process may have written it.
            let made = unsafe { raw.create_pipeline_cache(&descriptor) };
            Cache { made, kept, news: Mutex::new(News { is_kept: true, ..News::default() }) }
        });
        let stays = folder.map(|folder| Kept::new(folder, &format!("{name}.stays"), &maker));
        Self { cache, stays }
    }

    /// The kernel whose entry point has this name.
    pub(super) fn pipeline(
        &self,
        raw: &wgpu::Device,
        name: &str,
        source: &str,
        bindings: &wgpu::BindGroupLayout,
    ) -> wgpu::ComputePipeline {
        let descriptor = wgpu::ShaderModuleDescriptor {
            label: Some(name),
            source: wgpu::ShaderSource::Wgsl(source.into()),
        };
        // SAFETY: the kernels are ours, validated when they are built or, where they are written for a plan, by tests. Every
        // loop counts up to a bound that is a constant or a width from the parameters; workgroup memory is indexed by local
        // ids, constants, or units that `Prepared` holds below its size, or slices, of which no layer has more than there
        // is room for; arena and weights are indexed behind guards against the row count and the widths, and no kernel
        // divides by a zero: every count and period is asserted positive by the plan.
        let module =
            unsafe { raw.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) };
        let layout = raw.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(name),
            bind_group_layouts: &[Some(bindings)],
            immediate_size: 0,
        });
        let pipeline = raw.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(name),
            layout: Some(&layout),
            module: &module,
            entry_point: Some(name),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &[],
                // Every cell is written before it is read.
                zero_initialize_workgroup_memory: false,
            },
            cache: self.cache.as_ref().map(|cache| &cache.made),
        });
        if let Some(Cache { news, .. }) = &self.cache {
            let mut hasher = DefaultHasher::new();
            source.hash(&mut hasher);
            let news = &mut *news.lock();
            if news.known.insert(hasher.finish()) {
                news.is_kept = false;
            }
        }
        pipeline
    }

    /// Writes down what was compiled since, if anything was.
    pub(super) fn keep(&self) {
        let Some(Cache { made, kept, news }) = &self.cache else { return };
        let was_kept = std::mem::replace(&mut news.lock().is_kept, true);
        if !was_kept && let Some(data) = made.get_data() {
            kept.write(&data);
        }
    }

    /// Where kernels that stay are kept.
    pub(super) fn stays(&self) -> Option<&Kept> {
        self.stays.as_ref()
    }
}

/// The name of a device, in letters that any file may have.
fn file_name(device: &str) -> String {
    let letter =
        |letter: char| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '-' };
    device.chars().map(letter).collect()
}
