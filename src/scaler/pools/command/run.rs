//! One run of a program: no shell, no input, a deadline, and an end to what it may print.
//!
//! When the program has ended, or has to, everything that it started in its process group ends with it. What is meant
//! to go on begins a session of its own (`setsid`).

use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsRawFd, FromRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// On stdout; more is a mistake.
const STDOUT_BYTES_MAX: usize = 4 << 20;
/// On stderr; what follows is not kept.
const STDERR_BYTES_MAX: usize = 16 << 10;
/// For a process that was killed to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(2);

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Output {
    /// `None`: a signal has ended it.
    pub(super) code: Option<i32>,
    pub(super) stdout: Vec<u8>,
    /// The beginning of it.
    pub(super) stderr: Vec<u8>,
}

/// Why nothing came of it.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    /// It was never begun. The operator acts.
    #[error("cannot be run: {0}")]
    NotBegun(io::Error),
    /// It was killed; how far it had come is not known.
    #[error("did not end within {0:?}")]
    TooSlow(Duration),
    /// It was killed; how far it had come is not known.
    #[error("prints more than {STDOUT_BYTES_MAX} bytes")]
    TooMuch,
    /// It was killed; how far it had come is not known.
    #[error("cannot be followed: {0}")]
    Lost(io::Error),
}

/// Runs `argv`, which is not empty, with more variables.
pub(super) fn run(
    argv: &[String],
    environment: &[(&str, String)],
    within: Duration,
) -> Result<Output, RunError> {
    let (program, arguments) =
        argv.split_first().ok_or_else(|| RunError::NotBegun(ErrorKind::InvalidInput.into()))?;
    let mut command = Command::new(program);
    command.args(arguments).envs(environment.iter().map(|(key, value)| (key, value)));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut running = Running(command.spawn().map_err(RunError::NotBegun)?);
    running.follow(within)
}

/// A program that has begun. Dropped, it is ended.
struct Running(Child);

/// One of its two outputs.
struct Pipe<R> {
    /// `None`: it has ended.
    from: Option<R>,
    bytes: Vec<u8>,
    bytes_max: usize,
    is_over: bool,
}

impl Running {
    fn follow(&mut self, within: Duration) -> Result<Output, RunError> {
        let until = Instant::now() + within;
        let ended = handle(&self.0).map_err(RunError::Lost)?;
        let mut stdout = Pipe::new(self.0.stdout.take(), STDOUT_BYTES_MAX).map_err(RunError::Lost)?;
        let mut stderr = Pipe::new(self.0.stderr.take(), STDERR_BYTES_MAX).map_err(RunError::Lost)?;
        loop {
            let mut waits = [poll_of(Some(ended.as_raw_fd())), stdout.poll(), stderr.poll()];
            wait(&mut waits, until).map_err(RunError::Lost)?;
            let has_ended = waits[0].revents != 0;
            if has_ended {
                // First, or one that it has left behind could go on printing for ever.
                self.kill();
            }
            stdout.drain().map_err(RunError::Lost)?;
            stderr.drain().map_err(RunError::Lost)?;
            if stdout.is_over {
                return Err(RunError::TooMuch);
            }
            if has_ended {
                let status = self.0.wait().map_err(RunError::Lost)?;
                return Ok(Output { code: status.code(), stdout: stdout.bytes, stderr: stderr.bytes });
            }
            if Instant::now() >= until {
                return Err(RunError::TooSlow(within));
            }
        }
    }

    /// Ends all of its group. It has not been waited for, so that the number is still its own.
    fn kill(&self) {
        // SAFETY: no memory is involved.
        unsafe { libc::kill(-self.0.id().cast_signed(), libc::SIGKILL) };
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !matches!(self.0.try_wait(), Ok(None)) {
            return;
        }
        self.kill();
        let until = Instant::now() + GONE_WITHIN;
        if let Ok(ended) = handle(&self.0) {
            while Instant::now() < until && !matches!(self.0.try_wait(), Ok(Some(_))) {
                // What fails here is tried again, until the time is over.
                let _ = wait(&mut [poll_of(Some(ended.as_raw_fd()))], until);
            }
        }
    }
}

impl<R: Read + AsRawFd> Pipe<R> {
    fn new(from: Option<R>, bytes_max: usize) -> io::Result<Self> {
        if let Some(from) = &from {
            // SAFETY: no memory is involved, and the descriptor is open.
            let is_set = unsafe { libc::fcntl(from.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) } == 0;
            is_set.then_some(()).ok_or_else(io::Error::last_os_error)?;
        }
        Ok(Self { from, bytes: Vec::new(), bytes_max, is_over: false })
    }

    fn poll(&self) -> libc::pollfd {
        poll_of(self.from.as_ref().map(AsRawFd::as_raw_fd))
    }

