//! A process of which only its record is known: whether it still lives, and how to reach it and no other.
//!
//! A process id is given again; together with the time at which the process began, and the boot in which it did, it is
//! not. Signals go through a handle of the kernel's that was opened before that was compared.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

/// Bytes of a line of `/proc/…/stat` that are looked at.
pub(super) const STAT_BYTES: usize = 1024;
/// Signals the group of which the process is the first; since Linux 6.9.
const PROCESS_GROUP: libc::c_uint = 1 << 2;

/// What distinguishes a process from all others of this boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::scaler) struct Process {
    pid: i32,
    /// In ticks of the kernel since it booted.
    began: u64,
}

/// Which signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// Asks the process to end.
    Terminate,
    /// Ends it, and all that it has started in its group.
    Kill,
}

impl Process {
    /// From a line of `/proc/…/stat`. `None`: it is none, or is of a process that nobody may end.
    pub(in crate::scaler) fn from_stat(line: &[u8]) -> Option<Self> {
        let (process, _) = parse(line)?;
        let is_other = process.pid > 1 && process.pid.unsigned_abs() != std::process::id();
        is_other.then_some(process)
    }

    /// The number by which it is known.
    pub(in crate::scaler) fn pid(self) -> i32 {
        self.pid
    }

    /// Does it run? One that has ended and waits for its parent does not.
    pub(super) fn is_alive(self) -> bool {
        let Ok(line) = fs::read(format!("/proc/{}/stat", self.pid)) else { return false };
        parse(&line).is_some_and(|(found, state)| found == self && !matches!(state, b'Z' | b'X'))
    }

    /// Whether it was there to be signalled.
    pub(super) fn signal(self, signal: Signal) -> io::Result<bool> {
        let handle = match open(self.pid) {
            Ok(handle) => handle,
            Err(gone) if is_gone(&gone) => return Ok(false),
            Err(failed) => return Err(failed),
        };
        // The handle is of whoever has that id now; if that is still the one that was meant, it stays so.
        if !self.is_alive() {
            return Ok(false);
        }
        let sent = match signal {
            Signal::Terminate => send(&handle, libc::SIGTERM, 0),
            Signal::Kill => match send(&handle, libc::SIGKILL, PROCESS_GROUP) {
                // An older kernel, or it is not the first of its group.
                Err(other) if matches!(other.raw_os_error(), Some(libc::EINVAL | libc::ESRCH)) => {
                    send(&handle, libc::SIGKILL, 0)
                }
                sent => sent,
            },
        };
        match sent {
            Ok(()) => Ok(true),
            Err(gone) if is_gone(&gone) => Ok(false),
            Err(failed) => Err(failed),
        }
    }
}

fn is_gone(failed: &io::Error) -> bool {
    failed.raw_os_error() == Some(libc::ESRCH)
}

/// What this boot of the machine is called.
pub(super) fn boot() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// Copies this process's own line of `/proc/…/stat` to `to`. Allocates nothing: made for the moment between fork and
/// exec, so that what is known of a child is on disk before its program runs.
pub(super) fn note_self(to: libc::c_int) -> io::Result<()> {
    let mut line = [0_u8; STAT_BYTES];
    // SAFETY: the path ends with a nul, the buffer is as long as said, and the descriptor is closed once.
    unsafe {
        let from = libc::open(c"/proc/self/stat".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        if from < 0 {
            return Err(io::Error::last_os_error());
        }
        let read = libc::read(from, line.as_mut_ptr().cast(), line.len());
        let failed = io::Error::last_os_error();
        libc::close(from);
        let Ok(len @ 1..) = usize::try_from(read) else { return Err(failed) };
        let written = libc::write(to, line.as_ptr().cast(), len);
        if usize::try_from(written) != Ok(len) {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// The process and its state. The name in the middle may hold anything, brackets too.
fn parse(line: &[u8]) -> Option<(Process, u8)> {
    let line = &line[..line.len().min(STAT_BYTES)];
    let open = line.iter().position(|&byte| byte == b'(')?;
    let close = line.iter().rposition(|&byte| byte == b')')?;
    let pid = std::str::from_utf8(line.get(..open)?).ok()?.trim().parse().ok()?;
    let mut fields = std::str::from_utf8(line.get(close + 1..)?).ok()?.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    // The state is the third field, the beginning the twenty-second.
    let began = fields.nth(18)?.parse().ok()?;
    Some((Process { pid, began }, state))
}

fn open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: no memory is involved; the descriptor, if there is one, is new and nobody else's.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        match i32::try_from(fd) {
            Ok(fd @ 0..) => Ok(OwnedFd::from_raw_fd(fd)),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

fn send(handle: &OwnedFd, signal: libc::c_int, flags: libc::c_uint) -> io::Result<()> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: without further information about the signal, no memory is involved.
    let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, handle.as_raw_fd(), signal, none, flags) };
    if sent == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    fn sleeper() -> (Child, Process) {
        let child = Command::new("sleep").arg("600").spawn().unwrap();
        let line = fs::read(format!("/proc/{}/stat", child.id())).unwrap();
        (child, Process::from_stat(&line).unwrap())
    }

    #[test]
    fn a_process_is_known_by_its_number_and_its_beginning() {
        let (mut child, process) = sleeper();
        assert!(process.is_alive());
        let other = Process { began: process.began + 1, ..process };
        assert!(!other.is_alive(), "another that had this number");
        assert!(!other.signal(Signal::Kill).unwrap(), "is not signalled");
        assert_eq!(child.try_wait().unwrap(), None);
        assert!(process.signal(Signal::Terminate).unwrap());
        child.wait().unwrap();
        assert!(!process.is_alive());
        assert!(!process.signal(Signal::Kill).unwrap());
    }

    #[test]
    fn one_that_has_ended_and_was_not_waited_for_is_not_alive() {
        let (mut child, process) = sleeper();
        assert!(process.signal(Signal::Kill).unwrap());
        // It is a zombie before it can be waited for.
        while process.is_alive() {
            std::thread::yield_now();
        }
        assert!(!child.wait().unwrap().success());
    }

    #[test]
    fn names_may_hold_anything() {
        let line = b"77 (a) S 1 (b\xff) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 99";
        assert_eq!(parse(line), Some((Process { pid: 77, began: 4242 }, b'S')));
    }

    #[test]
    fn what_is_no_line_is_no_process() {
        for line in
            ["", "77", "77 (", "77 )(", "77 (a) S 1 2", "x (a) S 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0"]
        {
            assert_eq!(Process::from_stat(line.as_bytes()), None, "{line}");
        }
        let whose = |pid: &str| {
            format!("{pid} (init) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 99").into_bytes()
        };
        assert!(Process::from_stat(&whose("77")).is_some());
        for pid in ["1", "0", "-77", &std::process::id().to_string()] {
            assert_eq!(Process::from_stat(&whose(pid)), None, "{pid} is nobody's machine");
        }
    }
}
