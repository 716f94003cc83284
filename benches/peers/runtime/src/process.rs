//! Memory and processor time of a process, as the kernel counts them.

use std::fs;
use std::time::Duration;

use crate::Outcome;

/// Ticks of /proc a second: what Linux tells every program.
const TICKS_PER_S: f64 = 100.0;

/// Highest resident memory so far.
pub(crate) fn peak_mib(pid: u32) -> Outcome<f64> {
    status_mib(pid, "VmHWM:")
}

/// Resident memory of this process and another.
pub(crate) fn both_mib(other: u32) -> Outcome<f64> {
    Ok(status_mib(std::process::id(), "VmRSS:")? + status_mib(other, "VmRSS:")?)
}

/// Processor time of this process and another.
pub(crate) fn both_spent(other: u32) -> Outcome<Duration> {
    Ok(spent(std::process::id())? + spent(other)?)
}

fn status_mib(pid: u32, key: &str) -> Outcome<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with(key)).ok_or("no such line")?;
    let kib: f64 = line.split_whitespace().nth(1).ok_or("no number")?.parse()?;
    Ok(kib / 1024.0)
}

/// Processor time of a process, all its threads.
pub(crate) fn spent(pid: u32) -> Outcome<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in front may contain anything, but ends with the last parenthesis.
    let (_, fields) = stat.rsplit_once(')').ok_or("no name")?;
    let ticks: u64 = fields.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<u64>().ok()).sum();
    Ok(Duration::from_secs_f64(ticks as f64 / TICKS_PER_S))
}
