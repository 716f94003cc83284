//! `ractor_cluster` as its book has it: two node servers over TCP without encryption, actors found by their process
//! group.
//!
//! Its mailboxes and the way to another node have no bound. So that what waits has one here too, a flow is asked
//! for its tally every half window, and a sender is at most one window ahead of the actor.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use ractor::concurrency::{OneshotReceiver, oneshot};
use ractor::rpc::CallResult;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, pg};
use ractor_cluster::{NodeServer, NodeServerMessage, RactorClusterMessage};
use tokio::sync::Mutex;

use crate::measure::{self, BLOCK_BYTES, Note, Tally, block_number};
use crate::{Failed, Outcome, ready};

/// Notes that may be under way, and blocks.
const NOTES_MAX: u64 = 4096;
const BLOCKS_MAX: u64 = 8;
const COOKIE: &str = "a secret of the bench";
/// For an ask, and for the two nodes to meet.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(RactorClusterMessage)]
enum Echo {
    #[rpc]
    Ask(Vec<u8>, RpcReplyPort<Vec<u8>>),
}

#[derive(RactorClusterMessage)]
enum Flow {
    Tell(Vec<u8>),
    #[rpc]
    Tally(RpcReplyPort<Vec<u8>>),
}

struct Echoes;

impl Actor for Echoes {
    type Msg = Echo;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Echo>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(&self, _: ActorRef<Echo>, message: Echo, (): &mut ()) -> Result<(), ActorProcessingErr> {
        let Echo::Ask(note, reply) = message;
        Ok(reply.send(note)?)
    }
}

struct Flows;

impl Actor for Flows {
    type Msg = Flow;
    type State = Tally;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Flow>, (): ()) -> Result<Tally, ActorProcessingErr> {
        Ok(Tally::default())
    }

    async fn handle(
        &self,
        _: ActorRef<Flow>,
        message: Flow,
        tally: &mut Tally,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Flow::Tell(body) if body.len() == BLOCK_BYTES => tally.enter(block_number(&body)?),
            Flow::Tell(body) => tally.enter(body.as_slice().try_get_u64_le()?),
            Flow::Tally(reply) => {
                reply.send([tally.count.to_le_bytes(), tally.misordered.to_le_bytes()].concat())?;
            }
        }
        Ok(())
    }
}

pub(crate) async fn serve() -> Outcome<()> {
    let (echoes, _) = Actor::spawn(None, Echoes, ()).await?;
    let (ticks, _) = Actor::spawn(None, Flows, ()).await?;
    let (blocks, _) = Actor::spawn(None, Flows, ()).await?;
    for (group, cell) in
        [("echoes", echoes.get_cell()), ("ticks", ticks.get_cell()), ("blocks", blocks.get_cell())]
    {
        pg::join(group.to_owned(), vec![cell]);
    }
    let (_node, port) = node("server").await?;
    ready((Ipv4Addr::LOCALHOST, port).into()).await
}

/// A node server and its port, which it does not tell when it chooses one itself.
async fn node(name: &str) -> Outcome<(ActorRef<NodeServerMessage>, u16)> {
    let port = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    let server =
        NodeServer::new(port, COOKIE.to_owned(), name.to_owned(), "localhost".to_owned(), None, None)
            .with_listen_addr(Ipv4Addr::LOCALHOST.into());
    let (node, _) = Actor::spawn(None, server, ()).await?;
    Ok((node, port))
}

#[derive(Clone)]
pub(crate) struct Client {
    echoes: ActorRef<Echo>,
    ticks: Window,
    blocks: Window,
}

impl Client {
    pub(crate) async fn connect(server: SocketAddr) -> Outcome<Self> {
        let (node, _) = node("client").await?;
        ractor_cluster::client_connect(&node, server).await?;
        let met = async {
            Self {
                echoes: member("echoes").await,
                ticks: Window::new(member("ticks").await, NOTES_MAX),
                blocks: Window::new(member("blocks").await, BLOCKS_MAX),
            }
        };
        Ok(tokio::time::timeout(PATIENCE, met).await?)
    }
}

/// The one actor of a group, once the other node has told of it.
async fn member<M>(group: &str) -> ActorRef<M> {
    loop {
        if let Some(cell) = pg::get_members(&group.to_owned()).into_iter().next() {
            return cell.into();
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A flow into one actor.
#[derive(Clone)]
struct Window {
    actor: ActorRef<Flow>,
    half: u64,
    sent: Arc<Mutex<Sent>>,
}

#[derive(Default)]
struct Sent {
    count: u64,
    /// Comes when all but the last half window has been handled.
    half_before: Option<OneshotReceiver<Vec<u8>>>,
}

impl Window {
    fn new(actor: ActorRef<Flow>, count_max: u64) -> Self {
        Self { actor, half: count_max / 2, sent: Arc::default() }
    }

    async fn tell(&self, body: Vec<u8>) -> Outcome<()> {
        self.actor.cast(Flow::Tell(body))?;
        let mut sent = self.sent.lock().await;
        sent.count += 1;
        if sent.count.is_multiple_of(self.half) {
            let (reply, answer) = oneshot();
            self.actor.cast(Flow::Tally(reply.into()))?;
            if let Some(before) = sent.half_before.replace(answer) {
                before.await?;
            }
        }
        Ok(())
    }

    async fn finish(&self, last: Vec<u8>) -> Outcome<Tally> {
        self.actor.cast(Flow::Tell(last))?;
        tally(&self.actor).await
    }
}

async fn tally(actor: &ActorRef<Flow>) -> Outcome<Tally> {
    let mut answer: &[u8] = &answered(actor.call(Flow::Tally, Some(PATIENCE)).await?)?;
    Ok(Tally { count: answer.try_get_u64_le()?, misordered: answer.try_get_u64_le()? })
}

fn answered<T>(result: CallResult<T>) -> Outcome<T> {
    match result {
        CallResult::Success(answer) => Ok(answer),
        CallResult::Timeout => Err(Failed::from("no answer in time")),
        CallResult::SenderError => Err(Failed::from("the actor gave no answer")),
    }
}

fn bytes_of(note: Note) -> Vec<u8> {
    note.iter().flat_map(|word| word.to_le_bytes()).collect()
}

impl measure::Client for Client {
    async fn echo(&self, note: Note) -> Outcome<Note> {
        let ask = |reply| Echo::Ask(bytes_of(note), reply);
        let mut answer: &[u8] = &answered(self.echoes.call(ask, Some(PATIENCE)).await?)?;
        let mut echoed = Note::default();
        for word in &mut echoed {
            *word = answer.try_get_u64_le()?;
        }
        Ok(echoed)
    }

    async fn tell(&self, note: Note) -> Outcome<()> {
        self.ticks.tell(bytes_of(note)).await
    }

    async fn tally(&self, last: Note) -> Outcome<Tally> {
        self.ticks.finish(bytes_of(last)).await
    }

    async fn block(&self, block: Bytes) -> Outcome<()> {
        self.blocks.tell(block.into()).await
    }

    async fn tally_blocks(&self, last: Bytes) -> Outcome<Tally> {
        self.blocks.finish(last.into()).await
    }
}
