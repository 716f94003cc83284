//! The runtime as a program uses it: two nodes that meet by gossip, QUIC with mutual TLS, actors on threads of
//! their own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use peregrine_runtime::{
    Address, AskError, ChildSpec, Children, Cluster, ClusterConfig, CodecError, Credentials, Deadline,
    Detector, Discovery, Fabric, Failure, Inbox, Incarnation, Lane, Limits, Mailbox, NodeId, QuicFabric,
    QuicOptions, Region, RemoteMessage, Strategy, SystemClock, TellError, Tree, Worker, remote_message,
};
use serde::{Deserialize, Serialize};

use crate::measure::{self, BLOCK_BYTES, Note, Tally, block_number};
use crate::{Outcome, ready};

/// Notes that may wait in a mailbox.
const NOTES_MAX: usize = 4096;
/// Blocks that may.
const BLOCKS_MAX: usize = 8;
/// How long a sender stays away from a lane that is full: a few hundred thousand bytes leave meanwhile.
const BACK_OFF: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, Serialize, Deserialize, actix::Message)]
#[rtype(result = "Note")]
struct Echo(Note);
remote_message!(Echo, "bench.echo", version 1, up to 256 bytes, lane Ask);

#[derive(Clone, Copy, Serialize, Deserialize, actix::Message)]
#[rtype(result = "Tally")]
struct Tick(Note);
remote_message!(Tick, "bench.tick", version 1, up to 256 bytes, lane Stream);

#[derive(Clone, actix::Message)]
#[rtype(result = "Tally")]
struct Block(Bytes);

impl RemoteMessage for Block {
    const NAME: &'static str = "bench.block";
    const VERSION: u16 = 1;
    const OLDEST: u16 = 1;
    const BYTES_MAX: usize = 2 << 20;
    const LANE: Lane = Lane::Bulk;

    fn write(&self, _version: u16, out: &mut Vec<u8>) -> Result<(), CodecError> {
        out.extend_from_slice(&self.0);
        Ok(())
    }

    fn read(_version: u16, bytes: &[u8]) -> Result<Self, CodecError> {
        Ok(Self(Bytes::copy_from_slice(bytes)))
    }

    fn read_owned(_version: u16, bytes: Bytes) -> Result<Self, CodecError> {
        Ok(Self(bytes))
    }

    fn write_answer(answer: &Tally, _version: u16, out: &mut Vec<u8>) -> Result<(), CodecError> {
        peregrine_runtime::codec_write(answer, out)
    }

    fn read_answer(_version: u16, bytes: &[u8]) -> Result<Tally, CodecError> {
        peregrine_runtime::codec_read::<Tally, 64>(bytes)
    }
}

struct Echoes;

impl Worker<Echo> for Echoes {
    fn run(&mut self, inbox: &mut Inbox<Echo>) -> Result<(), Failure> {
        while let Some(envelope) = inbox.recv() {
            envelope.slot.send(envelope.message.0);
        }
        Ok(())
    }
}

#[derive(Default)]
struct Ticks(Tally);

impl Worker<Tick> for Ticks {
    fn run(&mut self, inbox: &mut Inbox<Tick>) -> Result<(), Failure> {
        while let Some(envelope) = inbox.recv() {
            self.0.enter(envelope.message.0[0]);
            envelope.slot.send(self.0);
        }
        Ok(())
    }
}

#[derive(Default)]
struct Blocks(Tally);

impl Worker<Block> for Blocks {
    fn run(&mut self, inbox: &mut Inbox<Block>) -> Result<(), Failure> {
        while let Some(envelope) = inbox.recv() {
            self.0.enter(block_number(&envelope.message.0)?);
            envelope.slot.send(self.0);
        }
        Ok(())
    }
}

pub(crate) async fn serve() -> Outcome<()> {
    let cluster = start("server", None).await?;
    let clock = Arc::new(SystemClock);
    let (echoes, ticks) = (Mailbox::new(NOTES_MAX, clock.clone()), Mailbox::new(NOTES_MAX, clock.clone()));
    let blocks = Mailbox::new(BLOCKS_MAX, clock.clone());
    cluster.export("echoes", &echoes.address())?;
    cluster.export("ticks", &ticks.address())?;
    cluster.export("blocks", &blocks.address())?;
    let mut children = Children::new(Strategy::OneForOne);
    children.worker(ChildSpec::new("echoes"), echoes, || Ok(Echoes));
    children.worker(ChildSpec::new("ticks"), ticks, || Ok(Ticks::default()));
    children.worker(ChildSpec::new("blocks"), blocks, || Ok(Blocks::default()));
    let _tree = Tree::start(children, clock, 1)?;
    let address = cluster.view().get(cluster.id()).ok_or("not a member")?.addr;
    ready(address).await
}

