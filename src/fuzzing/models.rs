//! Folders of models: what is refused is refused with a reason, what is loaded can be asked.

use std::path::Path;

use peregrine_shaders::cpu::CpuExecutor;
use peregrine_shaders::{Files, Forecaster, LoadError, Scratch, Windows};

/// Multiply-adds of a network that is asked, too: more would be slow, not wrong.
const ASKED_MACS_MAX: usize = 1 << 22;
/// A small network, of which an ensemble may have several.
const MEMBER: &[u8] = include_bytes!("../../fuzz/corpus/model/tcn");

/// The files of one folder, in memory.
struct Held<'a> {
    json: &'a [u8],
    weights: &'a [u8],
}

impl Files for Held<'_> {
    fn read(&self, path: &Path, bytes_max: u64) -> Result<Vec<u8>, LoadError> {
        let is_json = path.extension().is_some_and(|kind| kind == "json");
        let bytes = if is_json { self.json } else { self.weights };
        if bytes.len() as u64 > bytes_max {
            return Err(LoadError::FileTooLarge { path: path.to_owned(), bytes_max });
        }
        Ok(bytes.to_vec())
    }
}

/// `model.json`, behind its length as four bytes, then `weights.safetensors`.
pub fn model(input: &[u8]) -> bool {
    parts(input).is_some_and(|held| asked(Forecaster::load_from(Path::new("fuzzed"), &held)))
}

/// The library's own file.
pub fn native(input: &[u8]) -> bool {
    let held = Held { json: &[], weights: input };
    asked(Forecaster::load_native(Path::new("fuzzed.safetensors"), &held))
}

/// `ensemble.json` of models that are all the same small one.
pub fn ensemble(input: &[u8]) -> bool {
    struct Together<'a>(&'a [u8], Held<'a>);
    impl Files for Together<'_> {
        fn read(&self, path: &Path, bytes_max: u64) -> Result<Vec<u8>, LoadError> {
            if path.ends_with("ensemble.json") { Ok(self.0.to_vec()) } else { self.1.read(path, bytes_max) }
        }
    }
    let member = parts(MEMBER).expect("the corpus holds it");
    // One that is there: members are looked for beside it.
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/vol-ensemble");
    asked(Forecaster::load_from(&dir, &Together(input, member)))
}

fn parts(input: &[u8]) -> Option<Held<'_>> {
    let (len, rest) = input.split_first_chunk::<4>()?;
    let (json, weights) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
    Some(Held { json, weights })
}

/// Whatever it answers, it answers.
fn asked(loaded: Result<Forecaster, LoadError>) -> bool {
    let Ok(model) = loaded else { return false };
    if model.row_macs() <= ASKED_MACS_MAX {
        let spec = model.spec();
        let windows = Windows {
            rows: 1,
            y: (0..spec.y_len()).map(|at| (at % 7) as f32).collect(),
            mask: None,
            hist_exog: vec![0.5; spec.window * spec.hist_exog.len()],
            futr_exog: vec![0.5; (spec.window + spec.horizon) * spec.futr_exog.len()],
            stat_exog: vec![0.5; spec.stat_exog.len()],
        };
        windows.check(spec).expect("as the model wants them");
        let (mut scratch, mut out) = (Scratch::default(), Vec::new());
        if model.forecast(&mut CpuExecutor::new(1), &windows, &mut scratch, &mut out).is_ok() {
            assert_eq!(out.len(), spec.answer_len());
            assert!(out.iter().all(|value| value.is_finite()));
        }
    }
    true
}
