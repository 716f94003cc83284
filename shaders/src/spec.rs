//! What a model is, seen from outside: shapes, columns and families. No weights.

/// A network architecture; the section is that of the models' arithmetic description.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// Neural Hierarchical Interpolation for Time Series (Challu et al. 2023).
    Nhits,
    /// Neural Basis Expansion Analysis (Oreshkin et al. 2020).
    Nbeats,
    /// Plain multi-layer perceptron over the flattened window.
    Mlp,
    /// Decomposition-linear (Zeng et al. 2023).
    Dlinear,
    /// Last-value-normalized linear (Zeng et al. 2023).
    Nlinear,
    /// Time-series Dense Encoder (Das et al. 2023).
    Tide,
    /// Mixer over time and series (Chen et al. 2023); forecasts several series at once.
    Tsmixer,
    /// Patch time-series transformer (Nie et al. 2023).
    Patchtst,
    /// Long short-term memory (Hochreiter & Schmidhuber 1997).
    Lstm,
    /// Gated recurrent unit (Cho et al. 2014).
    Gru,
    /// Autoregressive recurrent network with a distribution for its head (Salinas et al. 2020).
    Deepar,
    /// Temporal convolutional network (Bai et al. 2018).
    Tcn,
    /// Several of the others that answer as one.
    Ensemble,
}

impl Family {
    /// Every network that this build can execute.
    pub const ALL: [Self; 12] = [
        Self::Nhits,
        Self::Nbeats,
        Self::Mlp,
        Self::Dlinear,
        Self::Nlinear,
        Self::Tide,
        Self::Tsmixer,
        Self::Patchtst,
        Self::Lstm,
        Self::Gru,
        Self::Deepar,
        Self::Tcn,
    ];

    /// Whether one forecast reads and answers several series at once.
    #[must_use]
    pub const fn is_multivariate(self) -> bool {
        matches!(self, Self::Tsmixer)
    }

    /// The class name used in `model.json`.
    #[must_use]
    pub const fn class(self) -> &'static str {
        match self {
            Self::Nhits => "NHITS",
            Self::Nbeats => "NBEATS",
            Self::Mlp => "MLP",
            Self::Dlinear => "DLinear",
            Self::Nlinear => "NLinear",
            Self::Tide => "TiDE",
            Self::Tsmixer => "TSMixer",
            Self::Patchtst => "PatchTST",
            Self::Lstm => "LSTM",
            Self::Gru => "GRU",
            Self::Deepar => "DeepAR",
            Self::Tcn => "TCN",
            Self::Ensemble => "Ensemble",
        }
    }
}

/// How a window is brought to unit scale before the network, and back after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormalizerKind {
    /// Leaves values as they are.
    Identity,
    /// Mean and population standard deviation.
    Standard,
    /// Lower median and median absolute deviation.
    Robust,
    /// To `[0, 1]`.
    MinMax,
    /// To `[-1, 1]`.
    MinMax1,
    /// Robust, then `asinh`.
    Invariant,
    /// Standard on the way in, with a learned affine on the way out.
    Revin,
}

/// What the last axis of the network's output means.
#[derive(Clone, Debug, PartialEq)]
pub enum Head {
    /// One value per step.
    Point,
    /// One value per step and level, in the library's order (median first, not sorted).
    Quantiles(Vec<f64>),
    /// Raw `(df, loc, scale)`; answered as mean, df, loc, scale.
    StudentT,
    /// Raw `(loc, scale)`; answered as mean, loc, scale.
    Normal,
}

impl Head {
    /// Numbers per step that the network emits.
    #[must_use]
    pub fn network_width(&self) -> usize {
        match self {
            Self::Point => 1,
            Self::Quantiles(levels) => levels.len(),
            Self::StudentT => 3,
            Self::Normal => 2,
        }
    }

    /// Numbers per step that a forecast carries (`columns.len()`).
    #[must_use]
    pub fn answer_width(&self) -> usize {
        match self {
            Self::Point => 1,
            Self::Quantiles(levels) => levels.len(),
            Self::StudentT => 4,
            Self::Normal => 3,
        }
    }
}

/// The shape of a model's question and answer.
#[derive(Clone, Debug)]
pub struct ModelSpec {
    /// The folder's name.
    pub name: String,
    /// The architecture.
    pub family: Family,
    /// Steps ahead of one forecast (`h`).
    pub horizon: usize,
    /// Values of history that one forecast needs (`L`), of each series.
    pub window: usize,
    /// Series that one forecast reads and answers (`N`); 1 unless the family is multivariate.
    pub series: usize,
    /// The data normalizer.
    pub normalizer: NormalizerKind,
    /// Meaning of the output columns.
    pub head: Head,
    /// Past-only exogenous columns, in input order (`X` of them).
    pub hist_exog: Vec<String>,
    /// Known-future exogenous columns, in input order (`F` of them).
    pub futr_exog: Vec<String>,
    /// Static exogenous columns, in input order (`S` of them).
    pub stat_exog: Vec<String>,
    /// Names of the answer's columns, `head.answer_width()` of them, e.g. `median, lo-95, …`.
    pub columns: Vec<String>,
}

impl ModelSpec {
    /// Length of one row's history: window × series.
    #[must_use]
    pub fn y_len(&self) -> usize {
        self.window * self.series
    }

    /// Length of one row's answer: horizon × series × columns.
    #[must_use]
    pub fn answer_len(&self) -> usize {
        self.horizon * self.series * self.columns.len()
    }

    /// Dimensions of one row's history: `[L]`, or `[L, N]` of a multivariate family.
    #[must_use]
    pub fn y_dims(&self) -> Vec<usize> {
        if self.family.is_multivariate() { vec![self.window, self.series] } else { vec![self.window] }
    }

    /// Dimensions of one row's answer: `[h, C]`; of a multivariate family `[h, N]`, or `[h, N, C]` where there are
    /// several columns.
    #[must_use]
    pub fn answer_dims(&self) -> Vec<usize> {
        match (self.family.is_multivariate(), self.columns.len()) {
            (false, columns) => vec![self.horizon, columns],
            (true, 1) => vec![self.horizon, self.series],
            (true, columns) => vec![self.horizon, self.series, columns],
        }
    }
}
