//! Requests to upgrade: websockets are taken out of HTTP's hands, all others get the answer they would have had.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_codec::{Encoder, Framed, FramedParts};
use actix_http::body::{BoxBody, MessageBody};
use actix_http::h1::{Codec, Message};
use actix_http::{ConnectionType, Request, Response};
use actix_web::ResponseError;
use actix_web::dev::ServiceResponse;
use actix_web::web::{Data, Query};
use bytes::Bytes;
use tokio::io::AsyncWriteExt;

use super::super::Shared;
use super::super::error::Problem;
use super::super::guard::{self, Pass};
use super::super::overview::{self, Viewer, Whose};
use super::super::query;
use super::super::traced;
use super::connection::{Connection, Patience, Socket, run};
use super::echo::Echo;
use super::handshake::{Agreed, Dialects, agree};
use super::port::Session;
use super::session::Talk;
use super::state::Seat;
use super::ws::{MessageLimits, Reader};

/// Largest message of the echo, which conformance suites are to fill.
const ECHO_BYTES_MAX: usize = 16 << 20;

/// The connection as HTTP leaves it.
pub(crate) type Upgraded<T> = (Request, Framed<T, Codec>);

/// Why an upgraded connection ended early; the client is gone, nobody acts.
#[derive(Debug)]
pub(crate) struct Broken(String);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Asked for by the server's types; nobody is there any more to read it.
impl From<Broken> for Response<BoxBody> {
    fn from(_: Broken) -> Self {
        Self::internal_server_error()
    }
}

/// Serves requests to upgrade; `app` answers what is none.
pub(crate) struct Upgrade<A> {
    app: Rc<A>,
    shared: Data<Shared>,
}

impl<A> Upgrade<A> {
    pub(crate) fn new(app: A, shared: Data<Shared>) -> Self {
        Self { app: Rc::new(app), shared }
    }
}

impl<A, B, T> actix_service::Service<Upgraded<T>> for Upgrade<A>
where
    A: actix_service::Service<Request, Response = ServiceResponse<B>> + 'static,
    A::Error: Into<Response<BoxBody>>,
    B: MessageBody,
    T: Socket,
{
    type Response = ();
    type Error = Broken;
    type Future = Pin<Box<dyn Future<Output = Result<(), Broken>>>>;

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        self.app.poll_ready(cx).map_err(|_| Broken("the routes are not ready".to_owned()))
    }

    fn call(&self, (request, framed): Upgraded<T>) -> Self::Future {
        let Some(what) = What::of(request.path()) else { return self.answer(request, framed) };
        let query = request.uri().query().unwrap_or_default();
        let is_known = query::refuse_unknown(request.path(), query).is_ok();
        let Some(agreed) = agree(request.head(), what.dialects()).ok().filter(|_| is_known) else {
            return self.answer(request, framed);
        };
        let pass = match Pass::admit(&self.shared, request.head()) {
            Ok(pass) => pass,
            Err(refusal) => return refused(framed, Problem(refusal), self.shared.config().deadline.max),
        };
        let Some(seat) = self.shared.stream.sit() else { return self.answer(request, framed) };
        let (shared, Agreed { encoding, answer }) = (self.shared.clone(), agreed);
        let bytes_max = what.message_bytes_max(&shared);
        match what {
            What::Echo => {
                drop(request);
                let echo = Echo { shared: shared.clone(), pass };
                talk(framed, echo, bytes_max, answer, shared.stream.patience(), seat)
            }
            What::Stream => {
                let caller = traced::caller(request.head().headers());
                drop(request);
                let is_plain = framed.io_ref().plain().is_some();
                let session = Talk::new(shared.clone(), pass, encoding, caller, is_plain);
                talk(framed, session, bytes_max, answer, shared.stream.patience(), seat)
            }
            What::Overview => {
                let whose = Query::<Whose>::from_query(request.uri().query().unwrap_or_default());
                let (Ok(whose), Some(place)) = (whose, shared.overviews.sit()) else {
                    drop(seat);
                    return self.answer(request, framed);
                };
                drop(request);
                let viewer = Viewer::new(shared.clone(), pass, whose.into_inner(), place);
                talk(framed, viewer, bytes_max, answer, shared.stream.patience(), seat)
            }
        }
    }
}

