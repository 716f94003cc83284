//! Translates kernels to what a driver takes, and keeps the translations: naga needs up to a tenth of a second for the
//! kernel of one model, and a driver knows what it made before by what it was given alone.

use std::sync::Arc;

use ash::vk;
use naga::back::spv;
use naga::valid::{Capabilities, ShaderStages, SubgroupOperationSet, ValidationFlags, Validator};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use wgpu::hal::api::Vulkan;

use super::kept::Kept;
use super::recent::{Digest, Recent};
use crate::ExecuteError;

/// Who translates. Others may do it otherwise, so what they kept is not read.
pub(super) const TRANSLATOR: &str = "naga 30.0.2";

/// Of all translations that are kept; the one that was not asked for longest leaves first.
const BYTES_MAX: usize = 16 << 20;
const HEAD_BYTES: usize = size_of::<Digest>() + size_of::<u32>();

/// By what it was made of.
pub(super) type Translation = (Digest, Arc<[u32]>);

/// What a kernel may rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rules {
    /// As wgpu has them for kernels that it trusts: nothing is checked while they run.
    Trusted,
    /// Of kernels that stay: besides, words are coherent with the host.
    Resident,
}

impl Rules {
    /// # Errors
    /// When the text is no kernel that keeps to them. The author of the kernel acts.
    pub(super) fn translate(self, wgsl: &str, version: Version) -> Result<Vec<u32>, ExecuteError> {
        let bad = |error: String| ExecuteError::Refused(format!("a kernel: {error}"));
        let module = naga::front::wgsl::parse_str(wgsl).map_err(|error| bad(error.emit_to_string(wgsl)))?;
        let info = Validator::new(self.checked(), self.capabilities())
            .subgroup_stages(ShaderStages::COMPUTE)
            .subgroup_operations(SubgroupOperationSet::all())
            .validate(&module)
            .map_err(|error| bad(error.emit_to_string(wgsl)))?;
        spv::write_vec(&module, &info, &self.options(version), None).map_err(|error| bad(error.to_string()))
    }

    fn checked(self) -> ValidationFlags {
        match self {
            Self::Trusted => ValidationFlags::all(),
            // That all invocations meet at a barrier follows from what a word of the workgroup says, which naga does not see.
            Self::Resident => ValidationFlags::all() - ValidationFlags::CONTROL_FLOW_UNIFORMITY,
        }
    }

    /// All that any device is asked for: a kernel is written for what its device has.
    fn capabilities(self) -> Capabilities {
        match self {
            Self::Trusted => {
                Capabilities::SHADER_FLOAT16
                    | Capabilities::SHADER_FLOAT16_IN_FLOAT32
                    | Capabilities::SUBGROUP
                    | Capabilities::SUBGROUP_BARRIER
                    | Capabilities::COOPERATIVE_MATRIX
            }
            Self::Resident => {
                Capabilities::MEMORY_DECORATION_COHERENT
                    | Capabilities::MEMORY_DECORATION_VOLATILE
                    | Capabilities::SUBGROUP
            }
        }
    }

    /// Of a translation, by that of the text.
    fn digest(self, wgsl: &Digest, version: Version) -> Digest {
        let options = format!("{self:?} {:?} ", self.options(version));
        Sha256::new().chain_update(options).chain_update(wgsl).finalize().into()
    }

    /// Bindings are numbered from zero without a gap, as wgpu numbers those of its layouts.
    fn options(self, version: Version) -> spv::Options<'static> {
        use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
        let unchecked = BoundsCheckPolicy::Unchecked;
        spv::Options {
            lang_version: match self {
                Self::Trusted => version,
                Self::Resident => OLDEST,
            },
            flags: spv::WriterFlags::empty(),
            bounds_check_policies: BoundsCheckPolicies {
                index: unchecked,
                buffer: unchecked,
                image_load: unchecked,
                binding_array: unchecked,
            },
            // Every cell is written before it is read.
            zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
            // Every loop counts up to a bound.
            force_loop_bounding: false,
            emit_int_div_checks: self == Self::Resident,
            ..spv::Options::default()
        }
    }
}

/// Of SPIR-V, major and minor.
pub(super) type Version = (u8, u8);

const OLDEST: Version = (1, 3);

/// The newest that a device takes, as wgpu chooses it. An older one is no less right, yet layers of the general kind never
/// end on an H200 (driver 580.159.04) by 1.3, and do by 1.6.
pub(super) fn newest(adapter: &wgpu::Adapter) -> Version {
    // SAFETY: nothing of the adapter is destroyed through the guard.
    let hal = unsafe { adapter.as_hal::<Vulkan>() };
    match hal.map_or(0, |hal| hal.physical_device_capabilities().properties().api_version) {
        vk::API_VERSION_1_3.. => (1, 6),
        vk::API_VERSION_1_2.. => (1, 5),
        _ => OLDEST,
    }
}

/// Of one device.
pub(super) struct Translations {
    known: Mutex<Known>,
    version: Version,
    /// `None`: nothing is kept on disk.
    kept: Option<Kept>,
}

struct Known {
    recent: Recent<Arc<[u32]>>,
    /// Whether something was translated since it was kept last.
    has_news: bool,
}

