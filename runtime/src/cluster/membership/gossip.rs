//! chitchat's messages over our links: its own UDP knows no authentication.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use chitchat::transport::{Socket, Transport};
use chitchat::{ChitchatMessage, Deserializable, Serializable};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::cluster::net::{GossipMail, Net};

pub(crate) struct GossipTransport {
    pub(crate) net: Arc<Net>,
    /// Taken by the one socket there is.
    pub(crate) incoming: Mutex<Option<mpsc::Receiver<GossipMail>>>,
}

struct GossipSocket {
    net: Arc<Net>,
    incoming: mpsc::Receiver<GossipMail>,
}

#[async_trait]
impl Transport for GossipTransport {
    async fn open(&self, _listen: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        let incoming = self.incoming.lock().take();
        let incoming = incoming.ok_or_else(|| anyhow::anyhow!("the gossip socket is open already"))?;
        Ok(Box::new(GossipSocket { net: Arc::clone(&self.net), incoming }))
    }
}

#[async_trait]
impl Socket for GossipSocket {
    async fn send(&mut self, to: SocketAddr, message: ChitchatMessage) -> anyhow::Result<()> {
        self.net.send_gossip(to, Bytes::from(message.serialize_to_vec()));
        Ok(())
    }

    async fn recv(&mut self) -> anyhow::Result<(SocketAddr, ChitchatMessage)> {
        loop {
            let Some((from, message)) = self.incoming.recv().await else {
                anyhow::bail!("the node stops");
            };
            match ChitchatMessage::deserialize(&mut message.as_ref()) {
                Ok(message) => return Ok((from, message)),
                Err(error) => tracing::warn!(%from, %error, "gossip that is none"),
            }
        }
    }
}
