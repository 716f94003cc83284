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
            match read(&message) {
                Some(message) => return Ok((from, message)),
                None => tracing::warn!(%from, "gossip that is none"),
            }
        }
    }
}

/// Reads a message that unpacks to no more than it may.
pub(crate) fn read(message: &[u8]) -> Option<ChitchatMessage> {
    if packed_blocks(message)? > PACKED_BLOCKS_MAX {
        return None;
    }
    ChitchatMessage::deserialize(&mut &*message).ok()
}

/// Blocks that a message may have, each of at most 64 KiB unpacked. chitchat's own writer closes a block at
/// 16 KiB; its reader takes as many as there are, and thirty bytes can unpack to a whole block.
const PACKED_BLOCKS_MAX: usize = 128;

/// Counts the blocks of a message without unpacking them: header, who is known in which state, then the blocks.
/// Nothing where the bytes end too early.
fn packed_blocks(message: &[u8]) -> Option<usize> {
    let mut rest = Skim(message);
    rest.skip(3)?; // magic number and version
    let kind = rest.byte()?;
    if kind == SYN || kind == SYN_ACK {
        for _ in 0..rest.length()? {
            let name_bytes = rest.length()?;
            rest.skip(name_bytes + 8)?; // and the generation
            let addr_bytes = if rest.byte()? == 4 { 4 } else { 16 };
            rest.skip(addr_bytes + 2 + 3 * 8)?; // port, heartbeat and two versions
        }
    }
    let mut blocks = 0;
    if kind == SYN_ACK || kind == ACK {
        while rest.byte()? != NO_MORE_BLOCKS {
            let block_bytes = rest.length()?;
            rest.skip(block_bytes)?;
            blocks += 1;
        }
    }
    Some(blocks)
}

const SYN: u8 = 0;
const SYN_ACK: u8 = 1;
const ACK: u8 = 2;
const NO_MORE_BLOCKS: u8 = 0;

struct Skim<'a>(&'a [u8]);

impl Skim<'_> {
    fn skip(&mut self, count: usize) -> Option<()> {
        self.0 = self.0.get(count..)?;
        Some(())
    }

    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    fn length(&mut self) -> Option<usize> {
        let (&bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u16::from_le_bytes(bytes).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_unpacks_to_too_much_is_none() {
        assert!(read(&ack_of_empty_blocks(PACKED_BLOCKS_MAX)).is_some());
        assert!(read(&ack_of_empty_blocks(PACKED_BLOCKS_MAX + 1)).is_none());
    }

    fn ack_of_empty_blocks(count: usize) -> Vec<u8> {
        let mut message = ChitchatMessage::BadCluster.serialize_to_vec();
        message[3] = ACK;
        for _ in 0..count {
            message.extend_from_slice(&[2, 0, 0]); // not compressed, no bytes
        }
        message.push(NO_MORE_BLOCKS);
        message
    }
}
