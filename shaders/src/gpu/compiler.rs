//! Compiles kernels, and keeps what came of them: in this process the pipelines, on disk their translations and what the
//! driver made. A driver takes up to a second for the kernel of one model, and its translation from WGSL a tenth of that.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use super::AdapterFacts;
use super::choices::Choices;
use super::device::Device;
use super::kept::Kept;
use super::recent::{Digest, Recent};
use super::refusals::Refusals;
use super::spirv::{Rules, TRANSLATOR, Translations, Version};
use super::variants;
use crate::ExecuteError;

/// Pipelines that are kept for plans that come back, and for others with the same layers.
const PIPELINES_MAX: usize = 256;

/// Of one device.
pub(super) struct Compiler {
    pipelines: Mutex<Recent<wgpu::ComputePipeline>>,
    translations: Translations,
    /// `None`: nothing is kept on disk.
    cache: Option<Cache>,
    /// The same for kernels that stay, which are compiled below wgpu.
    stays: Option<Kept>,
    /// Which variants of layers are used, where that was measured.
    choices: Option<Kept>,
    refusals: Refusals,
    /// Entry point of a kernel that the driver refuses, and whether that takes the device with it.
    #[cfg(test)]
    pub(super) refused: Mutex<Option<(&'static str, bool)>>,
}

struct Cache {
    made: wgpu::PipelineCache,
    kept: Kept,
    /// Whether something was compiled since it was kept last.
    has_news: AtomicBool,
}

/// A kernel to be compiled.
pub(super) struct Source<'a> {
    /// Of its entry point.
    pub(super) name: &'a str,
    pub(super) wgsl: String,
    pub(super) bindings: &'a wgpu::BindGroupLayout,
}

impl Source<'_> {
    /// Tells kernels apart: one text may have several.
    fn digest(&self) -> Digest {
        let text = Sha256::digest(&self.wgsl);
        Sha256::new().chain_update(text).chain_update(self.name).finalize().into()
    }
}

