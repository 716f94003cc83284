//! What the process holds of the machine's memory beyond what it uses.
//!
//! Loading a model reads its file and folds its matrices in f64: several times what serving it takes. glibc would
//! keep those pages in its heap, between the matrices that stay. It also gives threads up to eight heaps a core, and what
//! one frees another does not find: with as many as cores a node that serves for half an hour stays as large as it is.

/// While models load: large blocks are mapped one by one, so that each goes back when it is freed.
pub(crate) fn for_loading() {
    set_heaps(std::thread::available_parallelism().map_or(1, std::num::NonZero::get));
    set_map_threshold(128 << 10);
}

/// From then on: blocks of a request come from the heap and stay in it, which costs no page fault each time; what
/// loading left behind goes back.
pub(crate) fn for_serving() {
    set_map_threshold(32 << 20);
    set_trim_threshold(64 << 20);
    trim();
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn set_map_threshold(bytes: std::ffi::c_int) {
    // SAFETY: takes plain numbers and sets one variable of the allocator, which it locks. A refusal changes nothing.
    unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, bytes) };
}

/// Those that there are already stay.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn set_heaps(count: usize) {
    let count = std::ffi::c_int::try_from(count).unwrap_or(std::ffi::c_int::MAX);
    // SAFETY: as above.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, count) };
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn set_trim_threshold(bytes: std::ffi::c_int) {
    // SAFETY: as above.
    unsafe { libc::mallopt(libc::M_TRIM_THRESHOLD, bytes) };
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn trim() {
    // SAFETY: takes no pointer and touches only pages that the allocator holds as free; it locks its own arenas.
    unsafe { libc::malloc_trim(0) };
}

/// Other allocators decide for themselves.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn set_map_threshold(_bytes: std::ffi::c_int) {}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn set_heaps(_count: usize) {}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn set_trim_threshold(_bytes: std::ffi::c_int) {}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn trim() {}

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
