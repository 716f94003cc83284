//! The floor: frames with a length in front on one stream of bytes, answered where they are read.
//!
//! Frames gather while a write is under way, both ways. No actor, no deadline, no order but the stream's. Over TCP
//! without delay; and, to tell what QUIC costs from what the runtime does, over one lane of its fabric.

use std::collections::HashMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Poll, Waker};

use bytes::{Buf as _, Bytes, BytesMut};
use parking_lot::Mutex;
use peregrine_runtime::Fabric as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::measure::{self, Note, Tally, block_number};
use crate::{Outcome, ours, ready};

const ECHO: u8 = 0;
const TICK: u8 = 1;
const LAST_TICK: u8 = 2;
const BLOCK: u8 = 3;
const LAST_BLOCK: u8 = 4;

/// Length of the body, kind, correlation.
const HEAD_BYTES: usize = 4 + 1 + 8;
/// Bytes that may wait to be written: as many as the runtime lets.
const WAITING_BYTES_MAX: usize = 8 << 20;
const READ_BYTES: usize = 64 << 10;

fn frame(out: &mut Vec<u8>, kind: u8, correlation: u64, body: &[u8]) {
    out.extend_from_slice(&(body.len() as u32).to_le_bytes());
    out.push(kind);
    out.extend_from_slice(&correlation.to_le_bytes());
    out.extend_from_slice(body);
}

fn note_bytes(note: Note) -> [u8; 64] {
    let mut bytes = [0; 64];
    for (chunk, word) in bytes.chunks_exact_mut(8).zip(note) {
        chunk.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    bytes.chunks_exact(8).filter_map(|chunk| Some(u64::from_le_bytes(chunk.try_into().ok()?)))
}

/// Calls `each` with every whole frame, and with none half a frame.
fn frames(buffer: &mut BytesMut, mut each: impl FnMut(u8, u64, &[u8]) -> Outcome<()>) -> Outcome<()> {
    while let Some(head) = buffer.first_chunk::<HEAD_BYTES>() {
        let body_bytes = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let correlation = words(&head[5..]).next().unwrap_or(0);
        let kind = head[4];
        let end = HEAD_BYTES + body_bytes;
        if buffer.len() < end {
            break;
        }
        each(kind, correlation, &buffer[HEAD_BYTES..end])?;
        buffer.advance(end);
    }
    Ok(())
}

pub(crate) async fn serve() -> Outcome<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            let (input, output) = stream.into_split();
            tokio::spawn(answer(input, output));
        }
    });
    ready(address).await
}

pub(crate) async fn serve_fabric() -> Outcome<()> {
    let fabric = ours::fabric("server")?;
    let address = fabric.local_addr();
    tokio::spawn(async move {
        while let Some(link) = fabric.accept().await {
            let [control, (input, output), stream, bulk] = link.lanes;
            tokio::spawn(async move {
                // The link ends with its parts.
                let _held = (control, stream, bulk, link.wire);
                answer(input, output).await
            });
        }
    });
    ready(address).await
}

