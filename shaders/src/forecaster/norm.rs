//! Scales and shifts in f64 while they are folded at load: batch norms at rest, the affine part of layer norms.

use std::sync::Arc;

use crate::loader::{Archive, LoadError};

use super::dense::rounded;

/// `x[j] · scale[j mod P] + shift[j mod P]`
#[derive(Clone, Debug)]
pub(super) struct Norm {
    pub(super) scale: Vec<f64>,
    pub(super) shift: Vec<f64>,
}

impl Norm {
    /// `NAME.weight` and `NAME.bias`.
    pub(super) fn take(archive: &Archive, name: &str, width: usize) -> Result<Self, LoadError> {
        let scale = archive.take(&format!("{name}.weight"), &[width])?;
        let shift = archive.take(&format!("{name}.bias"), &[width])?;
        Ok(Self { scale, shift })
    }

    /// A batch norm with its running statistics (Ioffe & Szegedy 2015).
    pub(super) fn batch(
        archive: &Archive,
        name: &str,
        width: usize,
        epsilon: f64,
    ) -> Result<Self, LoadError> {
        let mut norm = Self::take(archive, name, width)?;
        let mean = archive.take(&format!("{name}.running_mean"), &[width])?;
        let variance_name = format!("{name}.running_var");
        let variance = archive.take(&variance_name, &[width])?;
        if variance.iter().any(|&variance| variance < 0.0) {
            return Err(LoadError::parameter(variance_name, "holds a negative variance"));
        }
        for (j, (mean, variance)) in mean.iter().zip(&variance).enumerate() {
            norm.scale[j] /= (variance + epsilon).sqrt();
            norm.shift[j] -= mean * norm.scale[j];
        }
        Ok(norm)
    }

    /// Leaves everything as it is.
    pub(super) fn identity(width: usize) -> Self {
        Self { scale: vec![1.0; width], shift: vec![0.0; width] }
    }

    /// `next` after `self`; its period divides ours.
    pub(super) fn then(mut self, next: &Self) -> Self {
        let next = next.scale.iter().zip(&next.shift).cycle();
        for ((scale, shift), (next_scale, next_shift)) in self.scale.iter_mut().zip(&mut self.shift).zip(next)
        {
            *scale *= next_scale;
            *shift = *shift * next_scale + next_shift;
        }
        self
    }

    /// Rounds to f32.
    ///
    /// # Errors
    /// When a factor lies beyond f32.
    pub(super) fn vectors(&self, name: &str) -> Result<[Arc<[f32]>; 2], LoadError> {
        Ok([rounded(name, &self.scale)?.into(), rounded(name, &self.shift)?.into()])
    }
}
