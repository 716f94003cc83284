//! The binary `peregrine`: hands the command line to [`peregrine::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    peregrine::cli::run(std::env::args_os())
}
