//! Websockets: `GET /v1/stream` and `GET /v1/echo`; also those that watch a node, which `overview` speaks for.
//!
//! `upgrade` takes the socket out of HTTP's hands, `ws` is RFC 6455, `connection` is one socket, `session` what is
//! said over it, `fanout` writes what many sleeping ones are to get; `ops` reads and `print` writes the messages. Predictions come from the hub as ready frames.

mod connection;
mod echo;
mod fanout;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzzing;
mod handshake;
mod message_pack;
mod ops;
mod port;
mod print;
mod session;
mod state;
mod timer;
mod upgrade;
mod writer;
mod ws;

use actix_web::web::{self, Data};
use actix_web::{HttpRequest, HttpResponse};
use bytes::Bytes;

use super::error::{Problem, Refusal};
use super::{Shared, get};
use crate::security::Denied;
pub(super) use handshake::{Dialects, agree};
pub(crate) use handshake::{NoHandshake, VERSION};
pub(crate) use state::{LagReader, Streams, hub};
pub(crate) use upgrade::Upgrade;
use ws::{Opcode, POLICY, frame};

/// Answers those who do not get a websocket.
pub(super) fn routes(config: &mut web::ServiceConfig) {
    get(config, "/v1/stream", refuse_stream);
    get(config, "/v1/echo", refuse_echo);
}

pub(crate) use connection::Socket;
pub(super) use port::{Message, Outbox, Session};
pub(super) use ws::CloseReason;

/// A text message as one frame.
pub(super) fn text_frame(text: &[u8]) -> Bytes {
    frame(Opcode::Text, text)
}

/// To somebody who may do less than when the websocket was opened.
pub(super) fn denied(denied: Denied) -> CloseReason {
    match denied {
        Denied::Expired => CloseReason::new(POLICY, "the API key has expired"),
        _ => CloseReason::new(POLICY, "the API key was revoked, or may do less now"),
    }
}

async fn refuse_stream(shared: Data<Shared>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    refuse(&shared, &request, Dialects::All)
}

async fn refuse_echo(shared: Data<Shared>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    refuse(&shared, &request, Dialects::None)
}

fn refuse(shared: &Shared, request: &HttpRequest, dialects: Dialects) -> Result<HttpResponse, Problem> {
    handshake::agree(request.head(), dialects).map_err(Refusal::from)?;
    Err(Refusal::NoSeat { connections_max: shared.stream.limits().connections_max }.into())
}
