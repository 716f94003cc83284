//! Every refusal of the gateway: one status and one sentence, in the two forms that routes answer with.
//!
//! Native routes answer RFC 9457 problem details, `/v2` the protocol's own error object.

use std::fmt;
use std::time::Duration;

use actix_web::error::QueryPayloadError;
use actix_web::http::StatusCode;
use actix_web::http::header::{
    ALLOW, CONTENT_TYPE, RETRY_AFTER, SEC_WEBSOCKET_VERSION, UPGRADE, WWW_AUTHENTICATE,
};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, ResponseError};
use peregrine_actors::release::ReleaseRefused;
use peregrine_actors::series::Unready;
use peregrine_actors::stream::SourceError;
use peregrine_actors::{ForecastError, TooManyOrders};
use peregrine_shaders::WindowError;

use super::body::BodyError;
use super::json::JsonError;
use super::query::misread;
use super::series::BadTicks;
use super::stream::{NoHandshake, VERSION};
use super::ticks::parse::BadTick;
use super::v1::parse::BadForecast;
use super::v2::parse::BadInfer;
use crate::config::Scope;
use crate::reload::ReloadRefused;
use crate::security::Denied;
use crate::series_store::SymbolError;

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error(transparent)]
    Json(#[from] JsonError),
    #[error(transparent)]
    Infer(#[from] BadInfer),
    #[error(transparent)]
    Native(#[from] BadForecast),
    #[error(transparent)]
    Symbol(#[from] SymbolError),
    /// A series that was fed cannot be forecast as it is.
    #[error("symbol `{symbol}`: {source}")]
    Fed { symbol: String, source: Unready },
    #[error(transparent)]
    Forecast(#[from] ForecastError),
    /// A row of a native request, with the id the caller gave it.
    #[error("series `{series}`: {source}")]
    Series { series: String, source: ForecastError },
    #[error(transparent)]
    Handshake(#[from] NoHandshake),
    #[error("{connections_max} websockets are open already, or the node stops")]
    NoSeat { connections_max: usize },
    #[error("no such path")]
    NoSuchPath,
    #[error("this path answers {allow} only")]
    Method { allow: &'static str },
    #[error("a version is a number above zero, not `{0}`")]
    Version(String),
    #[error("the query may have {wanted}: {why}")]
    Query { wanted: &'static str, why: String },
    #[error("this path takes no body{0}")]
    NoBodyWanted(&'static str),
    #[error("no model `{0}` in the repository")]
    NotInRepository(String),
    #[error("{what} is not served here but by {nodes}: send the order to each of these nodes")]
    ServedElsewhere { what: String, nodes: String },
    #[error("this node computes nothing, it has not the role inference: send the order to one that has")]
    ComputesNothing,
    #[error("parameter `{0}` is not supported")]
    Unsupported(&'static str),
    #[error("the model cannot be loaded: {0}")]
    Load(String),
    #[error("the repositories cannot be read: {0}")]
    Repository(String),
    #[error("predictions are not recorded on this node: there is no audit.dir")]
    NotRecording,
    #[error("no prediction `{0}` is recorded on this node")]
    NoRecord(String),
    #[error("records cannot be read: {0}")]
    Records(String),
    /// The configuration in use stays.
    #[error(transparent)]
    Reload(ReloadRefused),
    #[error(transparent)]
    Orders(TooManyOrders),
    #[error("an order about breakers has {0}")]
    Order(&'static str),
    #[error("no breaker of this node is what the order means: GET /v1/breakers shows them")]
    NoBreaker,
    #[error("{0}")]
    Fleet(String),
    #[error("no scaler acts: set scaler.enabled on a node of this cluster")]
    NoScaler,
    #[error("nothing was read of this node yet: it has just started")]
    NoOverview,
    #[error("no node `{0}` is in this cluster")]
    NoSuchNode(String),
    #[error("node `{node}` does not answer: {why}")]
    NodeSilent { node: String, why: String },
    #[error("node `{0}` did not answer in time")]
    NodeLate(String),
    #[error(transparent)]
    Release(ReleaseRefused),
    #[error("no model is served")]
    NoModel,
    #[error("{requests_max} requests are in flight already")]
    TooManyInFlight { requests_max: usize },
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error("too many requests: there is room for one in {:.3} s", after.as_secs_f64())]
    RateLimited { after: Duration },
    #[error(transparent)]
    Ticks(BadTicks),
    #[error(transparent)]
    Source(SourceError),
}

impl Refusal {
    /// Of a query that does not read as what it may have.
    pub(super) fn query(wanted: &'static str, error: &QueryPayloadError, request: &HttpRequest) -> Self {
        let why = match error {
            QueryPayloadError::Deserialize(error) => error.to_string(),
            other => other.to_string(),
        };
        let why: String = why.chars().take(256).collect();
        let why = match misread(request.path(), request.query_string()) {
            Some(name) => format!("`{name}`: {why}"),
            None => why,
        };
        Self::Query { wanted, why }
    }

    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Body(BodyError::TooLarge { .. }) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Body(BodyError::Encoding(_)) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Body(BodyError::Slow { .. }) => StatusCode::REQUEST_TIMEOUT,
            Self::Body(BodyError::NoRoom) => StatusCode::TOO_MANY_REQUESTS,
            Self::Body(BodyError::Corrupt | BodyError::NotText | BodyError::Broken)
            | Self::Version(_)
            | Self::Query { .. }
            | Self::NoBodyWanted(_) => StatusCode::BAD_REQUEST,
            Self::Json(error)
            | Self::Infer(BadInfer::Json(error))
            | Self::Native(BadForecast::Json(error)) => json_status(error),
            Self::Infer(BadInfer::NoNumber { .. } | BadInfer::Unknown { .. }) => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            Self::Infer(_) => StatusCode::BAD_REQUEST,
            Self::Native(error) if error.is_malformed() => StatusCode::BAD_REQUEST,
            Self::Native(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Symbol(SymbolError::Unknown(_)) => StatusCode::NOT_FOUND,
            Self::Symbol(_) | Self::Fed { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Forecast(error) | Self::Series { source: error, .. } => forecast_status(error),
            Self::NoSuchPath
            | Self::NotInRepository(_)
            | Self::NotRecording
            | Self::NoRecord(_)
            | Self::NoBreaker
            | Self::NoSuchNode(_) => StatusCode::NOT_FOUND,
            Self::NodeLate(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::Method { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::Unsupported(_) => StatusCode::NOT_IMPLEMENTED,
            Self::Order(_) | Self::Fleet(_) | Self::Reload(ReloadRefused::Invalid(_)) => {
                StatusCode::BAD_REQUEST
            }
            Self::Release(ReleaseRefused::Numbers(_)) => StatusCode::BAD_REQUEST,
            Self::Release(ReleaseRefused::UnknownModel(_) | ReleaseRefused::NotReady { .. }) => {
                StatusCode::NOT_FOUND
            }
            Self::Release(ReleaseRefused::Unavailable) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Load(_)
            | Self::Reload(_)
            | Self::Orders(_)
            | Self::Release(_)
            | Self::ServedElsewhere { .. }
            | Self::ComputesNothing => StatusCode::CONFLICT,
            Self::NoModel
            | Self::NoScaler
            | Self::NoOverview
            | Self::NodeSilent { .. }
            | Self::Records(_)
            | Self::Repository(_)
            | Self::NoSeat { .. }
            | Self::Source(SourceError::Unavailable(_)) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Source(SourceError::UnknownModel(_) | SourceError::UnknownSeries(_)) => {
                StatusCode::NOT_FOUND
            }
            Self::Source(SourceError::Unsuitable(_)) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Ticks(BadTicks::TooMany) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Ticks(BadTicks::Line { source: BadTick::Json(error), .. }) => json_status(error),
            Self::Ticks(BadTicks::Line {
                source: BadTick::TooLarge { .. } | BadTick::NoNumber { .. },
                ..
            }) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Ticks(BadTicks::Line { .. } | BadTicks::None) => StatusCode::BAD_REQUEST,
            Self::Handshake(NoHandshake::NoUpgrade | NoHandshake::Version) => StatusCode::UPGRADE_REQUIRED,
            Self::Handshake(_) => StatusCode::BAD_REQUEST,
            Self::TooManyInFlight { .. } | Self::RateLimited { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Denied(Denied::NoKey { .. } | Denied::Unknown | Denied::Expired | Denied::Token(_)) => {
                StatusCode::UNAUTHORIZED
            }
            Self::Denied(Denied::Scope { .. } | Denied::Origin | Denied::Host) => StatusCode::FORBIDDEN,
        }
    }

    /// Whole seconds, as the header wants them.
    fn retry_after_s(&self) -> Option<u32> {
        match self {
            Self::Forecast(ForecastError::Overloaded { retry_after_ms }) => {
                Some(retry_after_ms.div_ceil(1000).max(1))
            }
            Self::TooManyInFlight { .. } | Self::NoSeat { .. } | Self::Body(BodyError::NoRoom) => Some(1),
            // Rounded up: whoever comes back then finds room.
            Self::RateLimited { after } => {
                Some(u32::try_from(after.as_millis().div_ceil(1000).max(1)).unwrap_or(u32::MAX))
            }
            _ => None,
        }
    }

    /// Which series is at fault, and where in it.
    fn place(&self) -> (Option<String>, Option<usize>) {
        match self {
            Self::Native(error) => error.place(),
            Self::Series { series, source } => (Some(series.clone()), index_of(source)),
            Self::Symbol(error) => (error.symbol().map(str::to_owned), None),
            Self::Fed { symbol, .. } => (Some(symbol.clone()), None),
            Self::Forecast(error @ ForecastError::Window(window)) => (row_of(window), index_of(error)),
            Self::Forecast(ForecastError::NotFinite { row }) => (Some(row.to_string()), None),
            Self::Ticks(BadTicks::Line {
                source: BadTick::TooLarge { series, .. } | BadTick::NoNumber { series, .. },
                ..
            }) => (Some(series.to_string()), None),
            _ => (None, None),
        }
    }

    fn begin(&self) -> HttpResponseBuilder {
        let mut response = HttpResponse::build(self.status());
        if let Some(seconds) = self.retry_after_s() {
            response.insert_header((RETRY_AFTER, seconds.to_string()));
        }
        if let Self::Method { allow } = self {
            response.insert_header((ALLOW, *allow));
        }
        if let Self::Handshake(NoHandshake::NoUpgrade | NoHandshake::Version) = self {
            response.insert_header((UPGRADE, "websocket")).insert_header((SEC_WEBSOCKET_VERSION, VERSION));
        }
        if let Self::Denied(denied) = self
            && let Some(challenge) = challenge(denied)
        {
            response.insert_header((WWW_AUTHENTICATE, challenge));
        }
        if matches!(self, Self::Body(_)) {
            response.force_close(); // what is left of the body is not worth reading
        }
        response
    }
}

/// RFC 6750: which key would do.
fn challenge(denied: &Denied) -> Option<String> {
    const REALM: &str = "Bearer realm=\"peregrine\"";
    match denied {
        Denied::NoKey { .. } => Some(REALM.to_owned()),
        Denied::Unknown | Denied::Expired | Denied::Token(_) => {
            Some(format!("{REALM}, error=\"invalid_token\""))
        }
        Denied::Scope { needed } => {
            let scopes: Vec<&str> = needed.iter().map(Scope::name).collect();
            Some(format!("{REALM}, error=\"insufficient_scope\", scope=\"{}\"", scopes.join(" ")))
        }
        Denied::Origin | Denied::Host => None,
    }
}

fn json_status(error: &JsonError) -> StatusCode {
    match error {
        JsonError::Infinite { .. } => StatusCode::UNPROCESSABLE_ENTITY,
        _ => StatusCode::BAD_REQUEST,
    }
}

fn forecast_status(error: &ForecastError) -> StatusCode {
    match error {
        ForecastError::UnknownModel(_) | ForecastError::UnknownVersion { .. } => StatusCode::NOT_FOUND,
        ForecastError::Window(_) | ForecastError::NotFinite { .. } => StatusCode::UNPROCESSABLE_ENTITY,
        ForecastError::TooManyRows { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        ForecastError::Overloaded { .. } => StatusCode::TOO_MANY_REQUESTS,
        ForecastError::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        ForecastError::NotReady(_) | ForecastError::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// The row that a forecast error speaks of.
pub(crate) fn row_at_fault(error: &ForecastError) -> Option<usize> {
    match error {
        ForecastError::Window(WindowError::NotFinite { row, .. } | WindowError::Mask { row, .. })
        | ForecastError::NotFinite { row } => Some(*row),
        _ => None,
    }
}

fn row_of(error: &WindowError) -> Option<String> {
    match error {
        WindowError::NotFinite { row, .. } | WindowError::Mask { row, .. } => Some(row.to_string()),
        WindowError::Empty | WindowError::Length { .. } => None,
    }
}

fn index_of(error: &ForecastError) -> Option<usize> {
    match error {
        ForecastError::Window(WindowError::NotFinite { index, .. } | WindowError::Mask { index, .. }) => {
            Some(*index)
        }
        _ => None,
    }
}

/// A refusal on a native route.
#[derive(Debug)]
pub(crate) struct Problem(pub(crate) Refusal);

/// A refusal on `/v2`.
#[derive(Debug)]
pub(crate) struct ProtocolError(pub(crate) Refusal);

impl<E: Into<Refusal>> From<E> for Problem {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl<E: Into<Refusal>> From<E> for ProtocolError {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.0.status()
    }

    fn error_response(&self) -> HttpResponse {
        let status = self.status_code();
        let mut problem = serde_json::json!({
            "type": "about:blank",
            "title": status.canonical_reason().unwrap_or("error"),
            "status": status.as_u16(),
            "detail": self.0.to_string(),
        });
        match &self.0 {
            Refusal::Reload(ReloadRefused::Invalid(error)) => {
                problem["mistakes"] = error.mistakes.iter().map(ToString::to_string).collect();
            }
            Refusal::Reload(ReloadRefused::Fixed { keys }) => problem["keys"] = keys.clone().into(),
            Refusal::Reload(ReloadRefused::Veto { room, .. }) => problem["room"] = (*room).into(),
            Refusal::Denied(Denied::NoKey { needed } | Denied::Scope { needed }) => {
                problem["scopes"] = needed.iter().map(Scope::name).collect();
            }
            _ => {}
        }
        let (series, index) = self.0.place();
        if let Some(series) = series {
            problem["series"] = series.into();
        }
        if let Some(index) = index {
            problem["index"] = index.into();
        }
        self.0.begin().insert_header((CONTENT_TYPE, "application/problem+json")).body(problem.to_string())
    }
}

impl ResponseError for ProtocolError {
    fn status_code(&self) -> StatusCode {
        self.0.status()
    }

    fn error_response(&self) -> HttpResponse {
        let body = serde_json::json!({ "error": self.0.to_string() });
        self.0.begin().insert_header((CONTENT_TYPE, "application/json")).body(body.to_string())
    }
}
