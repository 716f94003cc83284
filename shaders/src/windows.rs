//! A batch of input windows in raw units, and the check that it fits a model.

use crate::ModelSpec;

/// Row-major input of `rows` windows in raw units. Optional parts are empty when the model has none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Windows {
    /// Number of windows, `B`.
    pub rows: usize,
    /// `[B, L]` history, oldest first; `[B, L, N]` for a model of several series.
    pub y: Vec<f32>,
    /// As long as `y`: 1 = observed, 0 = missing. `None`: all observed.
    pub mask: Option<Vec<f32>>,
    /// `[B, L, X]`.
    pub hist_exog: Vec<f32>,
    /// `[B, L + h, F]`.
    pub futr_exog: Vec<f32>,
    /// `[B, S]`.
    pub stat_exog: Vec<f32>,
}

/// The caller sent windows that this model cannot forecast.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum WindowError {
    /// A batch must hold at least one window.
    #[error("the batch is empty")]
    Empty,
    /// The count of numbers differs from what the shape asks for.
    #[error("`{tensor}` holds {got} numbers where {rows} windows need {want}")]
    Length {
        /// Which input.
        tensor: &'static str,
        /// Windows in the batch.
        rows: usize,
        /// Numbers that came.
        got: usize,
        /// Numbers needed.
        want: usize,
    },
    /// NaN or infinite.
    #[error("`{tensor}` of series {row} is not finite at index {index}")]
    NotFinite {
        /// Which input.
        tensor: &'static str,
        /// Row in the batch.
        row: usize,
        /// Index inside that row, row-major.
        index: usize,
    },
    /// A mask holds something other than 0 and 1.
    #[error("`mask` of series {row} is neither 0 nor 1 at index {index}")]
    Mask {
        /// Row in the batch.
        row: usize,
        /// Index inside that row.
        index: usize,
    },
}

impl Windows {
    /// Checks lengths against `spec` and every number for finiteness; masked positions are checked too, since they
    /// are fed to the network.
    ///
    /// # Errors
    /// The first mistake found, naming row and index.
    pub fn check(&self, spec: &ModelSpec) -> Result<(), WindowError> {
        if self.rows == 0 {
            return Err(WindowError::Empty);
        }
        let span = spec.window + spec.horizon;
        self.tensor("y", &self.y, Some(spec.y_len()))?;
        self.tensor("hist_exog", &self.hist_exog, spec.window.checked_mul(spec.hist_exog.len()))?;
        self.tensor("futr_exog", &self.futr_exog, span.checked_mul(spec.futr_exog.len()))?;
        self.tensor("stat_exog", &self.stat_exog, Some(spec.stat_exog.len()))?;
        if let Some(mask) = &self.mask {
            self.tensor("mask", mask, Some(spec.y_len()))?;
            if let Some(at) = mask.iter().position(|&m| m != 0.0 && m != 1.0) {
                return Err(WindowError::Mask { row: at / spec.y_len(), index: at % spec.y_len() });
            }
        }
        Ok(())
    }

    /// Puts a zero, as the reference has it, where the mask says that nothing is known: what stands there is fed to the
    /// network. What is not finite stays, and is refused.
    pub fn clear_masked(&mut self) {
        let Some(mask) = &self.mask else { return };
        for (value, _) in self.y.iter_mut().zip(mask).filter(|(value, m)| **m == 0.0 && value.is_finite()) {
            *value = 0.0;
        }
    }

    /// The first window of which nothing is known.
    #[must_use]
    pub fn unknown(&self) -> Option<usize> {
        let mask = self.mask.as_ref()?;
        let len = mask.len().checked_div(self.rows).filter(|&len| len > 0)?;
        mask.chunks_exact(len).position(|row| row.iter().all(|&m| m == 0.0))
    }

    fn tensor(&self, tensor: &'static str, data: &[f32], width: Option<usize>) -> Result<(), WindowError> {
        let width = width.unwrap_or(usize::MAX);
        let want = self.rows.saturating_mul(width);
        if data.len() != want {
            return Err(WindowError::Length { tensor, rows: self.rows, got: data.len(), want });
        }
        match data.iter().position(|v| !v.is_finite()) {
            Some(at) => Err(WindowError::NotFinite { tensor, row: at / width, index: at % width }),
            None => Ok(()),
        }
    }

    /// Appends the rows of `other`, which must fit the same model. A missing mask becomes all ones when the other
    /// side has one. `y_len` is [`ModelSpec::y_len`].
    pub fn append(&mut self, other: &Self, y_len: usize) {
        if self.mask.is_some() || other.mask.is_some() {
            let rows = self.rows;
            let mask = self.mask.get_or_insert_with(|| vec![1.0; rows * y_len]);
            match &other.mask {
                Some(more) => mask.extend_from_slice(more),
                None => mask.resize(mask.len() + other.rows * y_len, 1.0),
            }
        }
        self.rows += other.rows;
        self.y.extend_from_slice(&other.y);
        self.hist_exog.extend_from_slice(&other.hist_exog);
        self.futr_exog.extend_from_slice(&other.futr_exog);
        self.stat_exog.extend_from_slice(&other.stat_exog);
    }
}
