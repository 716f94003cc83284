//! HTTP: routes, bodies, wire forms and errors. Asks [`System`](peregrine_actors::System) and prints what it answers.
//!
//! Decides nothing about batching, breaking or devices. Every body is bounded before it is read, every answer that
//! is not a success carries one sentence in the form its route promises.

mod alerts;
mod app;
mod audit;
mod body;
mod cluster;
pub mod codec;
pub(crate) mod coding;
mod error;
mod fractions;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod glimpse;
mod guard;
mod health;
mod json;
mod load;
mod members;
mod meter;
mod metrics;
mod neural;
mod numbers;
mod openapi;
pub(crate) mod overview;
mod query;
mod replay;
mod scaler;
mod scorecard;
mod series;
pub(crate) mod stream;
mod symbols;
mod ticks;
pub(crate) mod tls;
mod traced;
mod v1;
mod v2;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix_http::error::DispatchError;
use actix_http::{ConnectionType, HttpService, Protocol, Request};
use actix_server::{GracefulShutdownSignal, ServerBuilder};
use actix_service::{
    IntoServiceFactory, Service as _, ServiceFactory, ServiceFactoryExt, apply_fn_factory, fn_factory,
    fn_service, map_config,
};
use actix_web::body::MessageBody;
use actix_web::dev::{AppConfig, Server, ServiceRequest, ServiceResponse};
use actix_web::error::InternalError;
use actix_web::middleware::{self, Next};
use actix_web::{App, HttpRequest, HttpResponse, ResponseError, web};
use peregrine_actors::Trace;
use tokio::net::TcpStream;

pub(crate) use app::{Shared, SharedParts};
pub(crate) use load::{follow_releases, keep_releases};
pub(crate) use meter::{BOUNDS_S, FINE_BOUNDS_S, Served};
pub use tls::TlsError;
pub(crate) use tls::{Tls, TlsRoom};

use error::{Problem, ProtocolError, Refusal};
use meter::Route;

use crate::busy;
use crate::config::ServerConfig;
use crate::dashboard;

