//! A thread that asks for the overview every second, or makes one up.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use super::demo::Demo;
use super::state::Update;
use crate::client::{AskError, Node};
use crate::overview::Overview;

/// Between two asks.
const EVERY: Duration = Duration::from_secs(1);
/// Updates that wait to be drawn.
const WAITING_MAX: usize = 4;

/// Where overviews come from.
pub(crate) enum Feed {
    Server(Node),
    Demo(Box<Demo>),
}

impl Feed {
    /// One more. `node`: whose; `None`: that of the node that is asked.
    pub(crate) fn next(&mut self, node: Option<&str>) -> Result<Overview, AskError> {
        match self {
            Self::Server(asked) => asked.get("/v1/overview", node.map(|node| ("node", node))),
            Self::Demo(demo) => {
                demo.step();
                Ok(demo.overview(node))
            }
        }
    }
}

/// A feed that runs by itself.
pub(super) struct Running {
    pub(super) updates: Receiver<Update>,
    watch: SyncSender<Option<String>>,
}

impl Running {
    /// Starts to ask; the thread ends when this is dropped.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub(super) fn start(mut feed: Feed, mut node: Option<String>) -> std::io::Result<Self> {
        let (updates_to, updates) = sync_channel(WAITING_MAX);
        let (watch, watched) = sync_channel::<Option<String>>(WAITING_MAX);
        let body = move || loop {
            let update = match feed.next(node.as_deref()) {
                Ok(overview) => Update::Seen(Box::new(overview)),
                Err(error) => Update::Lost(error.to_string()),
            };
            // Whoever draws is behind: the next one is newer anyway.
            if let Err(TrySendError::Disconnected(_)) = updates_to.try_send(update) {
                return;
            }
            match watched.recv_timeout(EVERY) {
                Ok(next) => node = next,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        };
        thread::Builder::new().name("feed".to_owned()).spawn(body)?;
        Ok(Self { updates, watch })
    }

    /// Asks for another node from now on.
    pub(super) fn watch(&self, node: Option<String>) {
        // Full: somebody leans on the key; the last word is repeated with the next press.
        let _ = self.watch.try_send(node);
    }
}
