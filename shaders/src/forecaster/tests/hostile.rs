//! Damaged files: whatever the bytes, the loader answers; it neither panics nor takes memory without bound.

use std::path::Path;

use serde_json::json;

use super::shapes::{deepar, rnn, tcn};
use super::{Model, Rng};
use crate::loader::{Archive, parse_model_json};
use crate::{Forecaster, LoadError};

const MUTATIONS: u64 = 3000;

fn small() -> Model {
    Model {
        loss: "MQLoss",
        hparams: json!({
            "stack_types": ["identity", "identity"], "n_blocks": [1, 2], "mlp_units": [[4, 4]],
            "n_pool_kernel_size": [2, 1], "n_freq_downsample": [2, 1], "pooling_mode": "MaxPool1d",
            "interpolation_mode": "linear", "dropout_prob_theta": 0.0, "activation": "ReLU",
        }),
        ..Model::new("NHITS", 4, 8)
    }
    .randomize(7)
}

/// One of each way to a plan.
fn samples() -> [Model; 4] {
    [small(), rnn("GRU").randomize(7), deepar("StudentT").randomize(7), tcn().randomize(7)]
}

/// What [`Forecaster::load`] does once the files are read.
fn load(json: &[u8], weights: Vec<u8>) -> Result<Forecaster, LoadError> {
    let (blueprint, _) = parse_model_json("model.json", json)?;
    Forecaster::build(blueprint, &Archive::parse(Path::new("weights.safetensors"), weights)?)
}

fn mutate(bytes: &mut Vec<u8>, from: usize, rng: &mut Rng) {
    // Digits, brackets and letters keep more of a header parseable than random bytes do.
    const LIKELY: &[u8] = b"0123456789[]{},:\"-.eE \x00\xff";
    for _ in 0..1 + rng.below(3) {
        let at = rng.below(from.min(bytes.len()).max(1)).min(bytes.len().saturating_sub(1));
        match rng.below(6) {
            0 => bytes.truncate(at),
            1 => bytes[at] ^= 1 << rng.below(8),
            2 => bytes.insert(at, LIKELY[rng.below(LIKELY.len())]),
            3 => drop(bytes.remove(at)),
            4 => bytes.extend_from_within(..at.min(64)),
            _ => bytes[at] = LIKELY[rng.below(LIKELY.len())],
        }
        if bytes.is_empty() {
            return;
        }
    }
}

#[test]
fn damaged_weights_are_refused_or_served_but_never_panic() {
    for model in samples() {
        let (json, weights) = (model.json().to_string(), model.weights());
        assert!(load(json.as_bytes(), weights.clone()).is_ok());
        let header_len = 8 + u64::from_le_bytes(*weights.first_chunk().unwrap()) as usize;
        let mut refused = 0;
        for seed in 0..MUTATIONS {
            let mut rng = Rng(seed);
            let mut bytes = weights.clone();
            let reach = if seed % 4 == 0 { bytes.len() } else { header_len };
            mutate(&mut bytes, reach, &mut rng);
            refused += u64::from(load(json.as_bytes(), bytes).is_err());
        }
        assert!(refused > MUTATIONS / 2, "{}: only {refused} of {MUTATIONS} refused", model.class);
    }
}

#[test]
fn damaged_descriptions_are_refused_or_served_but_never_panic() {
    for model in samples() {
        let (json, weights) = (model.json().to_string(), model.weights());
        let mut refused = 0;
        for seed in 0..MUTATIONS {
            let mut rng = Rng(seed);
            let mut bytes = json.clone().into_bytes();
            let reach = bytes.len();
            mutate(&mut bytes, reach, &mut rng);
            refused += u64::from(load(&bytes, weights.clone()).is_err());
        }
        assert!(refused > MUTATIONS / 4, "{}: only {refused} of {MUTATIONS} refused", model.class);
    }
}

#[test]
fn what_is_named_twice_is_refused() {
    let (json, weights) = (small().json().to_string(), small().weights());
    let twice = json.replacen("\"pooling_mode\":", "\"pooling_mode\":\"AvgPool1d\",\"pooling_mode\":", 1);
    assert_ne!(twice, json);
    let why = load(twice.as_bytes(), weights.clone()).unwrap_err();
    assert!(
        matches!(why, LoadError::Json { .. }) && why.to_string().contains("`pooling_mode` stands twice"),
        "{why}"
    );

    // The first tensor once more, in front of all.
    let header_len = u64::from_le_bytes(*weights.first_chunk().unwrap()) as usize;
    let header = std::str::from_utf8(&weights[8..8 + header_len]).unwrap().trim_end();
    let first = &header[1..=header.find('}').unwrap()];
    let header = format!("{{{first},{}", &header[1..]);
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(&weights[8 + header_len..]);
    let why = load(json.as_bytes(), bytes).unwrap_err();
    assert!(matches!(why, LoadError::Archive { .. }) && why.to_string().contains("stands twice"), "{why}");
}

#[test]
fn every_truncation_is_refused() {
    let (json, weights) = (small().json().to_string(), small().weights());
    for len in 0..weights.len() {
        assert!(load(json.as_bytes(), weights[..len].to_vec()).is_err(), "cut at {len}");
    }
    for len in 0..json.len() {
        assert!(load(&json.as_bytes()[..len], weights.clone()).is_err(), "cut at {len}");
    }
}

#[test]
fn sizes_that_would_not_fit_in_memory_are_refused_before_they_are_used() {
    for (name, value) in [
        ("h", json!(65536)),
        ("h", json!(u64::MAX)),
        ("input_size", json!(1e300)),
        ("n_blocks", json!([u64::MAX, 1])),
        ("mlp_units", json!([[1u64 << 40, 4]])),
        ("n_freq_downsample", json!([-1, 1])),
    ] {
        let mut json = small().json();
        json["hparams"][name] = value.clone();
        if name == "h" {
            json["h"] = value.clone();
        }
        assert!(load(json.to_string().as_bytes(), small().weights()).is_err(), "{name} = {value}");
    }
}

#[test]
fn offsets_that_wrap_around_are_refused() {
    // Eight tensors of 2^61 bytes end at 2^64, which is zero in usize.
    let len = 1u64 << 61;
    let mut header = serde_json::Map::new();
    for part in 0..7u64 {
        let entry = json!({"dtype": "U8", "shape": [len - 1], "data_offsets": [part * (len - 1), (part + 1) * (len - 1)]});
        header.insert(format!("t{part}"), entry);
    }
    let mut end = 7 * (len - 1);
    let text_len = |header: &serde_json::Map<String, serde_json::Value>| {
        serde_json::to_string(header).unwrap().len() as u64
    };
    for part in 7..9u64 {
        let take = (u64::MAX - end).min(len - 1);
        header.insert(
            format!("t{part}"),
            json!({"dtype": "U8", "shape": [take], "data_offsets": [end, end + take]}),
        );
        end += take;
    }
    let mut bytes = text_len(&header).to_le_bytes().to_vec();
    bytes.extend(serde_json::to_string(&header).unwrap().bytes());
    assert!(Archive::parse(Path::new("x"), bytes).is_err());
}

#[test]
fn a_pipe_or_a_folder_in_place_of_a_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("model.json")).unwrap();
    assert!(matches!(Forecaster::load(dir.path()), Err(LoadError::Io { .. })));
    assert!(matches!(Forecaster::load(Path::new("/dev/null")), Err(LoadError::Io { .. })));
}
