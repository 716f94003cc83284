//! Kernels over which devices were lost, so that those that take their place do without them.
//!
//! Most drivers say no and nothing else happens. One that does not get through a kernel may take its device with it, and
//! with several at once nobody knows which it was: then the next device compiles one at a time.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;

use super::recent::Digest;

/// What is known of one adapter in this process. Clones are the same: devices that take each other's place share it.
#[derive(Clone, Debug, Default)]
pub struct Refusals(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    one_at_a_time: bool,
    /// By the digest of a kernel.
    fatal: HashSet<Digest>,
}

impl Refusals {
    /// Whether kernels are compiled one after the other.
    pub(super) fn one_at_a_time(&self) -> bool {
        self.0.lock().one_at_a_time
    }

    /// A device was lost while several kernels were compiled.
    pub(super) fn be_careful(&self) {
        self.0.lock().one_at_a_time = true;
    }

    /// A device was lost while this kernel alone was compiled.
    pub(super) fn blame(&self, digest: Digest) {
        self.0.lock().fatal.insert(digest);
    }

    pub(super) fn blames(&self, digest: &Digest) -> bool {
        self.0.lock().fatal.contains(digest)
    }

    /// Grows with everything that is learned, and has an end.
    pub(super) fn lessons(&self) -> usize {
        let known = self.0.lock();
        usize::from(known.one_at_a_time) + known.fatal.len()
    }
}
