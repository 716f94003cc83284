//! The thread that hands a kernel over from launch to launch, and launches it anew after it failed or was left alone.

use std::time::{Duration, Instant};

use super::launch::Launcher;
use super::{Shared, State};
use crate::ExecuteError;

/// How often a kernel that failed is launched again, and how long it rests before.
const RESTARTS_MAX: u32 = 3;
const REST: Duration = Duration::from_secs(1);

/// Hands over from launch to launch until the owner lets go.
pub(super) fn keep(shared: &Shared, mut launcher: Launcher, name: &str) {
    // Before the launcher, whose memory the line uses, whatever ends this.
    let _closing = Closing(shared);
    let mut restarts = 0;
    let mut due = Instant::now() + shared.lease;
    let mut asked = Asked { requests: 0, at: Instant::now() };
    loop {
        let state = shared.pause(due, &mut asked);
        due = Instant::now() + shared.lease;
        let kept = match state {
            State::Serves => renew(shared, &mut launcher),
            State::Silent | State::Deserted | State::Rests | State::Over | State::Stops => {
                end(shared, &mut launcher)
            }
        };
        let mut desk = shared.desk.lock();
        match (kept, desk.state) {
            // Whatever is to be done now is done in the next round.
            (Ok(()), _) if state == State::Serves => {}
            (_, State::Stops) => return,
            (Ok(()), State::Rests) => {
                tracing::debug!(plan = name, "a resident kernel rests");
                while desk.state == State::Rests {
                    shared.bell.wait(&mut desk);
                }
            }
            (Ok(()), again @ (State::Silent | State::Deserted))
                if again == State::Deserted || restarts < RESTARTS_MAX =>
            {
                if desk.state == State::Silent {
                    restarts += 1;
                    let rested = Instant::now() + REST * (restarts - 1);
                    while desk.state == State::Silent && Instant::now() < rested {
                        shared.bell.wait_until(&mut desk, rested);
                    }
                    if desk.state == State::Stops {
                        return;
                    }
                }
                desk.line.clear();
                launcher.forget();
                desk.life += 1;
                asked.at = Instant::now();
                match launcher.launch().and_then(|()| launcher.launch()) {
                    Ok(()) => {
                        tracing::info!(plan = name, restarts, "a resident kernel was launched again");
                        desk.state = State::Serves;
                        desk.is_followed = true;
                    }
                    Err(error) => {
                        tracing::error!(plan = name, %error, "a resident kernel was not launched again");
                        desk.state = State::Silent;
                        restarts = RESTARTS_MAX;
                    }
                }
            }
            (kept, _) => {
                let reason =
                    kept.err().map_or_else(|| "it failed too often".to_owned(), |error| error.to_string());
                tracing::error!(
                    plan = name,
                    reason,
                    "no resident kernel any more, the ordinary way from now on"
                );
                desk.state = State::Over;
                while desk.state != State::Stops {
                    shared.bell.wait(&mut desk);
                }
                drop(desk);
                // What is under way has its last chance to end before everything is let go.
                let _ = end(shared, &mut launcher);
                return;
            }
        }
    }
}

/// Once the keeper ends nobody asks any more.
struct Closing<'a>(&'a Shared);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.desk.lock().state = State::Stops;
    }
}

/// When the keeper last saw that there were new requests.
struct Asked {
    requests: u64,
    at: Instant,
}

impl Shared {
    /// Until a lease is over, or something else is to be done; then the launch that waits has taken over, or the kernel
    /// rests.
    fn pause(&self, due: Instant, asked: &mut Asked) -> State {
        let mut desk = self.desk.lock();
        loop {
            #[cfg(test)]
            while desk.is_neglected && desk.state != State::Stops {
                self.bell.wait(&mut desk);
            }
            if desk.state != State::Serves || !desk.is_followed || Instant::now() >= due {
                break;
            }
            self.bell.wait_until(&mut desk, due);
        }
        let requests = desk.counts.requests;
        if requests != asked.requests {
            *asked = Asked { requests, at: Instant::now() };
        }
        if desk.state == State::Serves && self.rest_after.is_some_and(|after| asked.at.elapsed() >= after) {
            desk.state = State::Rests;
        }
        if desk.state == State::Serves && desk.is_followed {
            desk.hand_over();
        }
        desk.state
    }
}

/// Waits for the launch that was told to stop and puts another behind the one that runs now.
fn renew(shared: &Shared, launcher: &mut Launcher) -> Result<(), ExecuteError> {
    if launcher.under_way() == 2 {
        wait(shared, launcher)?;
    }
    // The launch that is to run now has left, as it waited for its start for too long: nobody answers.
    if launcher.wait(Duration::ZERO)? {
        let mut desk = shared.desk.lock();
        if desk.state == State::Serves {
            desk.state = State::Deserted;
        }
    } else {
        shared.desk.lock().line.prepare(launcher.next());
        launcher.launch()?;
        shared.desk.lock().is_followed = true;
    }
    shared.bell.notify_all();
    Ok(())
}

/// Stops all launches.
fn end(shared: &Shared, launcher: &mut Launcher) -> Result<(), ExecuteError> {
    shared.desk.lock().line.stop(launcher.under_way());
    while launcher.under_way() > 0 {
        wait(shared, launcher)?;
    }
    Ok(())
}

fn wait(shared: &Shared, launcher: &mut Launcher) -> Result<(), ExecuteError> {
    if launcher.wait(shared.end_max)? {
        return Ok(());
    }
    Err(ExecuteError::Timeout { millis: u64::try_from(shared.end_max.as_millis()).unwrap_or(u64::MAX) })
}