impl Translations {
    /// With what lies in the file.
    pub(super) fn new(kept: Option<Kept>, version: Version) -> Self {
        let mut recent = Recent::new(|words: &Arc<[u32]>| HEAD_BYTES + size_of_val(&**words), BYTES_MAX);
        let all = kept.as_ref().and_then(Kept::read).and_then(|data| read(&data));
        for (digest, words) in all.unwrap_or_default() {
            recent.insert(digest, words);
        }
        Self { known: Mutex::new(Known { recent, has_news: false }), version, kept }
    }

    /// `digest`: of `wgsl`.
    ///
    /// # Errors
    /// As [`Rules::translate`].
    pub(super) fn of(&self, rules: Rules, wgsl: &str, digest: &Digest) -> Result<Arc<[u32]>, ExecuteError> {
        let digest = rules.digest(digest, self.version);
        if let Some(known) = self.known.lock().recent.get(&digest) {
            return Ok(known);
        }
        let words: Arc<[u32]> = rules.translate(wgsl, self.version)?.into();
        let mut known = self.known.lock();
        known.has_news |= known.recent.insert(digest, Arc::clone(&words));
        Ok(words)
    }

    /// Writes down what was translated since, if anything was.
    pub(super) fn keep(&self) {
        let Some(kept) = &self.kept else { return };
        let data = {
            let mut known = self.known.lock();
            if !std::mem::take(&mut known.has_news) {
                return;
            }
            write(known.recent.all())
        };
        kept.write(&data);
    }
}

/// One after the other: digest, count of words, words, all little-endian.
pub(super) fn write(all: &[Translation]) -> Vec<u8> {
    let mut data = Vec::new();
    for (digest, words) in all {
        let count = u32::try_from(words.len()).expect("all of them are a few megabytes");
        data.extend_from_slice(digest);
        data.extend_from_slice(&count.to_le_bytes());
        words.iter().for_each(|word| data.extend_from_slice(&word.to_le_bytes()));
    }
    data
}

/// `None`: it is not what [`write`] writes.
pub(super) fn read(mut data: &[u8]) -> Option<Vec<Translation>> {
    let mut all = Vec::new();
    while !data.is_empty() {
        let (digest, rest) = data.split_first_chunk()?;
        let (count, rest) = rest.split_first_chunk()?;
        let count = usize::try_from(u32::from_le_bytes(*count)).ok()?;
        let (words, rest) = rest.split_at_checked(count.checked_mul(size_of::<u32>())?)?;
        let (words, []) = words.as_chunks() else { return None };
        all.push((*digest, words.iter().map(|word| u32::from_le_bytes(*word)).collect()));
        data = rest;
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WGSL: &str = "@compute @workgroup_size(1) fn nothing() {}";

    fn at(folder: &tempfile::TempDir, maker: &str) -> Translations {
        Translations::new(Some(Kept::new(folder.path(), "a.spirv", maker)), OLDEST)
    }

    #[test]
    fn a_kernel_is_translated_once_by_the_same_maker() {
        let folder = tempfile::tempdir().expect("a folder");
        let of = |translations: &Translations, rules| translations.of(rules, WGSL, &[1; 32]);
        let first = at(&folder, TRANSLATOR);
        let words = of(&first, Rules::Trusted).expect("a kernel");
        first.keep();
        let count = |translations: &Translations| translations.known.lock().recent.all().len();
        assert_eq!((count(&at(&folder, TRANSLATOR)), count(&at(&folder, "another"))), (1, 0));
        let second = at(&folder, TRANSLATOR);
        assert_eq!(of(&second, Rules::Trusted).as_deref(), Ok(&*words));
        assert!(!second.known.lock().has_news);
        of(&second, Rules::Resident).expect("a kernel by other rules");
        assert_eq!((count(&second), second.known.lock().has_news), (2, true));
    }

    #[test]
    fn what_is_no_kernel_is_refused_and_not_kept() {
        let none = Translations::new(None, OLDEST);
        for text in ["fn", "@compute @workgroup_size(1) fn bad() { let a: u32 = 1.5; }"] {
            assert!(
                matches!(none.of(Rules::Trusted, text, &[1; 32]), Err(ExecuteError::Refused(_))),
                "{text}"
            );
        }
        none.keep();
        assert!(none.known.lock().recent.all().is_empty());
    }

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let all = vec![([1; 32], Arc::from([1, u32::MAX])), ([2; 32], Arc::from([]))];
        let data = write(&all);
        assert_eq!(read(&data).as_ref(), Some(&all));
        assert_eq!(read(&[]), Some(Vec::new()));
        let first_ends = HEAD_BYTES + 8;
        for len in (1..data.len()).filter(|len| *len != first_ends) {
            assert_eq!(read(&data[..len]), None, "{len} bytes");
        }
    }

    #[test]
    fn the_translator_is_the_one_that_is_built_with() {
        let (name, version) = TRANSLATOR.split_once(' ').expect("name and version");
        let lock = include_str!("../../../Cargo.lock");
        assert!(
            lock.contains(&format!("name = \"{name}\"\nversion = \"{version}\"")),
            "say so in TRANSLATOR"
        );
    }
}
