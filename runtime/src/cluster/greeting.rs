//! The first frame each way on a new link: who is there, in which life, and what it can read.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Buf as _, BytesMut};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::cluster::link::Identity;
use crate::cluster::net::{Net, node_key};
use crate::cluster::{Incarnation, NodeId};
use crate::fabric::Lane;
use crate::wire::{self, FrameError, HEADER_BYTES, Header, Kind};

/// Longest greeting.
const GREETING_BYTES_MAX: u32 = 64 << 10;

#[derive(Serialize, Deserialize)]
struct Greeting {
    cluster: String,
    node: String,
    incarnation: u64,
    advertise: SocketAddr,
    /// Message types read here: id, oldest and newest layout.
    types: Vec<(u32, u16, u16)>,
}

/// Layouts that a node reads, oldest and newest, by message type.
pub(crate) type Layouts = HashMap<u32, (u16, u16)>;

/// What the other end said.
pub(crate) struct Greeted {
    pub(crate) identity: Identity,
    pub(crate) advertise: SocketAddr,
    pub(crate) layouts: Layouts,
    /// Bytes that came behind the greeting.
    pub(crate) rest: BytesMut,
}

/// Why two ends do not talk.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GreetingError {
    #[error("lane: {0}")]
    Lane(#[from] std::io::Error),
    #[error("frame: {0}")]
    Frame(#[from] FrameError),
    #[error("the first frame is no greeting")]
    NoGreeting,
    #[error("greeting: {0}")]
    Malformed(String),
    #[error("it belongs to cluster `{0}`")]
    OtherCluster(String),
    #[error("it says it is `{said}`, its credentials say `{proven}`")]
    OtherName { said: String, proven: NodeId },
    #[error("it is this node itself")]
    Myself,
    #[error("another node is called `{0}` as this one is: give one of the two another `node.name`")]
    Namesake(NodeId),
}

/// The end that dialled speaks first.
pub(crate) async fn greet(
    net: &Arc<Net>,
    proven: &NodeId,
    input: &mut (impl AsyncRead + Unpin),
    output: &mut (impl AsyncWrite + Unpin),
) -> Result<Greeted, GreetingError> {
    say(net, Kind::Hello, output).await?;
    hear(net, Kind::Welcome, proven, input).await
}

/// The end that was dialled listens first, and says nothing to whom it does not take.
pub(crate) async fn welcome(
    net: &Arc<Net>,
    proven: &NodeId,
    input: &mut (impl AsyncRead + Unpin),
    output: &mut (impl AsyncWrite + Unpin),
) -> Result<Greeted, GreetingError> {
    let greeted = hear(net, Kind::Hello, proven, input).await?;
    say(net, Kind::Welcome, output).await?;
    Ok(greeted)
}

async fn say(net: &Net, kind: Kind, output: &mut (impl AsyncWrite + Unpin)) -> Result<(), GreetingError> {
    let greeting = Greeting {
        cluster: net.cluster.clone(),
        node: net.me.id.as_str().to_owned(),
        incarnation: net.me.incarnation.0,
        advertise: net.advertise,
        types: net.exports.types(),
    };
    let mut frame = vec![0; HEADER_BYTES];
    wire::write(&greeting, &mut frame).map_err(|error| GreetingError::Malformed(error.to_string()))?;
    let mut header = Header::new(kind, Lane::Control);
    header.body_bytes = u32::try_from(frame.len() - HEADER_BYTES).unwrap_or(u32::MAX);
    frame[..HEADER_BYTES].copy_from_slice(&header.to_bytes());
    output.write_all(&frame).await?;
    output.flush().await?;
    Ok(())
}

async fn hear(
    net: &Net,
    kind: Kind,
    proven: &NodeId,
    input: &mut (impl AsyncRead + Unpin),
) -> Result<Greeted, GreetingError> {
    let mut buffer = BytesMut::new();
    let header = loop {
        if let Some(bytes) = buffer.first_chunk::<HEADER_BYTES>() {
            break Header::read(bytes)?;
        }
        more(input, &mut buffer).await?;
    };
    if header.kind != kind || header.body_bytes > GREETING_BYTES_MAX {
        return Err(GreetingError::NoGreeting);
    }
    buffer.advance(HEADER_BYTES);
    let body_bytes = header.body_bytes as usize;
    while buffer.len() < body_bytes {
        more(input, &mut buffer).await?;
    }
    let body = buffer.split_to(body_bytes);
    let said: Greeting =
        wire::read_hello(&body).map_err(|error| GreetingError::Malformed(error.to_string()))?;
    if said.cluster != net.cluster {
        return Err(GreetingError::OtherCluster(said.cluster.chars().take(64).collect()));
    }
    if said.node != proven.as_str() {
        let said = said.node.chars().take(64).collect();
        return Err(GreetingError::OtherName { said, proven: proven.clone() });
    }
    if *proven == net.me.id {
        let is_me = said.incarnation == net.me.incarnation.0 && said.advertise == net.advertise;
        return Err(if is_me { GreetingError::Myself } else { GreetingError::Namesake(proven.clone()) });
    }
    let identity =
        Identity { id: proven.clone(), key: node_key(proven), incarnation: Incarnation(said.incarnation) };
    let layouts = said.types.into_iter().map(|(id, oldest, newest)| (id, (oldest, newest))).collect();
    Ok(Greeted { identity, advertise: said.advertise, layouts, rest: buffer })
}

async fn more(input: &mut (impl AsyncRead + Unpin), buffer: &mut BytesMut) -> std::io::Result<()> {
    buffer.reserve(4096);
    match input.read_buf(buffer).await? {
        0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}
