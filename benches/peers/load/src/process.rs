//! What a server process and its descendants have spent, from `/proc`.

use std::fs;

use crate::poll::ticks_per_second;

/// Spent so far, and held now.
#[derive(Clone, Copy, Default)]
pub(crate) struct Usage {
    pub(crate) cpu_s: f64,
    pub(crate) rss_mib: f64,
    /// Sum of each process's own peak.
    pub(crate) peak_mib: f64,
}

/// Usage of `root` and every process below it.
pub(crate) fn usage(root: u32) -> Usage {
    let all: Vec<(u32, u32, u64)> = processes().collect();
    let mut tree = vec![root];
    let mut next = 0;
    while let Some(&parent) = tree.get(next) {
        tree.extend(all.iter().filter(|(_, of, _)| *of == parent).map(|(pid, ..)| *pid));
        next += 1;
    }
    let ticks: u64 = all.iter().filter(|(pid, ..)| tree.contains(pid)).map(|(.., ticks)| ticks).sum();
    let memory = |key: &str| tree.iter().map(|&pid| status_mib(pid, key)).sum();
    Usage { cpu_s: ticks as f64 / ticks_per_second(), rss_mib: memory("VmRSS:"), peak_mib: memory("VmHWM:") }
}

/// `(pid, parent, user and system ticks)` of every process that can be read.
fn processes() -> impl Iterator<Item = (u32, u32, u64)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        // The name may hold spaces and brackets; the fields follow its last bracket.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
        Some((pid, fields.get(1)?.parse().ok()?, ticks))
    })
}

fn status_mib(pid: u32, key: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
}
