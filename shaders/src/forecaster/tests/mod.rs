//! Stored models against their own expected results, generated models against a literal f64 reading of the
//! arithmetic, and damaged files against the loader.

mod ensemble;
mod folders;
mod hostile;
mod interpreter;
mod native;
mod options;
mod options_mixers;
mod options_sequence;
mod oracle;
mod oracle_mixers;
mod oracle_sequence;
mod refusals;
mod shapes;
mod synthetic;
mod synthetic_mixers;
mod synthetic_sequence;

use interpreter::Interpreter;
use oracle::forecast as oracle_forecast;
use synthetic::{Model, Rng};
