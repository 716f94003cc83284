//! What comes as gossip, and what gossip says of members.

use std::net::SocketAddr;

use async_trait::async_trait;
use chitchat::transport::{Socket, Transport};
use chitchat::{ChitchatId, ChitchatMessage, spawn_chitchat};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::peer::CLUSTER;
use super::run;
use crate::cluster::membership::{Detector, Record, chitchat_config, read_gossip, record_member};

/// Gossip is refused, or taken without harm by the membership; a record is none, or writes itself back. Messages
/// lie one behind the other, each with its length before it.
pub fn gossip(input: &[u8]) -> bool {
    record(input);
    let mut messages = Vec::new();
    let mut rest = input;
    while let Some((&[low, high], behind)) = rest.split_first_chunk::<2>() {
        let (message, behind) = behind.split_at(behind.len().min(u16::from_le_bytes([low, high]).into()));
        rest = behind;
        // In the order in which it is taken: the first is the next.
        messages.insert(0, message);
    }
    let messages: Vec<ChitchatMessage> = messages.into_iter().filter_map(read_gossip).collect();
    if messages.is_empty() {
        return false;
    }
    run(spread(messages));
    true
}

fn record(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Some(record) = Record::from_text(text) {
        assert_eq!(record.to_text(), text);
    }
    let addr = SocketAddr::from(([10, 0, 0, 2], 1));
    if let Some(member) = record_member(("peer", 1, addr), |_key| Some(text)) {
        assert!((0.0..=1.0).contains(&member.load), "{}", member.load);
    }
}

/// Hands messages to a node, as if from one peer.
async fn spread(messages: Vec<ChitchatMessage>) {
    let me = SocketAddr::from(([10, 0, 0, 1], 1));
    let id = ChitchatId::new("me", 1, me);
    let config = chitchat_config(id, CLUSTER.to_owned(), &Detector::default());
    let (over, all_taken) = oneshot::channel();
    let transport = Given(Mutex::new(Some(GivenSocket { messages, over: Some(over) })));
    let node = spawn_chitchat(config, Vec::new(), &transport).await.expect("the socket is there");
    all_taken.await.expect("the membership has survived it");
    node.with_chitchat(|chitchat| {
        for (id, state) in chitchat.node_states() {
            let life = (&*id.node_id, id.generation_id, id.gossip_advertise_addr);
            let _member_or_none = record_member(life, |key| state.get(key));
        }
    })
    .await;
    node.abort();
}

struct Given(Mutex<Option<GivenSocket>>);

struct GivenSocket {
    messages: Vec<ChitchatMessage>,
    over: Option<oneshot::Sender<()>>,
}

#[async_trait]
impl Transport for Given {
    async fn open(&self, _listen: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        let socket = self.0.lock().take().ok_or_else(|| anyhow::anyhow!("opened twice"))?;
        Ok(Box::new(socket))
    }
}

#[async_trait]
impl Socket for GivenSocket {
    async fn send(&mut self, _to: SocketAddr, _message: ChitchatMessage) -> anyhow::Result<()> {
        Ok(())
    }

    async fn recv(&mut self) -> anyhow::Result<(SocketAddr, ChitchatMessage)> {
        match self.messages.pop() {
            Some(message) => Ok((SocketAddr::from(([10, 0, 0, 2], 1)), message)),
            // Asked for more, the node is done with the last.
            None => {
                if let Some(over) = self.over.take() {
                    let _ = over.send(());
                }
                std::future::pending().await
            }
        }
    }
}
