//! The reference windows of a model folder, as a client would send them.

use std::path::{Path, PathBuf};

use peregrine_shaders::Windows;
use safetensors::SafeTensors;

/// Windows and the answers that they must get.
pub(crate) struct Cases {
    pub(crate) windows: Windows,
    /// `[B, h, C]`, or `[B, h, N]` of several series.
    pub(crate) expected: Vec<f64>,
}

impl Cases {
    /// The folder of a model that ships, or of one that only tests have.
    pub(crate) fn folder(model: &str) -> PathBuf {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let shipped = root.join("models").join(model);
        if shipped.is_dir() { shipped } else { root.join("tests/models").join(model) }
    }

    pub(crate) fn read(model: &str) -> Self {
        let path = Self::folder(model).join("cases.safetensors");
        let bytes = std::fs::read(&path).unwrap_or_else(|err| panic!("{}: {err}", path.display()));
        let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
        let y = file.tensor("insample_y").expect("insample_y");
        let floats = |data: &[u8]| -> Vec<f32> {
            data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
        };
        let windows = Windows {
            rows: y.shape()[0],
            y: floats(y.data()),
            mask: Some(floats(file.tensor("insample_mask").expect("insample_mask").data())),
            ..Windows::default()
        };
        let expected = file.tensor("expected_f64").expect("expected_f64");
        let expected =
            expected.data().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().expect("8 bytes")));
        Self { windows, expected: expected.collect() }
    }

    /// The measure of models/README.md for one row: `max |got − expected| / max |expected|`.
    pub(crate) fn error(&self, row: usize, got: &[f32]) -> f64 {
        let expected = &self.expected[row * got.len()..(row + 1) * got.len()];
        let scale = expected.iter().fold(0.0_f64, |max, e| max.max(e.abs()));
        got.iter().zip(expected).map(|(&g, e)| (f64::from(g) - e).abs()).fold(0.0_f64, f64::max) / scale
    }
}
