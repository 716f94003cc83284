//! The binary `peregrine`: hands the command line to [`peregrine::cli`].

use std::process::ExitCode;

/// Gives back what lies free, whichever thread it was of: a node that serves for weeks stays as large as what it holds.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    peregrine::cli::run(std::env::args_os())
}
