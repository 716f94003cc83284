//! `peregrine top`: a cluster in a terminal. `feed` gets overviews, `state` decides what is looked at, `panels` makes
//! tables of it, `draw` puts them on the screen, `plain` on paper.
//!
//! Here is the shell: a terminal, its keys and the signals of the process.

mod demo;
mod draw;
mod feed;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod panels;
mod plain;
mod state;
mod table;
mod words;

use std::ffi::OsStr;
use std::io::{self, IsTerminal as _, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, TryRecvError};
use std::thread;
use std::time::Duration;

use peregrine_runtime::Clock;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::signal::unix::{SignalKind, signal};

pub(crate) use demo::Demo;
use draw::{Palette, draw};
pub(crate) use feed::Feed;
use feed::Running;
use state::{Effect, Press, State};

use crate::client::AskError;

/// The screen is drawn anew at least so often, and signals are seen this late at most.
const TURN: Duration = Duration::from_millis(100);
/// Keys that wait for their turn; more wait in the terminal.
const EVENTS_MAX: usize = 256;

/// The terminal cannot be used; whoever sits before it acts.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TopError {
    /// The output is a file or a pipe.
    #[error("this is no terminal: `--once` prints one view")]
    NoTerminal,
    /// `TERM` is not set, or says `dumb`.
    #[error("this terminal does nothing but print, as TERM says: `--once` prints one view")]
    Dumb,
    /// The terminal failed.
    #[error("terminal: {0}")]
    Terminal(#[from] io::Error),
}

/// Looks once, and prints what was seen.
///
/// # Errors
/// When nothing is to be had, or `out` takes no more.
pub(crate) fn once(
    feed: &mut Feed,
    node: Option<&str>,
    as_json: bool,
    out: &mut impl Write,
) -> Result<Result<(), io::Error>, AskError> {
    let seen = feed.next(node)?;
    Ok(if as_json { writeln!(out, "{}", plain::json(&seen)) } else { plain::write(out, &seen) })
}

/// Shows the feed until somebody has seen enough.
///
/// # Errors
/// When this is no terminal, or it fails.
pub(crate) fn run(feed: Feed, node: Option<String>, clock: &dyn Clock) -> Result<(), TopError> {
    if !(io::stdout().is_terminal() && io::stdin().is_terminal()) {
        return Err(TopError::NoTerminal);
    }
    if !can_draw(std::env::var_os("TERM").as_deref()) {
        return Err(TopError::Dumb);
    }
    let has_colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let told_to_stop = signals()?;
    let running = Running::start(feed, node.clone())?;
    let mut screen = Screen::open()?;
    let events = events()?;
    let mut state = State::of(node);
    while !told_to_stop.load(Ordering::SeqCst) && !is_gone() {
        loop {
            match running.updates.try_recv() {
                Ok(update) => state.update(update, clock.now()),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return Err(io::Error::other("the feed ended").into()),
            }
        }
        let mut room = 0;
        screen.terminal.draw(|frame| {
            room = draw(frame, &state, Palette { has_colours, is_faint: false }, clock.now());
        })?;
        state.room = room;
        // All that was typed meanwhile is one turn, or a key that is held down would lag behind itself.
        let mut wait = TURN;
        loop {
            let event = match events.recv_timeout(wait) {
                Ok(event) => event?,
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(io::Error::other("its keys are not heard any more").into());
                }
            };
            wait = Duration::ZERO;
            let Event::Key(key) = event else { continue };
            let Some(press) = pressed(key) else { continue };
            match state.press(press) {
                Effect::Nothing => {}
                Effect::Quit => return Ok(()),
                Effect::Watch(node) => running.watch(node),
            }
        }
    }
    Ok(())
}

/// The terminal while it is ours. It is given back when this is dropped, and by a panic, wherever that happens.
struct Screen {
    terminal: DefaultTerminal,
}

impl Screen {
    fn open() -> io::Result<Self> {
        let terminal = ratatui::try_init().inspect_err(|_| drop(ratatui::try_restore()))?;
        Ok(Self { terminal })
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that went away takes nothing back.
        let _ = self.terminal.show_cursor();
        let _ = ratatui::try_restore();
    }
}

/// What is typed, and changes of the size. They are read in a thread of their own: from a terminal that goes away
/// crossterm reads on and on, whatever its timeout, and says nothing to anybody.
fn events() -> io::Result<Receiver<io::Result<Event>>> {
    let (to, events) = mpsc::sync_channel(EVENTS_MAX);
    let read = move || while to.send(event::read()).is_ok() {};
    thread::Builder::new().name("keys".to_owned()).spawn(read)?;
    Ok(events)
}

/// Whether the terminal of this name takes more than text.
fn can_draw(term: Option<&OsStr>) -> bool {
    term.is_some_and(|term| !term.is_empty() && term != "dumb")
}

/// Whether nobody sits before the terminal any more.
fn is_gone() -> bool {
    let mut stdin = libc::pollfd { fd: libc::STDIN_FILENO, events: 0, revents: 0 };
    // SAFETY: one place, which outlives the call; it waits for nothing.
    let count = unsafe { libc::poll(&mut stdin, 1, 0) };
    count > 0 && stdin.revents & (libc::POLLHUP | libc::POLLERR | libc::POLLNVAL) != 0
}

fn pressed(key: KeyEvent) -> Option<Press> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    let is_held = |modifier| key.modifiers.contains(modifier);
    Some(match key.code {
        KeyCode::Char('c') if is_held(KeyModifiers::CONTROL) => Press::Stop,
        KeyCode::Char(_) if is_held(KeyModifiers::CONTROL) || is_held(KeyModifiers::ALT) => return None,
        KeyCode::Char(one) => Press::Char(one),
        KeyCode::Tab => Press::Tab,
        KeyCode::BackTab => Press::BackTab,
        KeyCode::Enter => Press::Enter,
        KeyCode::Esc => Press::Escape,
        KeyCode::Backspace => Press::Backspace,
        KeyCode::Up => Press::Up,
        KeyCode::Down => Press::Down,
        KeyCode::PageUp => Press::PageUp,
        KeyCode::PageDown => Press::PageDown,
        KeyCode::Home => Press::Home,
        KeyCode::End => Press::End,
        _ => return None,
    })
}

/// Becomes true with the first signal that asks the process to stop: the terminal has to be given back first.
fn signals() -> io::Result<Arc<AtomicBool>> {
    let told = Arc::new(AtomicBool::new(false));
    let heard = Arc::clone(&told);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Listened to from here on, whenever the thread gets its turn.
    let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup(), SignalKind::quit()];
    let [mut term, mut int, mut hup, mut quit] = {
        let _inside = runtime.enter();
        let [term, int, hup, quit] = kinds.map(signal);
        [term?, int?, hup?, quit?]
    };
    let wait = move || {
        runtime.block_on(async {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
                _ = hup.recv() => {}
                _ = quit.recv() => {}
            }
        });
        heard.store(true, Ordering::SeqCst);
    };
    thread::Builder::new().name("signals".to_owned()).spawn(wait)?;
    Ok(told)
}
