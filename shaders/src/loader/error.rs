//! Why a model was not loaded; every variant names the file, tensor or parameter at fault.

use std::io;
use std::path::PathBuf;

use safetensors::SafeTensorError;

/// The files do not describe a forecaster that this build can run exactly.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is larger than anything this build loads.
    #[error("{} is larger than the {bytes_max} bytes allowed", path.display())]
    FileTooLarge {
        /// Which file.
        path: PathBuf,
        /// The bound.
        bytes_max: u64,
    },
    /// The file is encrypted and cannot be opened, or nobody trusted vouches for it.
    #[error("{}: {reason}", path.display())]
    Refused {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// `model.json`, or a JSON field of a native header, does not parse.
    #[error("{what} does not parse: {source}")]
    Json {
        /// Which file or header field.
        what: String,
        /// Where and why.
        source: serde_json::Error,
    },
    /// Not a well-formed safetensors file.
    #[error("{} is not a safetensors file: {source}", path.display())]
    Archive {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        source: SafeTensorError,
    },
    /// The architecture is not one of [`crate::Family::ALL`].
    #[error("model class `{class}` is not supported")]
    UnknownFamily {
        /// As the file says it.
        class: String,
    },
    /// The architecture is known, this option of it is not executed by this build.
    #[error("not supported: {what}")]
    Unsupported {
        /// Option and value.
        what: String,
    },
    /// A field or hyper-parameter is missing, of the wrong type, out of bounds or contradicts another.
    #[error("`{name}`: {problem}")]
    Parameter {
        /// Which one.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The weights lack a tensor that the hyper-parameters ask for.
    #[error("tensor `{name}` is missing")]
    MissingTensor {
        /// Which one.
        name: String,
    },
    /// A tensor of the weights has no part in the described network.
    #[error("tensor `{name}` has no place in this architecture")]
    UnusedTensor {
        /// Which one.
        name: String,
    },
    /// A tensor is not stored as floating-point numbers.
    #[error("tensor `{name}` has type {dtype}, wanted F32, F64, F16 or BF16")]
    TensorType {
        /// Which one.
        name: String,
        /// Its type.
        dtype: String,
    },
    /// A tensor's shape contradicts the hyper-parameters.
    #[error("tensor `{name}` has shape {got:?}, wanted {want}")]
    TensorShape {
        /// Which one.
        name: String,
        /// Its shape.
        got: Vec<usize>,
        /// The shape the hyper-parameters ask for.
        want: String,
    },
    /// NaN, infinity, or a product of layers beyond f32.
    #[error("tensor `{name}` is not finite at index {index}")]
    NotFinite {
        /// Which one.
        name: String,
        /// Flat index.
        index: usize,
    },
    /// The network would be larger than this build allows.
    #[error("{what} is {len}, more than the {len_max} allowed")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// How large.
        len: usize,
        /// The bound.
        len_max: usize,
    },
}

impl LoadError {
    pub(crate) fn unsupported(what: impl Into<String>) -> Self {
        Self::Unsupported { what: what.into() }
    }

    pub(crate) fn parameter(name: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Parameter { name: name.into(), problem: problem.into() }
    }
}
