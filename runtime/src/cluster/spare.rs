//! Memory of large buffers between two uses: given back to the system each time, its pages would be mapped anew all the
//! time.

use std::mem;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

/// Buffers that nobody uses, up to a bound.
#[derive(Default)]
pub(crate) struct Spare(Mutex<State>);

#[derive(Default)]
struct State {
    buffers: Vec<Vec<u8>>,
    /// Of all their memory.
    bytes: usize,
    bytes_max: usize,
}

impl Spare {
    /// An empty buffer, mostly with memory.
    pub(crate) fn take(&self) -> Vec<u8> {
        let mut state = self.0.lock();
        let buffer = state.buffers.pop().unwrap_or_default();
        state.bytes -= buffer.capacity();
        buffer
    }

    /// Keeps a buffer's memory, if there is room for it.
    pub(crate) fn put(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let mut state = self.0.lock();
        if buffer.capacity() > 0 && state.bytes + buffer.capacity() <= state.bytes_max {
            state.bytes += buffer.capacity();
            state.buffers.push(buffer);
        }
    }

    /// From now on holds no more than that.
    pub(crate) fn keep(&self, bytes_max: usize) {
        let mut state = self.0.lock();
        state.bytes_max = bytes_max;
        while state.bytes > bytes_max
            && let Some(buffer) = state.buffers.pop()
        {
            state.bytes -= buffer.capacity();
        }
    }

    /// Memory that is held, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.0.lock().bytes
    }

    /// Takes a full buffer as bytes that others may share; its memory comes back when the last of them lets go.
    pub(crate) fn lend(self: &Arc<Self>, buffer: Vec<u8>) -> Bytes {
        Bytes::from_owner(Lent { buffer, home: Arc::clone(self) })
    }
}

struct Lent {
    buffer: Vec<u8>,
    home: Arc<Spare>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.home.put(mem::take(&mut self.buffer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lent_comes_back_with_the_last_that_holds_it() {
        let spare = Arc::new(Spare::default());
        spare.keep(1 << 10);
        let mut lent = spare.lend(vec![7; 100]);
        let part = lent.split_to(10);
        drop(lent);
        assert_eq!((spare.bytes(), &part[..]), (0, &[7; 10][..]));
        drop(part);
        assert_eq!(spare.bytes(), 100);
        let again = spare.take();
        assert_eq!((again.len(), again.capacity(), spare.bytes()), (0, 100, 0));
    }

    #[test]
    fn no_more_is_kept_than_the_bound() {
        let spare = Spare::default();
        spare.put(vec![0; 100]);
        assert_eq!(spare.bytes(), 0, "nothing was to be kept yet");
        spare.keep(250);
        (0..3).for_each(|_| spare.put(vec![0; 100]));
        assert_eq!(spare.bytes(), 200);
        spare.keep(150);
        assert_eq!(spare.bytes(), 100);
    }
}