async fn start(name: &str, seed: Option<SocketAddr>) -> Outcome<Cluster> {
    let id = NodeId::new(name)?;
    let fabric: Arc<dyn Fabric> = Arc::new(fabric(name)?);
    let config = ClusterConfig {
        cluster: "bench".to_owned(),
        id,
        incarnation: Incarnation(1),
        advertise: fabric.local_addr(),
        region: Region::new("here")?,
        roles: Vec::new(),
        version: "1".to_owned(),
        detector: Detector::default(),
        limits: Limits::default(),
    };
    let seed: Option<Arc<dyn Discovery>> = match seed {
        Some(seed) => Some(Arc::new(Seed(seed))),
        None => None,
    };
    Ok(Cluster::start(config, fabric, seed, Arc::new(SystemClock)).await?)
}

/// The network as the service uses it.
pub(crate) fn fabric(name: &str) -> Outcome<QuicFabric> {
    let credentials = Credentials::from_secret(b"a secret of the bench", "bench", &NodeId::new(name)?)?;
    Ok(QuicFabric::bind("127.0.0.1:0".parse()?, &credentials, QuicOptions::default())?)
}

struct Seed(SocketAddr);

#[async_trait]
impl Discovery for Seed {
    async fn addresses(&self) -> Vec<SocketAddr> {
        vec![self.0]
    }
}

#[derive(Clone)]
pub(crate) struct Client {
    _cluster: Cluster,
    echoes: Address<Echo>,
    ticks: Address<Tick>,
    blocks: Address<Block>,
}

impl Client {
    pub(crate) async fn connect(server: SocketAddr) -> Outcome<Self> {
        let cluster = start("client", Some(server)).await?;
        let id = NodeId::new("server")?;
        let met = async {
            let mut views = cluster.views();
            let _ = views.wait_for(|view| view.get(&id).is_some()).await;
            while !cluster.connected(&id) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), met).await?;
        let none = "not a member";
        Ok(Self {
            echoes: cluster.address(&id, "echoes").ok_or(none)?,
            ticks: cluster.address(&id, "ticks").ok_or(none)?,
            blocks: cluster.address(&id, "blocks").ok_or(none)?,
            _cluster: cluster,
        })
    }
}

fn soon() -> Deadline {
    Deadline::after(Instant::now(), Duration::from_secs(20))
}

/// Tells, and while there is no room comes back.
async fn tell<M>(to: &Address<M>, mut message: M) -> Outcome<()>
where
    M: RemoteMessage,
{
    loop {
        match to.tell(message) {
            Ok(()) => return Ok(()),
            Err(TellError::Full(back)) => message = back,
            Err(other) => return Err(format!("{other}").into()),
        }
        tokio::time::sleep(BACK_OFF).await;
    }
}

impl measure::Client for Client {
    async fn echo(&self, note: Note) -> Outcome<Note> {
        Ok(self.echoes.ask(Echo(note), soon()).await?)
    }

    async fn tell(&self, note: Note) -> Outcome<()> {
        tell(&self.ticks, Tick(note)).await
    }

    async fn tally(&self, last: Note) -> Outcome<Tally> {
        ask(&self.ticks, Tick(last)).await
    }

    async fn block(&self, block: Bytes) -> Outcome<()> {
        debug_assert_eq!(block.len(), BLOCK_BYTES);
        tell(&self.blocks, Block(block)).await
    }

    async fn tally_blocks(&self, last: Bytes) -> Outcome<Tally> {
        ask(&self.blocks, Block(last)).await
    }
}

/// Asks, and while there is no room comes back.
async fn ask<M>(to: &Address<M>, message: M) -> Outcome<M::Result>
where
    M: RemoteMessage + Clone,
{
    let deadline = soon();
    loop {
        match to.ask(message.clone(), deadline).await {
            Ok(answer) => return Ok(answer),
            Err(AskError::Full) => tokio::time::sleep(BACK_OFF).await,
            Err(other) => return Err(other.into()),
        }
    }
}