async fn answer(mut input: impl AsyncRead + Unpin, mut output: impl AsyncWrite + Unpin) -> Outcome<()> {
    let (mut ticks, mut blocks) = (Tally::default(), Tally::default());
    let (mut buffer, mut answers) = (BytesMut::new(), Vec::new());
    loop {
        frames(&mut buffer, |kind, correlation, body| {
            match kind {
                ECHO => frame(&mut answers, ECHO, correlation, body),
                TICK | LAST_TICK => ticks.enter(words(body).next().ok_or("no note")?),
                _ => blocks.enter(block_number(body)?),
            }
            let tally = match kind {
                LAST_TICK => ticks,
                LAST_BLOCK => blocks,
                _ => return Ok(()),
            };
            let body = [tally.count.to_le_bytes(), tally.misordered.to_le_bytes()].concat();
            frame(&mut answers, kind, correlation, &body);
            Ok(())
        })?;
        if !answers.is_empty() {
            output.write_all(&answers).await?;
            answers.clear();
        }
        buffer.reserve(READ_BYTES);
        if input.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}

#[derive(Clone)]
pub(crate) struct Client(Arc<Shared>);

struct Shared {
    out: Mutex<Out>,
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Bytes>>>,
}

#[derive(Default)]
struct Out {
    frames: Vec<u8>,
    writer: Option<Waker>,
    senders: Vec<Waker>,
}

impl Client {
    pub(crate) async fn connect(server: SocketAddr) -> Outcome<Self> {
        let stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        let (input, output) = stream.into_split();
        Ok(Self::over(input, output))
    }

    pub(crate) async fn connect_fabric(server: SocketAddr) -> Outcome<Self> {
        let fabric = ours::fabric("client")?;
        let link = fabric.connect(server).await?;
        let [control, (input, output), stream, bulk] = link.lanes;
        // The link ends with its parts.
        tokio::spawn(async move {
            let _held = (fabric, control, stream, bulk);
            link.wire.closed().await
        });
        Ok(Self::over(input, output))
    }

    fn over(
        input: impl AsyncRead + Unpin + Send + 'static,
        output: impl AsyncWrite + Unpin + Send + 'static,
    ) -> Self {
        let shared =
            Arc::new(Shared { out: Mutex::default(), next: AtomicU64::new(0), waiting: Mutex::default() });
        tokio::spawn(read(Arc::clone(&shared), input));
        tokio::spawn(write(Arc::clone(&shared), output));
        Self(shared)
    }

    /// Waits for room, then appends a frame.
    async fn push(&self, kind: u8, correlation: u64, body: &[u8]) {
        poll_fn(|cx| {
            let mut out = self.0.out.lock();
            if out.frames.len() >= WAITING_BYTES_MAX {
                out.senders.push(cx.waker().clone());
                return Poll::Pending;
            }
            frame(&mut out.frames, kind, correlation, body);
            let writer = out.writer.take();
            drop(out);
            if let Some(writer) = writer {
                writer.wake();
            }
            Poll::Ready(())
        })
        .await;
    }

    async fn ask(&self, kind: u8, body: &[u8]) -> Outcome<Bytes> {
        let correlation = self.0.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        self.0.waiting.lock().insert(correlation, sender);
        self.push(kind, correlation, body).await;
        Ok(answer.await?)
    }

    async fn ask_tally(&self, kind: u8, body: &[u8]) -> Outcome<Tally> {
        let answer = self.ask(kind, body).await?;
        let mut words = words(&answer);
        let (count, misordered) = words.next().zip(words.next()).ok_or("no tally")?;
        Ok(Tally { count, misordered })
    }
}

async fn write(shared: Arc<Shared>, mut output: impl AsyncWrite + Unpin) {
    let mut taken = Vec::new();
    loop {
        poll_fn(|cx| {
            let mut out = shared.out.lock();
            if out.frames.is_empty() {
                out.writer = Some(cx.waker().clone());
                return Poll::Pending;
            }
            std::mem::swap(&mut out.frames, &mut taken);
            let senders = std::mem::take(&mut out.senders);
            drop(out);
            senders.into_iter().for_each(Waker::wake);
            Poll::Ready(())
        })
        .await;
        if output.write_all(&taken).await.is_err() {
            return;
        }
        taken.clear();
    }
}

async fn read(shared: Arc<Shared>, mut input: impl AsyncRead + Unpin) -> Outcome<()> {
    let mut buffer = BytesMut::new();
    loop {
        frames(&mut buffer, |_, correlation, body| {
            if let Some(asker) = shared.waiting.lock().remove(&correlation) {
                // The asker may have left.
                let _ = asker.send(Bytes::copy_from_slice(body));
            }
            Ok(())
        })?;
        buffer.reserve(READ_BYTES);
        if input.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}

impl measure::Client for Client {
    async fn echo(&self, note: Note) -> Outcome<Note> {
        let answer = self.ask(ECHO, &note_bytes(note)).await?;
        let mut note = Note::default();
        note.iter_mut().zip(words(&answer)).for_each(|(into, word)| *into = word);
        Ok(note)
    }

    async fn tell(&self, note: Note) -> Outcome<()> {
        self.push(TICK, 0, &note_bytes(note)).await;
        Ok(())
    }

    async fn tally(&self, last: Note) -> Outcome<Tally> {
        self.ask_tally(LAST_TICK, &note_bytes(last)).await
    }

    async fn block(&self, block: Bytes) -> Outcome<()> {
        self.push(BLOCK, 0, &block).await;
        Ok(())
    }

    async fn tally_blocks(&self, last: Bytes) -> Outcome<Tally> {
        self.ask_tally(LAST_BLOCK, &last).await
    }
}
