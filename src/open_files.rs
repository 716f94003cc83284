//! How many files a node may have open, and how many it cannot be without: one that lacks them says so before it starts.

use crate::config::{BackendChoice, Config};

/// Standard streams, the threads that every node has, its models and what it logs to.
const OF_NODE: u64 = 32;
/// Its event loop.
const OF_WORKER: u64 = 4;
const OF_JOURNAL: u64 = 16;
const OF_AUDIT: u64 = 8;
/// Its socket, and connections to some other nodes.
const OF_CLUSTER: u64 = 32;
/// What a driver opens.
const OF_GPU: u64 = 64;
/// A node that answers nobody is none.
const OF_CLIENTS: u64 = 16;

/// Without a single file for a client that it could do without.
pub(crate) fn needed(config: &Config) -> u64 {
    let parts = [
        (true, OF_NODE + OF_CLIENTS),
        (config.journal.is_some(), OF_JOURNAL),
        (config.audit.is_some(), OF_AUDIT),
        (config.cluster.is_some() || config.scaler.enabled, OF_CLUSTER),
        (config.backend.choice != BackendChoice::Cpu, OF_GPU),
    ];
    let of_parts: u64 = parts.iter().filter(|(is_there, _)| *is_there).map(|(_, files)| files).sum();
    of_parts + OF_WORKER * config.server.workers as u64
}

/// Raises the limit of this process as far as it may, and says where it is then.
pub(crate) fn raised_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel fills `limit`.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return u64::MAX; // nobody knows: what fails later says so
    }
    let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
    // SAFETY: the kernel reads `raised`.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) } == 0 {
        raised.rlim_cur
    } else {
        limit.rlim_cur
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, resolve};

    #[test]
    fn every_part_of_a_node_needs_files() {
        let mut config = resolve(&Sources::default()).unwrap().config;
        config.backend.choice = BackendChoice::Cpu;
        config.server.workers = 1;
        let least = needed(&config);
        config.server.workers = 9;
        assert_eq!(needed(&config), least + 8 * OF_WORKER);
        config.backend.choice = BackendChoice::Auto;
        assert_eq!(needed(&config), least + 8 * OF_WORKER + OF_GPU);
    }
}
