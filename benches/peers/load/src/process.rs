//! What a server process and its descendants have spent, from `/proc`.

use std::fs;

use crate::poll::ticks_per_second;

/// What a tree of processes holds, each sum over its members.
#[derive(Clone, Copy, Default)]
pub(crate) struct Memory {
    /// Pages that processes share are counted in each of them.
    pub(crate) rss_mib: f64,
    /// A shared page is divided among those that share it.
    pub(crate) pss_mib: f64,
    /// Sum of each process's own peak.
    pub(crate) peak_mib: f64,
    pub(crate) processes: usize,
}

/// Seconds of processor time that `root` and every process below it have spent so far.
pub(crate) fn cpu_s(root: u32) -> f64 {
    let (all, tree) = tree(root);
    let ticks: u64 = all.iter().filter(|(pid, ..)| tree.contains(pid)).map(|(.., ticks)| ticks).sum();
    ticks as f64 / ticks_per_second()
}

/// What they hold now. Takes the kernel a while for large trees: not while anything is measured.
pub(crate) fn memory(root: u32) -> Memory {
    let (_, tree) = tree(root);
    let sum = |file: &str, key: &str| tree.iter().map(|&pid| mib(pid, file, key)).sum();
    Memory {
        rss_mib: sum("status", "VmRSS:"),
        pss_mib: sum("smaps_rollup", "Pss:"),
        peak_mib: sum("status", "VmHWM:"),
        processes: tree.len(),
    }
}

/// Seconds that all processors of the machine have worked so far, for whomever.
pub(crate) fn machine_cpu_s() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let ticks: Vec<u64> = fields.map(|field| field.parse().unwrap_or(0)).collect();
    // user, nice, system, idle, waiting for a disk, interrupts of both kinds
    let busy: u64 = [0, 1, 2, 5, 6].iter().filter_map(|&index| ticks.get(index)).sum();
    busy as f64 / ticks_per_second()
}

/// Every process, and those that descend from `root`, itself included.
fn tree(root: u32) -> (Vec<(u32, u32, u64)>, Vec<u32>) {
    let all: Vec<(u32, u32, u64)> = processes().collect();
    let mut tree = vec![root];
    let mut next = 0;
    while let Some(&parent) = tree.get(next) {
        tree.extend(all.iter().filter(|(_, of, _)| *of == parent).map(|(pid, ..)| *pid));
        next += 1;
    }
    (all, tree)
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

fn mib(pid: u32, file: &str, key: &str) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
}