impl Compiler {
    /// With what lies in `folder` for such a device; `None`: nothing is kept on disk.
    pub(super) fn new(
        raw: &wgpu::Device,
        facts: &AdapterFacts,
        version: Version,
        folder: Option<&Path>,
        refusals: Refusals,
    ) -> Self {
        let name = file_name(&facts.name);
        let maker = format!("peregrine {}, {}, {}", env!("CARGO_PKG_VERSION"), facts.name, facts.driver);
        let translated = format!("{maker}, {TRANSLATOR}");
        let translations = folder.map(|folder| Kept::new(folder, &format!("{name}.spirv"), &translated));
        let measured =
            |folder| Kept::new(folder, &format!("{name}.choices"), &about(&maker, variants::texts()));
        let choices = folder.map(measured);
        let folder = folder.filter(|_| raw.features().contains(wgpu::Features::PIPELINE_CACHE));
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
            Cache { made, kept, has_news: AtomicBool::new(false) }
        });
        let stays = folder.map(|folder| Kept::new(folder, &format!("{name}.stays"), &maker));
        Self {
            pipelines: Mutex::new(Recent::new(|_| 1, PIPELINES_MAX)),
            translations: Translations::new(translations, version),
            cache,
            stays,
            choices,
            refusals,
            #[cfg(test)]
            refused: Mutex::default(),
        }
    }

    /// Kernels, in the order of their sources. Most of what a driver does for one it can do beside others.
    pub(super) fn pipelines<const N: usize>(
        &self,
        device: &Device,
        sources: [Source<'_>; N],
    ) -> Result<[wgpu::ComputePipeline; N], ExecuteError> {
        let made = self.each(device, sources).into_iter().collect::<Result<Vec<_>, _>>()?;
        let mut made = made.into_iter();
        Ok(std::array::from_fn(|_| made.next().expect("as many as there are sources")))
    }

    /// The same, each of which may be refused without the others.
    pub(super) fn each<const N: usize>(
        &self,
        device: &Device,
        sources: [Source<'_>; N],
    ) -> [Result<wgpu::ComputePipeline, ExecuteError>; N] {
        if self.refusals.one_at_a_time() {
            return sources.map(|source| self.alone(device, &source));
        }
        let made = thread::scope(|scope| {
            let one = |source| move || device.unpanicked(|| self.pipeline(device, &source));
            let threads = sources.map(|source| scope.spawn(one(source)));
            threads.map(|thread| thread.join().expect("panics are caught"))
        });
        // A device that is gone may refuse nothing.
        if device.is_gone() {
            self.refusals.be_careful();
        }
        made
    }

    /// One kernel while no other is compiled, so that it shows if the device is lost over it.
    fn alone(&self, device: &Device, source: &Source<'_>) -> Result<wgpu::ComputePipeline, ExecuteError> {
        device.check_lost()?;
        let made = device.unpanicked(|| self.pipeline(device, source));
        if device.is_gone() {
            tracing::error!(
                kernel = source.name,
                "a device was lost over a kernel, the next one does without it: report this driver"
            );
            self.refusals.blame(source.digest());
        }
        made
    }

    fn pipeline(&self, device: &Device, source: &Source<'_>) -> Result<wgpu::ComputePipeline, ExecuteError> {
        let digest = source.digest();
        if let Some(known) = self.pipelines.lock().get(&digest) {
            return Ok(known);
        }
        if self.refusals.blames(&digest) {
            return Err(ExecuteError::Refused(format!(
                "a device was lost over kernel `{}` before",
                source.name
            )));
        }
        #[cfg(test)]
        if let Some(is_fatal) = self.refuses(source.name) {
            if is_fatal {
                device.kill_switch().destroy_device();
            }
            return Err(ExecuteError::Refused("by a test".to_owned()));
        }
        let spirv = self.spirv(Rules::Trusted, &source.wgsl)?;
        let pipeline = device.create(|raw| self.compile(raw, source, &spirv))?;
        self.pipelines.lock().insert(digest, pipeline.clone());
        if let Some(Cache { has_news, .. }) = &self.cache {
            has_news.store(true, Ordering::Relaxed);
        }
        Ok(pipeline)
    }

    /// A kernel as the driver takes it, from what is kept where it is.
    ///
    /// # Errors
    /// As [`Rules::translate`].
    pub(super) fn spirv(&self, rules: Rules, wgsl: &str) -> Result<Arc<[u32]>, ExecuteError> {
        self.translations.of(rules, wgsl, &digest(wgsl))
    }

    fn compile(&self, raw: &wgpu::Device, source: &Source<'_>, spirv: &[u32]) -> wgpu::ComputePipeline {
        let Source { name, bindings, .. } = source;
        let label = Some(*name);
        // How many invocations a workgroup has is in the words.
        let entry =
            wgpu::PassthroughShaderEntryPoint { name: Cow::Borrowed(name), workgroup_size: (0, 0, 0) };
        let descriptor = wgpu::ShaderModuleDescriptorPassthrough {
            label,
            entry_points: Cow::Borrowed(&[entry]),
            spirv: Some(Cow::Borrowed(spirv)),
            ..Default::default()
        };
        // SAFETY: naga's words for a kernel of ours, or those that were kept, which `Kept` sees to be whole and written by
        // nobody but the owner of this process. The kernels are validated when they are built or, where they are written
        // for a plan, when they are translated. Every loop counts up to a bound that is a constant or a width from the
        // parameters; workgroup memory is indexed by local ids, constants, or units that `Prepared` holds below its size,
        // or slices, of which no layer has more than there is room for; arena and weights are indexed behind guards against
        // the row count and the widths, and no kernel divides by a zero: every count and period is asserted positive by
        // the plan.
        let module = unsafe { raw.create_shader_module_passthrough(descriptor) };
        let layout = raw.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label,
            bind_group_layouts: &[Some(*bindings)],
            immediate_size: 0,
        });
        raw.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label,
            layout: Some(&layout),
            module: &module,
            entry_point: Some(*name),
            compilation_options: wgpu::PipelineCompilationOptions::default(),
            cache: self.cache.as_ref().map(|cache| &cache.made),
        })
    }

    /// Whether a kernel that a test has refused takes the device with it.
    #[cfg(test)]
    fn refuses(&self, kernel: &str) -> Option<bool> {
        self.refused.lock().filter(|(name, _)| *name == kernel).map(|(_, is_fatal)| is_fatal)
    }

    /// Writes down what was compiled since, if anything was.
    pub(super) fn keep(&self) {
        self.translations.keep();
        let Some(Cache { made, kept, has_news }) = &self.cache else { return };
        if has_news.swap(false, Ordering::Relaxed)
            && let Some(data) = made.get_data()
        {
            kept.write(&data);
        }
    }

    /// What was measured on such a device, if it was.
    pub(super) fn choices(&self) -> Choices {
        self.choices.as_ref().and_then(Kept::read).map(|bytes| Choices::read(&bytes)).unwrap_or_default()
    }

    /// Keeps what was measured.
    pub(super) fn keep_choices(&self, choices: &Choices) {
        if let Some(kept) = &self.choices {
            kept.write(&choices.written());
        }
    }

    /// Where kernels that stay are kept.
    pub(super) fn stays(&self) -> Option<&Kept> {
        self.stays.as_ref()
    }
}

/// Who measured, and which kernels: choices between others say nothing of them.
fn about(maker: &str, texts: impl Iterator<Item = String>) -> String {
    let digest = texts.fold(Sha256::new(), |digest, text| digest.chain_update(Sha256::digest(text)));
    format!("{maker}, {:?}", digest.finalize().as_slice())
}

fn digest(wgsl: &str) -> Digest {
    Sha256::digest(wgsl).into()
}

/// The name of a device, in letters that any file may have.
fn file_name(device: &str) -> String {
    let letter =
        |letter: char| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '-' };
    device.chars().map(letter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_between_other_kernels_are_not_read() {
        let of = |texts: &[&str]| about("a device", texts.iter().map(|text| (*text).to_owned()));
        assert_eq!(of(&["one", "two"]), of(&["one", "two"]));
        for other in [&["one", "2"][..], &["onetwo"], &["two", "one"], &["one"]] {
            assert_ne!(of(&["one", "two"]), of(other));
        }
        let texts: Vec<String> = variants::texts().collect();
        let tile = texts.iter().filter(|text| text.contains("fn linear_paired_tile")).count();
        assert_eq!((texts.len(), tile), (21, 2), "seven kernels, three ways to multiply");
    }
}
