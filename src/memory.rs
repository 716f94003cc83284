//! What this node may have of the machine's memory, and what of it goes back to it.

mod groups;

use std::ffi::CStr;
use std::ptr::null_mut;
use std::sync::LazyLock;

use peregrine_actors::MemoryRoom;

use self::groups::Groups;

/// What the control groups of this process leave it, where they leave it less than the machine has.
pub(crate) fn room() -> Option<MemoryRoom> {
    static OWN: LazyLock<Option<Groups>> = LazyLock::new(Groups::own);
    OWN.as_ref()?.room(of_machine())
}

/// Bytes that this node may use at most.
pub(crate) fn total() -> u64 {
    room().map_or_else(of_machine, |room| room.total_bytes)
}

/// After models were loaded: what that took is given back at once, of this program's allocator, which would keep it for
/// ten seconds, and of the C library's, with which drivers compile.
pub(crate) fn trim() {
    // SAFETY: the name is of a C string, no value is read or written; the allocator locks its own heaps.
    // It fails where there is nothing to give back.
    unsafe {
        tikv_jemalloc_sys::mallctl(PURGE.as_ptr(), null_mut(), null_mut(), null_mut(), 0);
    }
    trim_libc();
}

/// Of all arenas (`MALLCTL_ARENAS_ALL`).
const PURGE: &CStr = c"arena.4096.purge";

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn trim_libc() {
    // SAFETY: takes no pointer and touches only pages that the allocator holds as free; it locks its own heaps.
    unsafe { libc::malloc_trim(0) };
}

/// Other libraries decide for themselves.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn trim_libc() {}

/// Bytes of this machine's memory; all there could be where it cannot be asked.
#[cfg(unix)]
fn of_machine() -> u64 {
    // SAFETY: takes a plain number and reads a constant of the system.
    let ask = |what| u64::try_from(unsafe { libc::sysconf(what) }).unwrap_or(u64::MAX);
    ask(libc::_SC_PHYS_PAGES).saturating_mul(ask(libc::_SC_PAGESIZE))
}

#[cfg(not(unix))]
fn of_machine() -> u64 {
    u64::MAX
}
