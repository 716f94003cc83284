//! What the machine has of memory, and what of it goes back that others than this program's own code took.

/// After models were loaded: drivers compile with the C library's allocator, which keeps what that took.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) fn trim() {
    // SAFETY: takes no pointer and touches only pages that the allocator holds as free; it locks its own heaps.
    unsafe { libc::malloc_trim(0) };
}

/// Other libraries decide for themselves.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn trim() {}

/// Bytes of this machine's memory; all there could be where it cannot be asked.
#[cfg(unix)]
pub(crate) fn of_machine() -> u64 {
    // SAFETY: takes a plain number and reads a constant of the system.
    let ask = |what| u64::try_from(unsafe { libc::sysconf(what) }).unwrap_or(u64::MAX);
    ask(libc::_SC_PHYS_PAGES).saturating_mul(ask(libc::_SC_PAGESIZE))
}

#[cfg(not(unix))]
pub(crate) fn of_machine() -> u64 {
    u64::MAX
}
