//! ONNX Runtime as peregrine's peer: one exported graph behind one call.
//!
//! The library itself is loaded at run time from `ORT_DYLIB_PATH`; nothing is downloaded or linked.

use std::path::{Path, PathBuf};

use ort::environment::Environment;
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use ort::value::TensorRef;

/// One graph, ready to run on the CPU.
pub struct Network {
    session: Session,
}

impl Network {
    /// Loads `graph` with every optimisation on. `threads` work inside one operator; operators run one by one.
    ///
    /// # Errors
    /// When the file is not a graph that the runtime accepts.
    pub fn open(environment: &Environment, graph: &Path, threads: usize) -> ort::Result<Self> {
        let session = Session::builder(environment)?
            .with_optimization_level(GraphOptimizationLevel::All)?
            .with_intra_threads(threads)?
            .commit_from_file(graph)?;
        Ok(Self { session })
    }

    /// `y` is `[rows, width]`; the answer's numbers are handed to `read`, row-major, without a copy.
    ///
    /// # Errors
    /// When the runtime refuses, e.g. because `y` does not fit the graph.
    pub fn run<R>(&mut self, rows: usize, y: &[f32], read: impl FnOnce(&[f32]) -> R) -> ort::Result<R> {
        let tensor = TensorRef::from_array_view(([rows, y.len() / rows], y))?;
        let outputs = self.session.run(ort::inputs![tensor])?;
        let (_, data) = outputs[0].try_extract_tensor::<f32>()?;
        Ok(read(data))
    }
}

/// The runtime's process-wide environment.
///
/// # Errors
/// When the library named by `ORT_DYLIB_PATH` is missing or too old.
pub fn environment() -> ort::Result<Environment> {
    ort::init().build()
}

/// Where `run.sh` puts graphs, models and cases: `PEERS_BUILD`, or `build/` beside this package.
#[must_use]
pub fn build_dir() -> PathBuf {
    std::env::var_os("PEERS_BUILD")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../build"), PathBuf::from)
}
