//! kameo's remote actors over libp2p: TCP, noise, yamux, one substream a message; actors found by name.
//!
//! A tell that does not wait for its acknowledgement may overtake another on its way, so one at a time is told:
//! nothing else of it keeps the order that is checked.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use kameo::actor::{ActorRef, RemoteActorRef, Spawn as _};
use kameo::message::{Context, Message};
use kameo::remote::{self, Behaviour, messaging};
use kameo::{Actor, RemoteActor, remote_message};
use libp2p::futures::StreamExt as _;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, Swarm, SwarmBuilder, noise, tcp, yamux};
use serde::{Deserialize, Serialize};

use crate::measure::{self, Note, Tally, block_number};
use crate::{Outcome, ready};

/// A block in its CBOR, where most bytes take two.
const REQUEST_BYTES_MAX: u64 = 4 << 20;
/// For an ask, and for the two nodes to meet.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Serialize, Deserialize)]
struct Echo(Note);

#[derive(Serialize, Deserialize)]
struct Tick(Note);

#[derive(Serialize, Deserialize)]
struct Block(Bytes);

#[derive(Serialize, Deserialize)]
struct Asked;

#[derive(Actor, RemoteActor)]
struct Echoes;

#[derive(Default, Actor, RemoteActor)]
struct Flows(Tally);

#[remote_message]
impl Message<Echo> for Echoes {
    type Reply = Note;

    async fn handle(&mut self, Echo(note): Echo, _: &mut Context<Self, Note>) -> Note {
        note
    }
}

#[remote_message]
impl Message<Tick> for Flows {
    type Reply = ();

    async fn handle(&mut self, Tick(note): Tick, _: &mut Context<Self, ()>) {
        self.0.enter(note[0]);
    }
}

#[remote_message]
impl Message<Block> for Flows {
    type Reply = ();

    async fn handle(&mut self, Block(block): Block, _: &mut Context<Self, ()>) {
        // What is no block has no number, and so is out of order.
        self.0.enter(block_number(&block).unwrap_or(u64::MAX));
    }
}

#[remote_message]
impl Message<Asked> for Flows {
    type Reply = (u64, u64);

    async fn handle(&mut self, _: Asked, _: &mut Context<Self, (u64, u64)>) -> (u64, u64) {
        (self.0.count, self.0.misordered)
    }
}

fn swarm() -> Outcome<Swarm<Behaviour>> {
    let config = messaging::Config::default().with_request_size_maximum(REQUEST_BYTES_MAX);
    let swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)?
        .with_behaviour(|key| Behaviour::new(key.public().to_peer_id(), config))?
        .build();
    swarm.behaviour().try_init_global()?;
    Ok(swarm)
}

fn multiaddr(port: u16) -> Multiaddr {
    Multiaddr::from(Ipv4Addr::LOCALHOST).with(Protocol::Tcp(port))
}

pub(crate) async fn serve() -> Outcome<()> {
    let mut swarm = swarm()?;
    swarm.listen_on(multiaddr(0))?;
    let port = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            let port = address.iter().find_map(|part| match part {
                Protocol::Tcp(port) => Some(port),
                _ => None,
            });
            break port.ok_or("no port")?;
        }
    };
    tokio::spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    });
    let (echoes, ticks, blocks): (ActorRef<Echoes>, ActorRef<Flows>, ActorRef<Flows>) =
        (Echoes::spawn(Echoes), Flows::spawn(Flows::default()), Flows::spawn(Flows::default()));
    echoes.register("echoes").await?;
    ticks.register("ticks").await?;
    blocks.register("blocks").await?;
    ready((Ipv4Addr::LOCALHOST, port).into()).await
}

#[derive(Clone)]
pub(crate) struct Client {
    echoes: RemoteActorRef<Echoes>,
    ticks: RemoteActorRef<Flows>,
    blocks: RemoteActorRef<Flows>,
}

impl Client {
    pub(crate) async fn connect(server: SocketAddr) -> Outcome<Self> {
        let mut swarm = swarm()?;
        let address = multiaddr(server.port());
        swarm.dial(address.clone())?;
        tokio::spawn(async move {
            loop {
                if let SwarmEvent::ConnectionEstablished { peer_id, .. } = swarm.select_next_some().await {
                    swarm.add_peer_address(peer_id, address.clone());
                }
            }
        });
        let met = async {
            Ok(Self {
                echoes: found("echoes").await?,
                ticks: found("ticks").await?,
                blocks: found("blocks").await?,
            })
        };
        tokio::time::timeout(PATIENCE, met).await?
    }
}

/// The actor of a name, once the two nodes have met.
async fn found<A: Actor + remote::RemoteActor>(name: &'static str) -> Outcome<RemoteActorRef<A>> {
    loop {
        if let Some(actor) = RemoteActorRef::lookup(name).await? {
            return Ok(actor);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn tally(actor: &RemoteActorRef<Flows>) -> Outcome<Tally> {
    let (count, misordered) = actor.ask(&Asked).reply_timeout(PATIENCE).await?;
    Ok(Tally { count, misordered })
}

impl measure::Client for Client {
    async fn echo(&self, note: Note) -> Outcome<Note> {
        Ok(self.echoes.ask(&Echo(note)).reply_timeout(PATIENCE).await?)
    }

    async fn tell(&self, note: Note) -> Outcome<()> {
        Ok(self.ticks.tell(&Tick(note)).send_ack().await?)
    }

    async fn tally(&self, last: Note) -> Outcome<Tally> {
        self.tell(last).await?;
        tally(&self.ticks).await
    }

    async fn block(&self, block: Bytes) -> Outcome<()> {
        Ok(self.blocks.tell(&Block(block)).send_ack().await?)
    }

    async fn tally_blocks(&self, last: Bytes) -> Outcome<Tally> {
        self.block(last).await?;
        tally(&self.blocks).await
    }
}