    /// Takes what is there.
    fn drain(&mut self) -> io::Result<()> {
        let mut block = [0; 16 << 10];
        // What comes while this is read comes in the next turn, after a look at the clock.
        for _ in 0..64 {
            let Some(from) = &mut self.from else { return Ok(()) };
            match from.read(&mut block) {
                Ok(0) => self.from = None,
                Ok(len) => {
                    let kept = len.min(self.bytes_max - self.bytes.len());
                    self.bytes.extend_from_slice(&block[..kept]);
                    self.is_over |= kept < len;
                }
                Err(none) if none.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(again) if again.kind() == ErrorKind::Interrupted => {}
                Err(failed) => return Err(failed),
            }
        }
        Ok(())
    }
}

/// A descriptor that can be read from once the child has ended.
fn handle(child: &Child) -> io::Result<OwnedFd> {
    // SAFETY: no memory is involved; the descriptor, if there is one, is new and nobody else's. The child has not been
    // waited for, so that the number is still its own.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, child.id().cast_signed(), 0);
        match i32::try_from(fd) {
            Ok(fd @ 0..) => Ok(OwnedFd::from_raw_fd(fd)),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// One that is negative is passed over.
fn poll_of(fd: Option<i32>) -> libc::pollfd {
    libc::pollfd { fd: fd.unwrap_or(-1), events: libc::POLLIN, revents: 0 }
}

fn wait(polls: &mut [libc::pollfd], until: Instant) -> io::Result<()> {
    let left = until.saturating_duration_since(Instant::now()).as_millis().saturating_add(1);
    let left = i32::try_from(left).unwrap_or(i32::MAX);
    // SAFETY: the slice is as long as said, and nobody else has it.
    let ready = unsafe { libc::poll(polls.as_mut_ptr(), polls.len() as libc::nfds_t, left) };
    match ready {
        0.. => Ok(()),
        _ => match io::Error::last_os_error() {
            again if again.kind() == ErrorKind::Interrupted => Ok(()),
            failed => Err(failed),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WITHIN: Duration = Duration::from_secs(20);

    fn sh(script: &str, within: Duration) -> Result<Output, RunError> {
        run(&["sh".to_owned(), "-c".to_owned(), script.to_owned()], &[("WORD", "a b".to_owned())], within)
    }

    #[test]
    fn what_it_says_and_how_it_ends_is_known() {
        let output = sh("echo \"$WORD\"; echo no >&2; read line; exit 75", WITHIN).unwrap();
        let want = Output { code: Some(75), stdout: b"a b\n".to_vec(), stderr: b"no\n".to_vec() };
        assert_eq!(output, want);
        assert_eq!(sh("kill -9 $$", WITHIN).unwrap().code, None);
    }

    #[test]
    fn one_that_does_not_end_is_ended_with_all_that_it_has_started() {
        let dir = tempfile::TempDir::new().unwrap();
        let file = dir.path().join("pids");
        let script = format!("trap '' TERM; sleep 600 & echo $! > {}; wait", file.display());
        let before = Instant::now();
        let failed = sh(&script, Duration::from_millis(300)).unwrap_err();
        assert!(matches!(failed, RunError::TooSlow(_)), "{failed}");
        assert!(before.elapsed() < WITHIN);
        until_gone(&std::fs::read_to_string(file).unwrap());
    }

    #[test]
    fn what_it_leaves_behind_ends_with_it() {
        let output = sh("sleep 600 & echo $!", WITHIN).unwrap();
        assert_eq!(output.code, Some(0));
        until_gone(std::str::from_utf8(&output.stdout).unwrap());
    }

    #[test]
    fn one_that_begins_a_session_goes_on_and_is_not_waited_for() {
        // It keeps the pipe open, too.
        let output = sh("setsid sh -c 'echo $$; exec sleep 600' & read line; sleep 0.2", WITHIN).unwrap();
        let pid: i32 = std::str::from_utf8(&output.stdout).unwrap().trim().parse().unwrap();
        // SAFETY: no memory is involved; the process is this test's.
        assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0, "it lives");
    }

    #[test]
    fn there_is_an_end_to_what_it_may_print() {
        assert!(matches!(sh("exec cat /dev/zero", WITHIN), Err(RunError::TooMuch)));
        let output = sh("head -c 300000 /dev/zero >&2; echo done", WITHIN).unwrap();
        assert_eq!((output.stdout.as_slice(), output.stderr.len()), (&b"done\n"[..], STDERR_BYTES_MAX));
        let output = sh("head -c 4194304 /dev/zero", WITHIN).unwrap();
        assert_eq!(output.stdout.len(), STDOUT_BYTES_MAX);
    }

    #[test]
    fn what_cannot_be_run_was_never_begun() {
        for argv in [&["/nowhere/cloud".to_owned()][..], &["/".to_owned()], &["sh\0".to_owned()], &[]] {
            assert!(matches!(run(argv, &[], WITHIN), Err(RunError::NotBegun(_))), "{argv:?}");
        }
    }

    /// Ended, though perhaps nobody has waited for it yet.
    #[track_caller]
    fn until_gone(pid: &str) {
        let until = Instant::now() + WITHIN;
        let stat = format!("/proc/{}/stat", pid.trim());
        while std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
            assert!(Instant::now() < until, "{pid} goes on");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}
