//! tonic over TCP without encryption: unary calls for asks, one client stream for a flow. Bodies are plain bytes, so
//! that no codec weighs on it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf as _, BufMut as _, Bytes};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;
use tokio_stream::Stream;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder, Streaming};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{ClientStreamingService, UnaryService};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};

use crate::measure::{self, BLOCK_BYTES, Note, Tally, block_number};
use crate::{Outcome, ready};

const ECHO: &str = "/bench.Bench/Echo";
const FLOW: &str = "/bench.Bench/Flow";
/// Messages that may wait for a stream to take them: of blocks as many bytes as the runtime lets wait.
const NOTES_MAX: usize = 4096;
const BLOCKS_MAX: usize = 8;
const MESSAGE_BYTES_MAX: usize = 2 << 20;

#[derive(Clone, Copy, Default)]
struct Plain;

impl Codec for Plain {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(item);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

#[derive(Clone)]
struct Bench;

impl Service<http::Request<Body>> for Bench {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(Plain).max_decoding_message_size(MESSAGE_BYTES_MAX);
            Ok(match request.uri().path() {
                ECHO => grpc.unary(Echo, request).await,
                _ => grpc.client_streaming(Flow, request).await,
            })
        })
    }
}

struct Echo;

impl UnaryService<Bytes> for Echo {
    type Response = Bytes;
    type Future = std::future::Ready<Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        std::future::ready(Ok(Response::new(request.into_inner())))
    }
}

struct Flow;

impl ClientStreamingService<Bytes> for Flow {
    type Response = Bytes;
    type Future = BoxFuture<Response<Bytes>, Status>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        Box::pin(async move {
            let (mut flow, mut tally) = (request.into_inner(), Tally::default());
            while let Some(message) = flow.message().await? {
                let number = match message.len() {
                    BLOCK_BYTES => {
                        block_number(&message).map_err(|error| Status::internal(error.to_string()))?
                    }
                    _ => message.clone().get_u64_le(),
                };
                tally.enter(number);
            }
            let words = [tally.count.to_le_bytes(), tally.misordered.to_le_bytes()];
            Ok(Response::new(Bytes::from(words.concat())))
        })
    }
}

pub(crate) async fn serve() -> Outcome<()> {
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse()?)?.with_nodelay(Some(true));
    let address = incoming.local_addr()?;
    tokio::spawn(Server::builder().serve_with_incoming(Bench, incoming));
    ready(address).await
}

type Calling = (mpsc::Sender<Bytes>, JoinHandle<Result<Bytes, Status>>);

#[derive(Clone)]
pub(crate) struct Client {
    channel: Channel,
    flow: Arc<Mutex<Option<Calling>>>,
}

impl Client {
    pub(crate) async fn connect(server: SocketAddr) -> Outcome<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{server}"))?.tcp_nodelay(true);
        Ok(Self { channel: endpoint.connect().await?, flow: Arc::default() })
    }

    /// Waits for room in the stream, which begins with its first message.
    async fn send(&self, message: Bytes, count_max: usize) -> Outcome<()> {
        let mut flow = self.flow.lock().await;
        let (sender, _) = flow.get_or_insert_with(|| {
            let (sender, messages) = mpsc::channel(count_max);
            let stream = Queue(messages);
            let mut grpc = Grpc::new(self.channel.clone());
            let call = async move {
                grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
                let path = PathAndQuery::from_static(FLOW);
                Ok(grpc.client_streaming(Request::new(stream), path, Plain).await?.into_inner())
            };
            (sender, tokio::spawn(call))
        });
        Ok(sender.send(message).await?)
    }

    async fn finish(&self, last: Bytes, count_max: usize) -> Outcome<Tally> {
        self.send(last, count_max).await?;
        let (sender, call) = self.flow.lock().await.take().ok_or("no flow")?;
        drop(sender);
        let mut answer = call.await??;
        Ok(Tally { count: answer.try_get_u64_le()?, misordered: answer.try_get_u64_le()? })
    }
}

struct Queue(mpsc::Receiver<Bytes>);

impl Stream for Queue {
    type Item = Bytes;

    fn poll_next(mut self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.0.poll_recv(cx)
    }
}

fn bytes_of(note: Note) -> Bytes {
    note.iter().flat_map(|word| word.to_le_bytes()).collect()
}

impl measure::Client for Client {
    async fn echo(&self, note: Note) -> Outcome<Note> {
        let mut grpc = Grpc::new(self.channel.clone());
        grpc.ready().await?;
        let request = Request::new(bytes_of(note));
        let answer = grpc.unary(request, PathAndQuery::from_static(ECHO), Plain).await?;
        let mut answer = answer.into_inner();
        let mut echoed = Note::default();
        for word in &mut echoed {
            *word = answer.try_get_u64_le()?;
        }
        Ok(echoed)
    }

    async fn tell(&self, note: Note) -> Outcome<()> {
        self.send(bytes_of(note), NOTES_MAX).await
    }

    async fn tally(&self, last: Note) -> Outcome<Tally> {
        self.finish(bytes_of(last), NOTES_MAX).await
    }

    async fn block(&self, block: Bytes) -> Outcome<()> {
        self.send(block, BLOCKS_MAX).await
    }

    async fn tally_blocks(&self, last: Bytes) -> Outcome<Tally> {
        self.finish(last, BLOCKS_MAX).await
    }
}
