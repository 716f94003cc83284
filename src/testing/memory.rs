//! How much memory a call holds at most: an allocator that counts what its thread has.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

#[global_allocator]
static COUNTED: Counted = Counted;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

struct Counted;

fn add(bytes: isize) {
    HELD.set(HELD.get() + bytes);
    PEAK.set(PEAK.get().max(HELD.get()));
}

// SAFETY: everything is the system allocator's; the counters are plain cells that allocate nothing.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size() as isize);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        add(-(layout.size() as isize));
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        add(layout.size() as isize);
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both may be there for a moment.
        add(size as isize);
        // SAFETY: the caller's promise.
        let moved = unsafe { System.realloc(at, layout, size) };
        add(-(layout.size() as isize));
        moved
    }
}

/// What `call` gives, and how many bytes its thread held at most beyond those it had before.
pub(crate) fn peak_of<T>(call: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    PEAK.set(before);
    let given = call();
    (given, usize::try_from(PEAK.get() - before).unwrap_or(0))
}

#[test]
fn what_a_call_holds_is_counted_though_it_is_given_back() {
    let (len, peak) = peak_of(|| vec![0_u8; 1 << 20].len());
    assert_eq!(len, 1 << 20);
    assert!((1 << 20..2 << 20).contains(&peak), "{peak}");
}
