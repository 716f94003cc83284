//! A QUIC connection as a link: its lanes are told apart, its ends are named.

use std::io;
use std::mem;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use quinn::{Connection, ConnectionError, RecvStream, SendDatagramError, SendStream, VarInt};
use rustls::pki_types::CertificateDer;
use tokio::task::AbortHandle;

use super::pulse;
use crate::cluster::NodeId;
use crate::fabric::tls::node_of;
use crate::fabric::{DatagramError, Lane, LaneReader, LaneWrite, LaneWriter, Link, Wire};

/// Longest reason that is passed on, either way, in bytes.
const REASON_BYTES_MAX: usize = 256;

/// Why a connection with good credentials did not become a link.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    /// It ended.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// A lane did not begin with its number.
    #[error("a lane does not begin as it must")]
    Lanes,
    /// Whoever checked the certificate let it pass without a name.
    #[error("the certificate names no node")]
    Nameless,
}

/// TLS alerts and refused certificates are QUIC errors in this range (RFC 9001).
const CRYPTO_ERRORS: std::ops::Range<u64> = 0x100..0x200;

impl LinkError {
    /// Did one end not accept what the other showed?
    pub(super) fn is_of_credentials(&self) -> bool {
        let crypto = |code: quinn::TransportErrorCode| CRYPTO_ERRORS.contains(&u64::from(code));
        match self {
            Self::Connection(ConnectionError::TransportError(err)) => crypto(err.code),
            Self::Connection(ConnectionError::ConnectionClosed(frame)) => crypto(frame.error_code),
            Self::Connection(_) | Self::Lanes => false,
            Self::Nameless => true,
        }
    }
}

struct QuicWire {
    connection: Connection,
    /// The reason given on this side, which QUIC does not tell us back.
    closed_here: Mutex<Option<String>>,
    watch: AbortHandle,
}

impl Drop for QuicWire {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

/// Opens the lanes of a connection that we have made. A stream exists for the peer once something is sent
/// on it, so each begins with the number of its lane.
pub(super) async fn open(connection: Connection, unanswered_max: Duration) -> Result<Link, LinkError> {
    let mut streams = Vec::with_capacity(Lane::ALL.len());
    for lane in Lane::ALL {
        let (mut send, recv) = connection.open_bi().await?;
        send.write_all(&[lane as u8]).await.map_err(|_| ended(&connection))?;
        streams.push((send, recv));
    }
    link(connection, streams, unanswered_max)
}

/// Waits for the lanes of a connection that a peer has made, in their order.
pub(super) async fn answer(connection: Connection, unanswered_max: Duration) -> Result<Link, LinkError> {
    let mut streams = Vec::with_capacity(Lane::ALL.len());
    for _ in Lane::ALL {
        streams.push(connection.accept_bi().await?);
    }
    for (lane, (_, recv)) in Lane::ALL.into_iter().zip(&mut streams) {
        let mut number = [0];
        recv.read_exact(&mut number).await.map_err(|_| ended(&connection))?;
        if number[0] != lane as u8 {
            return Err(LinkError::Lanes);
        }
    }
    link(connection, streams, unanswered_max)
}

/// A stream fails when the connection has ended, or when the peer gave up that stream alone.
fn ended(connection: &Connection) -> LinkError {
    connection.close_reason().map_or(LinkError::Lanes, LinkError::Connection)
}

fn link(
    connection: Connection,
    streams: Vec<(SendStream, RecvStream)>,
    unanswered_max: Duration,
) -> Result<Link, LinkError> {
    let peer = peer_of(&connection).ok_or(LinkError::Nameless)?;
    let mut lanes: Vec<(LaneReader, LaneWriter)> = Vec::with_capacity(streams.len());
    for (lane, (send, recv)) in Lane::ALL.into_iter().zip(streams) {
        send.set_priority(priority(lane)).map_err(|_| ended(&connection))?;
        lanes.push((Box::new(recv), Box::new(send)));
    }
    let lanes = lanes.try_into().map_err(|_| LinkError::Lanes)?;
    let mut remote_addr = connection.remote_address();
    remote_addr.set_ip(remote_addr.ip().to_canonical());
    let watch = tokio::spawn(pulse::watch(connection.clone(), unanswered_max)).abort_handle();
    let wire = std::sync::Arc::new(QuicWire { connection, closed_here: Mutex::new(None), watch });
    Ok(Link { remote_addr, peer, lanes, wire })
}

impl LaneWrite for SendStream {
    fn poll_hand_over(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &mut Bytes,
    ) -> Poll<io::Result<()>> {
        let mut chunks = [mem::take(bytes)];
        // Cancelled it has taken nothing, and it is woken all the same.
        let written = pin!(self.write_chunks(&mut chunks)).poll(cx);
        let [rest] = chunks;
        *bytes = rest;
        written.map_ok(drop).map_err(io::Error::from)
    }
}

fn peer_of(connection: &Connection) -> Option<NodeId> {
    let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    node_of(chain.first()?).ok()
}

/// Who goes first when not everything can be sent at once.
fn priority(lane: Lane) -> i32 {
    match lane {
        Lane::Control => 3,
        Lane::Ask => 2,
        Lane::Stream => 1,
        Lane::Bulk => 0,
    }
}

#[async_trait]
impl Wire for QuicWire {
    fn send_datagram(&self, datagram: Bytes) -> Result<(), DatagramError> {
        self.connection.send_datagram(datagram).map_err(|err| match err {
            SendDatagramError::ConnectionLost(_) => DatagramError::Closed,
            SendDatagramError::TooLarge
            | SendDatagramError::Disabled
            | SendDatagramError::UnsupportedByPeer => {
                DatagramError::TooLarge { max: self.datagram_bytes_max() }
            }
        })
    }

    async fn recv_datagram(&self) -> Option<Bytes> {
        self.connection.read_datagram().await.ok()
    }

    fn datagram_bytes_max(&self) -> usize {
        self.connection.max_datagram_size().unwrap_or(0)
    }

    fn rtt(&self) -> Duration {
        self.connection.rtt()
    }

    fn close(&self, reason: &str) {
        let reason = clipped(reason);
        self.closed_here.lock().get_or_insert_with(|| reason.clone());
        self.connection.close(VarInt::from_u32(0), reason.as_bytes());
    }

    async fn closed(&self) -> String {
        match self.connection.closed().await {
            ConnectionError::LocallyClosed => {
                self.closed_here.lock().clone().unwrap_or_else(|| "closed here".to_owned())
            }
            ConnectionError::ApplicationClosed(frame) => clipped(&String::from_utf8_lossy(&frame.reason)),
            other => clipped(&other.to_string()),
        }
    }
}

/// Short and on one line: some of it comes from the peer, and all of it ends up in a log.
pub(super) fn clipped(reason: &str) -> String {
    let mut clipped = String::new();
    for c in reason.chars().filter(|c| !c.is_control()) {
        if clipped.len() + c.len_utf8() > REASON_BYTES_MAX {
            break;
        }
        clipped.push(c);
    }
    clipped
}