/// What is said over a websocket, by its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Stream,
    Echo,
    Overview,
}

impl What {
    fn of(path: &str) -> Option<Self> {
        match path {
            "/v1/stream" => Some(Self::Stream),
            "/v1/echo" => Some(Self::Echo),
            overview::PATH => Some(Self::Overview),
            _ => None,
        }
    }

    const fn dialects(self) -> Dialects {
        match self {
            Self::Stream => Dialects::All,
            Self::Echo => Dialects::None,
            Self::Overview => Dialects::Json,
        }
    }

    /// Largest message of a client.
    fn message_bytes_max(self, shared: &Shared) -> usize {
        match self {
            Self::Stream => shared.stream.message_bytes_max(),
            Self::Echo => ECHO_BYTES_MAX,
            Self::Overview => overview::MESSAGE_BYTES_MAX,
        }
    }
}

/// Lives until the connection has ended.
fn talk<T, S>(
    framed: Framed<T, Codec>,
    session: S,
    bytes_max: usize,
    answer: Bytes,
    patience: Patience,
    seat: Seat,
) -> Answering
where
    T: Socket,
    S: Session + 'static,
{
    let parts = framed.into_parts();
    let (io, unread) = (parts.io, parts.read_buf.to_vec());
    let reader = Reader::new(MessageLimits::of(bytes_max));
    let connection = Connection::new(io, session, reader, answer, unread, patience);
    Box::pin(async move {
        let end = run(connection, |waker| seat.stopping(waker)).await;
        seat.leave(end);
        Ok(())
    })
}

type Answering = Pin<Box<dyn Future<Output = Result<(), Broken>>>>;

impl<A, B> Upgrade<A>
where
    A: actix_service::Service<Request, Response = ServiceResponse<B>> + 'static,
    A::Error: Into<Response<BoxBody>>,
    B: MessageBody,
{
    /// What HTTP says to it.
    fn answer<T>(&self, request: Request, framed: Framed<T, Codec>) -> Answering
    where
        T: Socket,
    {
        let answer = self.app.call(request);
        in_time(self.shared.config().deadline.max, async move {
            match answer.await {
                Ok(response) => respond(framed, response.into()).await,
                Err(error) => respond(framed, error.into()).await,
            }
        })
    }
}

/// To somebody who may not open a websocket.
fn refused<T>(framed: Framed<T, Codec>, problem: Problem, within: Duration) -> Answering
where
    T: Socket,
{
    let mut answer: Response<BoxBody> = problem.error_response().into();
    guard::seal(answer.headers_mut(), None, false);
    in_time(within, respond(framed, answer))
}

fn in_time(within: Duration, answered: impl Future<Output = Result<(), Broken>> + 'static) -> Answering {
    let broken = |_| Broken("the answer was not taken in time".to_owned());
    Box::pin(async move { tokio::time::timeout(within, answered).await.map_err(broken)? })
}

/// Writes an answer and hangs up: what follows a refused upgrade may be anything.
async fn respond<T: Socket>(
    framed: Framed<T, Codec>,
    mut response: Response<impl MessageBody>,
) -> Result<(), Broken> {
    let broken = |error: std::io::Error| Broken(error.to_string());
    let FramedParts { mut io, mut codec, write_buf: mut out, .. } = framed.into_parts();
    response.head_mut().set_connection_type(ConnectionType::Close);
    let (response, body) = response.into_parts();
    codec.encode(Message::Item((response, body.size())), &mut out).map_err(broken)?;
    let mut body = std::pin::pin!(body);
    while let Some(chunk) = poll_fn(|cx| body.as_mut().poll_next(cx)).await {
        let chunk = chunk.map_err(|_| Broken("the answer broke off".to_owned()))?;
        codec.encode(Message::Chunk(Some(chunk)), &mut out).map_err(broken)?;
        io.write_all_buf(&mut out).await.map_err(broken)?;
    }
    codec.encode(Message::Chunk(None), &mut out).map_err(broken)?;
    io.write_all_buf(&mut out).await.map_err(broken)?;
    io.shutdown().await.map_err(broken)
}
