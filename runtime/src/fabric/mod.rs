//! What a cluster asks of a network: authenticated links of ordered lanes, and datagrams beside them.
//!
//! Two implementations pass one contract suite (`tests.rs`): `quic` between machines, `sim` inside a test.
//! Knows no frame, message or member.

mod quic;
mod sim;
mod tls;

#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

pub use self::quic::{BindError, QuicFabric, QuicOptions};
pub use self::sim::{SimFabric, SimNetwork, SimOptions, SimPath};
pub use self::tls::{CertificateNameError, Credentials, CredentialsError, SECRET_BYTES_MIN};
use crate::cluster::NodeId;

/// Ordered byte streams of one link. A slow one does not hold up the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Lane {
    /// Hello, gossip that does not fit a datagram, goodbyes.
    Control = 0,
    /// Small messages that are waited for.
    Ask = 1,
    /// Messages that nobody waits for.
    Stream = 2,
    /// Large messages.
    Bulk = 3,
}

impl Lane {
    /// Every lane, in the order of [`Link::lanes`].
    pub const ALL: [Self; 4] = [Self::Control, Self::Ask, Self::Stream, Self::Bulk];
}

/// One end of a lane: what comes from the peer.
pub type LaneReader = Box<dyn AsyncRead + Send + Unpin>;
/// One end of a lane: what goes to the peer.
pub type LaneWriter = Box<dyn LaneWrite + Send + Unpin>;

/// Writes to a lane, where it can without a copy.
pub trait LaneWrite: AsyncWrite {
    /// Takes bytes off the front, at least one; waits for room.
    fn poll_hand_over(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &mut Bytes) -> Poll<io::Result<()>>;
}

impl<W: LaneWrite + ?Sized + Unpin> LaneWrite for Box<W> {
    fn poll_hand_over(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &mut Bytes,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut **self).poll_hand_over(cx, bytes)
    }
}

/// An open, authenticated connection to one peer. All its parts fail together.
pub struct Link {
    /// Where the peer's packets come from.
    pub remote_addr: SocketAddr,
    /// The name in the peer's credentials. What the peer says of itself must agree.
    pub peer: NodeId,
    /// By [`Lane::ALL`].
    pub lanes: [(LaneReader, LaneWriter); 4],
    /// The rest of it, to be shared.
    pub wire: Arc<dyn Wire>,
}

/// The parts of a link that are not lanes.
#[async_trait]
pub trait Wire: Send + Sync + 'static {
    /// Sends and forgets: may be lost, reordered, doubled by nobody. Never waits.
    ///
    /// # Errors
    /// Too large, or the link is closed.
    fn send_datagram(&self, datagram: Bytes) -> Result<(), DatagramError>;

    /// The next datagram; `None` once the link is closed. Asked by one task at a time.
    async fn recv_datagram(&self) -> Option<Bytes>;

    /// Longest datagram that can be sent now, in bytes.
    fn datagram_bytes_max(&self) -> usize;

    /// Smoothed round trip as the network measures it.
    fn rtt(&self) -> Duration;

    /// Closes the link on both ends; every lane ends. `reason` may reach the peer.
    fn close(&self, reason: &str);

    /// Resolves once the link is closed, with why.
    async fn closed(&self) -> String;
}

/// A datagram was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DatagramError {
    /// Use a lane.
    #[error("the datagram is larger than {max} bytes")]
    TooLarge {
        /// What fits.
        max: usize,
    },
    /// The link is gone.
    #[error("the link is closed")]
    Closed,
}

/// A link did not come about.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody answered in time. Try again, or elsewhere.
    #[error("{addr}: no answer within {within:?}")]
    Timeout {
        /// Who was called.
        addr: SocketAddr,
        /// How long.
        within: Duration,
    },
    /// The two do not accept each other's credentials. The operator acts.
    #[error("{addr}: credentials refused: {reason}; {agreement}")]
    Refused {
        /// Who was called.
        addr: SocketAddr,
        /// What was said.
        reason: String,
        /// What must hold for the two to accept each other.
        agreement: &'static str,
    },
    /// The network says that it cannot be.
    #[error("{addr}: {reason}")]
    Unreachable {
        /// Who was called.
        addr: SocketAddr,
        /// What was said.
        reason: String,
    },
}

/// A place in the network.
#[async_trait]
pub trait Fabric: Send + Sync + 'static {
    /// Where it listens.
    fn local_addr(&self) -> SocketAddr;

    /// Opens a link. The handshake, credentials included, has a time limit of its own.
    ///
    /// # Errors
    /// See [`ConnectError`].
    async fn connect(&self, to: SocketAddr) -> Result<Link, ConnectError>;

    /// The next link that a peer has opened, its credentials checked; `None` once the fabric is closed.
    /// A slow or hostile caller never delays the next.
    async fn accept(&self) -> Option<Link>;

    /// Closes every link and listens no more.
    fn close(&self);
}
