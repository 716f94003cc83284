//! A thread that asks for the overview every second, or makes one up.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::demo::Demo;
use super::state::Update;
use super::words::clean;
use crate::certificates::explained;
use crate::overview::Overview;

/// Between two asks.
const EVERY: Duration = Duration::from_secs(1);
/// Larger answers are no overviews.
const BYTES_MAX: u64 = 1 << 20;
/// Updates that wait to be drawn.
const WAITING_MAX: usize = 4;

/// Who is asked.
pub(crate) struct Source {
    url: String,
    authorization: Option<String>,
    agent: ureq::Agent,
}

/// No overview was had; whoever named the server or the key acts.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FeedError {
    /// Nobody answers there.
    #[error("{url}: {}", explained(source))]
    Unreachable {
        /// What was asked.
        url: String,
        /// Why.
        source: Box<ureq::Error>,
    },
    /// The node says no; its sentence says who acts.
    #[error("{url}: {why}")]
    Refused {
        /// What was asked.
        url: String,
        /// Its sentence.
        why: String,
    },
    /// It is no node of this product that answers.
    #[error("{url}: no overview: {source}")]
    NotOne {
        /// What was asked.
        url: String,
        /// Why.
        source: serde_json::Error,
    },
}

impl Source {
    pub(crate) fn new(url: &str, authorization: Option<String>, agent: ureq::Agent) -> Self {
        Self { url: url.trim_end_matches('/').to_owned(), authorization, agent }
    }

    /// Asks once. `node`: whose overview; `None`: that of the node that is asked.
    pub(crate) fn ask(&self, node: Option<&str>) -> Result<Overview, FeedError> {
        let url = format!("{}/v1/overview", self.url);
        let mut asked = self.agent.get(&url);
        if let Some(node) = node {
            asked = asked.query("node", node);
        }
        if let Some(authorization) = &self.authorization {
            asked = asked.header("authorization", authorization);
        }
        let unreachable = |source| FeedError::Unreachable { url: url.clone(), source: Box::new(source) };
        let mut answer = asked.call().map_err(unreachable)?;
        let text = answer.body_mut().with_config().limit(BYTES_MAX).read_to_string().map_err(unreachable)?;
        if !answer.status().is_success() {
            let body: Value = serde_json::from_str(&text).unwrap_or_default();
            let why = body["detail"].as_str().map_or_else(|| clean(&text), clean);
            return Err(FeedError::Refused { url, why: format!("{}: {why}", answer.status().as_u16()) });
        }
        serde_json::from_str(&text).map_err(|source| FeedError::NotOne { url, source })
    }
}

/// Where overviews come from.
pub(crate) enum Feed {
    Server(Source),
    Demo(Box<Demo>),
}

impl Feed {
    /// One more.
    pub(crate) fn next(&mut self, node: Option<&str>) -> Result<Overview, FeedError> {
        match self {
            Self::Server(source) => source.ask(node),
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
