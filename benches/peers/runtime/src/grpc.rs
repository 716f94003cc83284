//! tonic over TCP, without encryption and with mutual TLS: unary calls for asks, one client stream for a flow. Bodies
//! are plain bytes, so that no codec weighs on it.

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
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

use crate::measure::{self, BLOCK_BYTES, Note, Tally, block_number};
use crate::{Outcome, ready};

const ECHO: &str = "/bench.Bench/Echo";
const FLOW: &str = "/bench.Bench/Flow";
/// Messages that may wait for a stream to take them: of blocks as many bytes as the runtime lets wait.
const NOTES_MAX: usize = 4096;
const BLOCKS_MAX: usize = 8;
const MESSAGE_BYTES_MAX: usize = 2 << 20;

/// What both certificates are for.
const NAME: &str = "localhost";
/// A private key of Ed25519 in PKCS #8 (RFC 8410, section 7) but for its 32 bytes.
const KEY_HEAD: [u8; 16] = *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";

/// Whether the connection is encrypted, and both ends known to each other.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tls {
    Without,
    Mutual,
}

/// One certificate for both ends, which signs itself: made of the same key in both processes, a key for nothing but
/// this bench.
fn certificate() -> Outcome<(Certificate, Identity)> {
    // Of two that other peers bring; the one of the runtime. It may be there already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let der = [&KEY_HEAD[..], &[7; 32]].concat();
    let key = rcgen::KeyPair::try_from(der)?;
    let signed = rcgen::CertificateParams::new([NAME.to_owned()])?.self_signed(&key)?.pem();
    Ok((Certificate::from_pem(&signed), Identity::from_pem(signed, key.serialize_pem())))
}

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

pub(crate) async fn serve(tls: Tls) -> Outcome<()> {
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse()?)?.with_nodelay(Some(true));
    let address = incoming.local_addr()?;
    let mut server = Server::builder();
    if tls == Tls::Mutual {
        let (root, identity) = certificate()?;
        server = server.tls_config(ServerTlsConfig::new().identity(identity).client_ca_root(root))?;
    }
    tokio::spawn(server.serve_with_incoming(Bench, incoming));
    ready(address).await
}

type Calling = (mpsc::Sender<Bytes>, JoinHandle<Result<Bytes, Status>>);

#[derive(Clone)]
pub(crate) struct Client {
    channel: Channel,
    flow: Arc<Mutex<Option<Calling>>>,
}

impl Client {
    pub(crate) async fn connect(server: SocketAddr, tls: Tls) -> Outcome<Self> {
        let scheme = if tls == Tls::Mutual { "https" } else { "http" };
        let mut endpoint = Endpoint::from_shared(format!("{scheme}://{server}"))?.tcp_nodelay(true);
        if tls == Tls::Mutual {
            let (root, identity) = certificate()?;
            let config = ClientTlsConfig::new().domain_name(NAME).ca_certificate(root).identity(identity);
            endpoint = endpoint.tls_config(config)?;
        }
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