/// Binds the address and starts the workers; the server runs while it is awaited.
///
/// As actix-web's own server does, but requests to upgrade are handed out, so that websockets are ours, and so is TLS.
pub(crate) fn bind(config: &ServerConfig, shared: web::Data<Shared>) -> io::Result<(Server, SocketAddr)> {
    let listener = listener(config.listen)?;
    let addr = listener.local_addr()?;
    let builder = ServerBuilder::default();
    let stopping = builder.graceful_shutdown_signal();
    let streams = Arc::clone(&shared.stream);
    let stopped = stopping.clone();
    actix_web::rt::spawn(async move {
        stopped.notified().await;
        streams.stop();
    });
    let acceptor = shared.tls.as_ref().map(Tls::acceptor).transpose().map_err(io::Error::other)?;
    let serving = Serving {
        shared,
        stopping,
        addr,
        keep_alive: config.keep_alive,
        patience: config.header_timeout,
        busy_poll: config.busy_poll,
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if !config.busy_poll.is_zero() && busy::is_crowded(config.workers, cores) {
        tracing::warn!(
            workers = config.workers,
            cores,
            "threads that look for work (server.busy_poll) have no core each: set server.workers below the cores"
        );
    }
    let builder = builder
        .workers(config.workers)
        .max_concurrent_connections(config.connections_max.div_ceil(config.workers))
        .disable_signals()
        .shutdown_timeout(config.drain.as_secs().max(1));
    let builder = match acceptor {
        None => builder.listen("http", listener, move || {
            serving.watch_loop();
            let open = |socket: TcpStream| async move {
                let peer = opened(&socket);
                Ok::<_, DispatchError>((socket, Protocol::Http1, peer))
            };
            fn_service(open).and_then(serving.http())
        })?,
        Some(acceptor) => builder.listen("https", listener, move || {
            serving.watch_loop();
            let (acceptor, patience) = (acceptor.clone(), serving.patience);
            let open = move |socket: TcpStream| {
                let acceptor = acceptor.clone();
                async move {
                    let peer = opened(&socket);
                    let stream = tls::shake(&acceptor, socket, patience).await.map_err(DispatchError::Io)?;
                    Ok((stream, Protocol::Http1, peer))
                }
            };
            fn_service(open).and_then(serving.http())
        })?,
    };
    Ok((builder.run(), addr))
}

/// What every connection is served by.
#[derive(Clone)]
struct Serving {
    shared: web::Data<Shared>,
    stopping: GracefulShutdownSignal,
    addr: SocketAddr,
    keep_alive: Duration,
    /// With a handshake, and with the header of a request.
    patience: Duration,
    /// How long a worker looks for more work; zero: it does not.
    busy_poll: Duration,
}

/// A connection as HTTP takes it.
type Opened<T> = (T, Protocol, Option<SocketAddr>);

impl Serving {
    /// Called by each worker, in its loop, when it starts.
    fn watch_loop(&self) {
        self.shared.loops.watch("gateway", &self.shared.clock);
        if !self.busy_poll.is_zero() {
            let (looked, clock) = (Arc::clone(&self.shared.live.looked), self.shared.clock.clone());
            drop(actix_web::rt::spawn(busy::look(self.busy_poll, looked, clock))); // it ends with its loop
        }
    }

    fn http<T: stream::Socket>(
        &self,
    ) -> impl ServiceFactory<Opened<T>, Config = (), Response = (), Error = DispatchError, InitError = ()> + use<T>
    {
        let (shared, upgraded, stopping) = (self.shared.clone(), self.shared.clone(), self.stopping.clone());
        let (expecting, counts) = (self.shared.clone(), self.shared.clone());
        let service = HttpService::build()
            .graceful_shutdown_signal(move || {
                let signal = stopping.clone();
                async move { signal.notified().await }
            })
            .keep_alive(self.keep_alive)
            .client_request_timeout(self.patience)
            .client_disconnect_timeout(DISCONNECT_TIMEOUT)
            .h1_allow_half_closed(false) // a client that goes away has its work dropped
            .local_addr(self.addr)
            .expect(fn_service(move |request: Request| expected(expecting.clone(), request)))
            .upgrade(fn_factory(move || {
                let shared = upgraded.clone();
                async move {
                    let app = app(shared.clone()).new_service(()).await?;
                    Ok::<_, ()>(stream::Upgrade::new(app, shared))
                }
            }))
            .finish(app(shared));
        counted(service, counts)
    }
}

/// Who asks before it sends a body (`Expect: 100-continue`) is not told to send one that would be refused for its length.
async fn expected(shared: web::Data<Shared>, request: Request) -> Result<Request, HttpResponse> {
    let bytes_max = shared.config().server.body_bytes_max;
    let Err(error) = body::announced(&request.head().headers, bytes_max) else {
        return Ok(request);
    };
    let mut answer = in_form_of(request.path(), error.into());
    guard::seal(answer.headers_mut(), None, false);
    shared.meter.record(Route::of(request.path()), answer.status().as_u16(), Duration::ZERO);
    Err(answer)
}

/// Counts each connection while it is served: what the service returns ends with it, a websocket's too.
fn counted<F, T>(
    service: F,
    shared: web::Data<Shared>,
) -> impl ServiceFactory<Opened<T>, Config = (), Response = (), Error = DispatchError, InitError = ()>
where
    F: ServiceFactory<Opened<T>, Config = (), Response = (), Error = DispatchError, InitError = ()>,
{
    apply_fn_factory(service, move |opened: Opened<T>, service: &F::Service| {
        let (connected, served) = (Connected::new(shared.clone()), service.call(opened));
        async move {
            let _connected = connected;
            served.await
        }
    })
}

/// Counts a connection for as long as the task that serves it.
struct Connected(web::Data<Shared>);

impl Connected {
    fn new(shared: web::Data<Shared>) -> Self {
        shared.meter.connections.fetch_add(1, Ordering::Relaxed);
        Self(shared)
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.meter.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Who is at the other end. Small answers are not held back.
fn opened(socket: &TcpStream) -> Option<SocketAddr> {
    let _ = socket.set_nodelay(true); // on a connection that is gone already
    socket.peer_addr().ok()
}

/// Of the listening socket.
const BACKLOG: i32 = 1024;
/// How long a connection that is closed may take to go.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(1);

fn listener(addr: SocketAddr) -> io::Result<std::net::TcpListener> {
    let domain = socket2::Domain::for_address(addr);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// The routes as HTTP serves them.
fn app(
    shared: web::Data<Shared>,
) -> impl ServiceFactory<
    Request,
    Config = (),
    Response = ServiceResponse<impl MessageBody + 'static>,
    Error = actix_web::HttpResponse,
    InitError = (),
    Service = impl actix_service::Service<
        Request,
        Response = ServiceResponse<impl MessageBody + 'static>,
        Error = actix_web::HttpResponse,
        Future = impl Future + 'static,
    > + 'static,
> {
    let app = App::new().wrap(middleware::from_fn(guarded)).app_data(shared).configure(routes);
    map_config(app.into_factory().map_err(|error: actix_web::Error| error.error_response()), move |()| {
        AppConfig::default()
    })
}

/// Every route of a node.
pub(crate) fn routes(config: &mut web::ServiceConfig) {
    config.app_data(web::QueryConfig::default().error_handler(|error, request| {
        let answer = refuse(request, Refusal::query("what /openapi.json says of this path", &error, request));
        InternalError::from_response(error, answer).into()
    }));
    v2::routes(config);
    v1::routes(config);
    neural::routes(config);
    series::routes(config);
    cluster::routes(config);
    overview::routes(config);
    scaler::routes(config);
    scorecard::routes(config);
    audit::routes(config);
    stream::routes(config);
    health::routes(config);
    alerts::routes(config);
    metrics::routes(config);
    openapi::routes(config);
    dashboard::routes(config);
    config.default_service(web::to(no_such_path));
}

/// Lets the request in or not, counts it, and tells browsers what they must not do.
async fn guarded(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    busy::worked();
    let shared = request.app_data::<web::Data<Shared>>().cloned();
    let route = Route::of(request.path());
    let start = shared.as_ref().map(|shared| shared.clock.now());
    let span = match (&shared, start) {
        (Some(shared), Some(start)) => match &shared.telemetry {
            Some(telemetry) => traced::begin(telemetry, &request, route, start),
            None => Trace::default(),
        },
        _ => Trace::default(),
    };
    let rules = shared.as_ref().map(|shared| shared.security.rules());
    let sharing = rules.as_ref().and_then(|rules| guard::sharing(rules, request.headers()));
    let admitted = match &shared {
        _ if sharing.is_some()
            && let Some(answer) = guard::preflight(request.head()) =>
        {
            Err(answer)
        }
        Some(shared) => guard::admit(shared, &request)
            .and_then(|()| query::refuse_unknown(request.match_info().as_str(), request.query_string()))
            .map_err(|refusal| refuse(request.request(), refusal)),
        None => Ok(()),
    };
    let offers_upgrade = request.head().upgrade();
    let mut response = match admitted {
        Ok(()) => coding::coded(next.call(request).await?).await.map_into_left_body(),
        Err(answer) => request.into_response(answer).map_into_right_body(),
    };
    if offers_upgrade {
        // To HTTP/2, as some clients do each time. It is not taken, and HTTP hangs up after the answer: unsaid, the next
        // request would be sent into a connection that is closing.
        response.response_mut().head_mut().set_connection_type(ConnectionType::Close);
    }
    guard::seal(response.headers_mut(), sharing, rules.is_some_and(|rules| rules.shares()));
    if let (Some(shared), Some(start)) = (shared, start) {
        let now = shared.clock.now();
        let took = now.saturating_duration_since(start);
        shared.meter.record(route, response.status().as_u16(), took);
        if let Some(context) = span.context() {
            shared.meter.exemplify(route, took, context, shared.clock.wall());
            traced::end(&shared, &span, &mut response, (start, now));
        }
    }
    Ok(response)
}

async fn no_such_path(request: HttpRequest) -> HttpResponse {
    refuse(&request, Refusal::NoSuchPath)
}

/// In the form that the path's readers expect.
fn refuse(request: &HttpRequest, refusal: Refusal) -> HttpResponse {
    in_form_of(request.path(), refusal)
}

fn in_form_of(path: &str, refusal: Refusal) -> HttpResponse {
    if path == "/v2" || path.starts_with("/v2/") {
        ProtocolError(refusal).error_response()
    } else {
        Problem(refusal).error_response()
    }
}

/// Paths that begin alike, with a name that is no word of ours: the pattern is compiled, and compared, once for all of them.
fn below(config: &mut web::ServiceConfig, path: &str, routes: impl FnOnce(&mut web::ServiceConfig)) {
    config.service(web::scope(path).configure(routes));
}

/// A path that answers GET (and HEAD) only.
pub(crate) fn get<F, Args>(config: &mut web::ServiceConfig, path: &str, handler: F)
where
    F: actix_web::Handler<Args>,
    Args: actix_web::FromRequest + 'static,
    F::Output: actix_web::Responder + 'static,
{
    let resource = web::resource(path).route(web::get().to(handler.clone())).route(web::head().to(handler));
    config.service(resource.default_service(web::to(only_get)));
}

/// A path that answers POST only.
fn post<F, Args>(config: &mut web::ServiceConfig, path: &str, handler: F)
where
    F: actix_web::Handler<Args>,
    Args: actix_web::FromRequest + 'static,
    F::Output: actix_web::Responder + 'static,
{
    config.service(web::resource(path).route(web::post().to(handler)).default_service(web::to(only_post)));
}

/// A path that answers GET (and HEAD) and POST only.
fn get_or_post<G, GetArgs, P, PostArgs>(config: &mut web::ServiceConfig, path: &str, get: G, post: P)
where
    G: actix_web::Handler<GetArgs>,
    GetArgs: actix_web::FromRequest + 'static,
    G::Output: actix_web::Responder + 'static,
    P: actix_web::Handler<PostArgs>,
    PostArgs: actix_web::FromRequest + 'static,
    P::Output: actix_web::Responder + 'static,
{
    let resource = web::resource(path).route(web::get().to(get.clone())).route(web::head().to(get));
    config.service(resource.route(web::post().to(post)).default_service(web::to(only_get_or_post)));
}

async fn only_get(request: HttpRequest) -> HttpResponse {
    refuse(&request, Refusal::Method { allow: "GET, HEAD" })
}

async fn only_get_or_post(request: HttpRequest) -> HttpResponse {
    refuse(&request, Refusal::Method { allow: "GET, HEAD, POST" })
}

async fn only_post(request: HttpRequest) -> HttpResponse {
    refuse(&request, Refusal::Method { allow: "POST" })
}

#[cfg(test)]
mod tests;
