//! Overviews of other nodes: one asks another over the cluster's links, and is answered from the board there.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use peregrine_runtime::{
    AskError, ChildSpec, Children, Clock, Cluster, Deadline, ExportError, Failure, Inbox, Mailbox, NodeId,
    StartError, Strategy, Tree, Worker, remote_message,
};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::watch;

use super::board::Board;
use super::{EVERY, WITHIN};
use crate::gateway::Shared;
use crate::gateway::error::Refusal;
use crate::gateway::stream::text_frame;

/// The service by which nodes ask each other.
const SERVICE: &str = "overview";
/// Its actor.
const ACTOR: &str = "overview-asks";
/// Questions of other nodes that wait; each is answered from memory.
const QUEUE: usize = 64;

/// How are you?
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct AskOverview {
    /// And how were you of late?
    history: bool,
}

/// The answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Overviewed {
    /// As JSON, of at most [`BYTES_MAX`](crate::overview::BYTES_MAX).
    Text(String),
    /// It has just started.
    NotYet,
}

impl actix::Message for AskOverview {
    type Result = Overviewed;
}

remote_message!(AskOverview, "overview.ask", version 1, up to 262_144 bytes, lane Ask);

/// Answers other nodes.
pub(crate) struct Desk(Arc<Board>);

impl Worker<AskOverview> for Desk {
    fn run(&mut self, inbox: &mut Inbox<AskOverview>) -> Result<(), Failure> {
        while let Some(envelope) = inbox.recv() {
            let shown = self.0.now();
            let text = shown.map(|shown| match envelope.message.history {
                true => shown.whole(),
                false => shown.brief(),
            });
            let text = text.and_then(|text| String::from_utf8(text.into()).ok());
            envelope.slot.send(text.map_or(Overviewed::NotYet, Overviewed::Text));
        }
        Ok(())
    }
}

/// Other nodes cannot be answered; the operator acts.
#[derive(Debug, thiserror::Error)]
pub enum OverviewError {
    /// The actor has no name to be found by.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// The actor did not start.
    #[error("actors: {0}")]
    Actors(#[from] StartError),
}

/// Answers other nodes from now on.
///
/// # Errors
/// See [`OverviewError`].
pub(crate) fn open(
    cluster: &Cluster,
    board: &Arc<Board>,
    clock: &Arc<dyn Clock>,
) -> Result<Tree, OverviewError> {
    let asks = Mailbox::<AskOverview>::new(QUEUE, Arc::clone(clock));
    cluster.export(SERVICE, &asks.address())?;
    let board = Arc::clone(board);
    let mut children = Children::new(Strategy::OneForOne);
    children.worker(ChildSpec::new(ACTOR), asks, move || Ok(Desk(Arc::clone(&board))));
    Ok(Tree::start(children, Arc::clone(clock), rand::random())?)
}

/// Asks another node once.
pub(super) async fn ask(shared: &Shared, node: &str, history: bool) -> Result<Bytes, Refusal> {
    let silent =
        |why: &dyn std::fmt::Display| Refusal::NodeSilent { node: node.to_owned(), why: why.to_string() };
    let unknown = || Refusal::NoSuchNode(node.chars().take(NAME_CHARS_MAX).collect());
    let cluster = shared.cluster.as_ref().ok_or_else(unknown)?;
    let id = NodeId::new(node).map_err(|_| unknown())?;
    let address = cluster.address::<AskOverview>(&id, SERVICE).ok_or_else(unknown)?;
    let deadline = Deadline::after(shared.clock.now(), WITHIN);
    match address.ask(AskOverview { history }, deadline).await {
        // What is not JSON is of no use to anybody.
        Ok(Overviewed::Text(text)) => match serde_json::from_str::<IgnoredAny>(&text) {
            Ok(_) => Ok(text.into()),
            Err(_) => Err(silent(&"it answers no JSON")),
        },
        Ok(Overviewed::NotYet) => Err(silent(&"it has just started")),
        Err(AskError::Deadline) => Err(Refusal::NodeLate(node.to_owned())),
        Err(error) => Err(silent(&error)),
    }
}

/// Of a name that is repeated to whoever sent it.
const NAME_CHARS_MAX: usize = 64;

/// As a frame: the overview, or why there is none.
pub(super) async fn frame(shared: &Shared, node: &str, history: bool) -> Bytes {
    match ask(shared, node, history).await {
        Ok(text) => text_frame(&text),
        Err(refusal) => text_frame(json!({ "error": refusal.to_string() }).to_string().as_bytes()),
    }
}

/// The frames of another node, without history; asked for once a second however many watch.
pub(super) fn follow(shared: &Arc<Shared>, node: &str) -> watch::Receiver<Option<Bytes>> {
    let mut relays = shared.overviews.relays.lock();
    if let Some(relay) = relays.get(node).and_then(Weak::upgrade) {
        return relay.subscribe();
    }
    let (frames, following) = watch::channel(None);
    let frames = Arc::new(frames);
    relays.insert(node.to_owned(), Arc::downgrade(&frames));
    tokio::spawn(relay(Arc::clone(shared), node.to_owned(), frames));
    following
}

/// Ends when nobody watches any more.
async fn relay(shared: Arc<Shared>, node: String, frames: Arc<watch::Sender<Option<Bytes>>>) {
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    every.tick().await; // whoever watches has just asked for the first
    loop {
        every.tick().await;
        {
            // Under the lock, or somebody could begin to watch what ends.
            let mut relays = shared.overviews.relays.lock();
            if frames.receiver_count() == 0 {
                relays.remove(&node);
                return;
            }
        }
        frames.send_replace(Some(frame(&shared, &node, false).await));
    }
}
