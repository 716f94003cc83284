//! The system calls that the standard library lacks: epoll, a timer that is finer than its milliseconds, and a thread's
//! own processor time.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// Marks the timer among the tokens of connections.
pub(crate) const TIMER: u64 = u64::MAX;

/// Level-triggered readiness of sockets, and one timer.
pub(crate) struct Poll {
    epoll: OwnedFd,
    timer: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl Poll {
    pub(crate) fn new(sockets_max: usize) -> io::Result<Self> {
        // SAFETY: both calls take plain numbers and return a fresh descriptor or −1, which `owned` turns into an error.
        let (epoll, timer) = unsafe {
            (
                owned(libc::epoll_create1(libc::EPOLL_CLOEXEC))?,
                owned(libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK | libc::TFD_CLOEXEC))?,
            )
        };
        let events = vec![libc::epoll_event { events: 0, u64: 0 }; sockets_max + 1];
        let poll = Self { epoll, timer, events };
        poll.control(libc::EPOLL_CTL_ADD, poll.timer.as_raw_fd(), TIMER, libc::EPOLLIN | libc::EPOLLET)?;
        Ok(poll)
    }

    pub(crate) fn add(&self, socket: &impl AsRawFd, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, socket.as_raw_fd(), token, libc::EPOLLIN)
    }

    /// Whether to be told also when the socket takes more bytes.
    pub(crate) fn want_write(&self, socket: &impl AsRawFd, token: u64, want: bool) -> io::Result<()> {
        let events = if want { libc::EPOLLIN | libc::EPOLLOUT } else { libc::EPOLLIN };
        self.control(libc::EPOLL_CTL_MOD, socket.as_raw_fd(), token, events)
    }

    /// Fires [`TIMER`] once, `after` from now.
    pub(crate) fn arm(&self, after: Duration) -> io::Result<()> {
        let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let after = after.max(Duration::from_nanos(1)); // zero would disarm
        let value = libc::timespec {
            tv_sec: libc::time_t::try_from(after.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: libc::c_long::from(after.subsec_nanos() as i32),
        };
        let spec = libc::itimerspec { it_interval: zero, it_value: value };
        // SAFETY: `spec` outlives the call; a null old value is allowed.
        check(unsafe {
            libc::timerfd_settime(self.timer.as_raw_fd(), 0, &raw const spec, std::ptr::null_mut())
        })
    }

    /// Waits for readiness, of `timeout` zero only looks, and puts `(token, writable)` into `ready`; readable is assumed and costs one failed read when
    /// wrong.
    pub(crate) fn wait(&mut self, timeout: Duration, ready: &mut Vec<(u64, bool)>) -> io::Result<()> {
        // Rounded up, or a wait of less than a millisecond would not be one.
        let millis = i32::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX);
        let room = i32::try_from(self.events.len()).unwrap_or(i32::MAX);
        // SAFETY: the kernel writes at most `room` events into the buffer, which holds that many.
        let count =
            unsafe { libc::epoll_wait(self.epoll.as_raw_fd(), self.events.as_mut_ptr(), room, millis) };
        let count = match usize::try_from(count) {
            Ok(count) => count,
            Err(_) if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => 0,
            Err(_) => return Err(io::Error::last_os_error()),
        };
        let writable = libc::EPOLLOUT as u32;
        ready.clear();
        ready.extend(self.events[..count].iter().map(|event| (event.u64, event.events & writable != 0)));
        Ok(())
    }

    fn control(&self, operation: i32, fd: i32, token: u64, events: i32) -> io::Result<()> {
        let mut event = libc::epoll_event { events: events as u32, u64: token };
        // SAFETY: `event` outlives the call and the descriptors are open: their owners are borrowed.
        check(unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), operation, fd, &raw mut event) })
    }
}

/// Processor time that the calling thread has spent.
pub(crate) fn thread_cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel fills `time`; the clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Raises the limit of open files as far as allowed: a thousand connections need it.
pub(crate) fn raise_file_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel fills and reads `limit`; when it refuses, connecting says so later.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
    }
}

/// # Safety
/// `fd` is a descriptor that nobody else owns, or negative.
unsafe fn owned(fd: i32) -> io::Result<OwnedFd> {
    check(fd)?;
    // SAFETY: not negative, and ours by this function's contract.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn check(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
