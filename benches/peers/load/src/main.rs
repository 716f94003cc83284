//! Load over HTTP with few cycles: one thread, one epoll, bodies built beforehand. It shares the machine with the server
//! that it measures, so what it spends is part of its report.
//!
//! Closed loop: each connection sends again when its answer is complete. Open loop (`--rate`): requests fall due at
//! seeded random moments whether or not earlier ones were answered, and latency counts from the due moment, so a server
//! that stalls cannot hide the requests that would have come (no coordinated omission).
//!
//! `--started-at` waits for the first right answer of a server that has just been started, and measures nothing else.
//!
//! Prints one JSON object; exits 1 when a checked answer is wrong.

mod args;
mod body;
mod cold;
mod connection;
mod drive;
mod poll;
mod process;
mod report;
mod response;

use std::process::ExitCode;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<bool, Box<dyn std::error::Error>> {
    let args = args::parse(std::env::args().skip(1))?;
    let bodies = body::prepare(&args)?;
    if let (Some(started_at), Some(body)) = (args.started_at, bodies.first()) {
        println!("{}", cold::wait(&args, body, started_at)?);
        return Ok(true);
    }
    let outcome = drive::drive(&args, &bodies)?;
    println!("{}", report::json(&args, &outcome));
    Ok(outcome.wrong == 0)
}
