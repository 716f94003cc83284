//! Every route that exists, one line of the table each.

/// One operation: method, path, tag, summary, request schema, answer schema, further statuses.
pub(in crate::gateway) struct Operation {
    pub(in crate::gateway) method: &'static str,
    pub(in crate::gateway) path: &'static str,
    pub(super) tag: &'static str,
    pub(super) summary: &'static str,
    pub(super) request: Option<&'static str>,
    pub(super) answer: &'static str,
    pub(super) refusals: &'static [u16],
}

const fn operation(
    method: &'static str,
    path: &'static str,
    tag: &'static str,
    summary: &'static str,
    request: Option<&'static str>,
    answer: &'static str,
    refusals: &'static [u16],
) -> Operation {
    Operation { method, path, tag, summary, request, answer, refusals }
}

pub(super) const FORECASTING: &[u16] = &[400, 404, 408, 413, 415, 422, 429, 503, 504];
/// It takes no query.
const PLAIN: &[u16] = &[400];
const NAMED: &[u16] = &[400, 404];
/// It may be another node's, which is away or slow.
const LOCATED: &[u16] = &[400, 404, 503, 504];
/// A body is read, to be refused.
const BODILESS: &[u16] = &[400, 404, 408, 413, 415, 429];
const ORDERS: &[u16] = &[400, 404, 408, 409, 413, 415, 429, 503];
const WEBSOCKET: &[u16] = &[400, 426, 503];
const READY: &[u16] = &[503];
pub(super) const V2: &str = "open inference protocol";
pub(super) const V1: &str = "native";
pub(super) const OLD: &str = "compatibility";
pub(super) const OBSERVE: &str = "observe";

/// Everything that is served. A test asks each of them.
pub(in crate::gateway) const OPERATIONS: &[Operation] = &[
    operation("get", "/v2", V2, "Server metadata", None, "ServerMetadata", &[]),
    operation("get", "/v2/health/live", V2, "Can the process answer at all", None, "Live", READY),
    operation("get", "/v2/health/ready", V2, "Can every model answer", None, "ServerReady", READY),
    operation("get", "/v2/models/stats", V2, "Statistics of all models", None, "Statistics", &[]),
    operation("get", "/v2/models/{model}", V2, "Model metadata", None, "ModelMetadata", LOCATED),
    operation("get", "/v2/models/{model}/ready", V2, "Does the model serve", None, "ModelReady", LOCATED),
    operation("get", "/v2/models/{model}/config", V2, "Model configuration", None, "Any", LOCATED),
    operation("get", "/v2/models/{model}/stats", V2, "Statistics of a model", None, "Statistics", LOCATED),
    operation(
        "post",
        "/v2/models/{model}/infer",
        V2,
        "Inference",
        Some("InferRequest"),
        "InferResponse",
        FORECASTING,
    ),
    operation(
        "get",
        "/v2/models/{model}/versions/{version}",
        V2,
        "Version metadata",
        None,
        "ModelMetadata",
        LOCATED,
    ),
    operation(
        "get",
        "/v2/models/{model}/versions/{version}/ready",
        V2,
        "Does it serve",
        None,
        "ModelReady",
        LOCATED,
    ),
    operation(
        "get",
        "/v2/models/{model}/versions/{version}/config",
        V2,
        "Version configuration",
        None,
        "Any",
        LOCATED,
    ),
    operation(
        "get",
        "/v2/models/{model}/versions/{version}/stats",
        V2,
        "Its statistics",
        None,
        "Statistics",
        LOCATED,
    ),
    operation(
        "post",
        "/v2/models/{model}/versions/{version}/infer",
        V2,
        "Inference by a version",
        Some("InferRequest"),
        "InferResponse",
        FORECASTING,
    ),
    operation(
        "post",
        "/v2/repository/index",
        V2,
        "Models that could serve",
        Some("IndexRequest"),
        "Index",
        &[400],
    ),
    operation(
        "post",
        "/v2/repository/models/{model}/load",
        V2,
        "Load or reload",
        Some("Any"),
        "Nothing",
        &[400, 404, 409, 501, 503],
    ),
    operation("post", "/v2/repository/models/{model}/unload", V2, "Unload", Some("Any"), "Nothing", NAMED),
    operation(
        "post",
        "/v1/forecast",
        V1,
        "Forecast series",
        Some("ForecastRequest"),
        "Forecasts",
        FORECASTING,
    ),
    operation("get", "/v1/models", V1, "Models served and in the repositories", None, "Any", PLAIN),
    operation("get", "/v1/models/{model}", V1, "One model", None, "Model", LOCATED),
    operation(
        "post",
        "/v1/models/{model}/load",
        V1,
        "Load or reload what the repositories hold of it, and the ensembles that name it; a version whose folder is gone is unloaded",
        None,
        "Model",
        ORDERS,
    ),
    operation("post", "/v1/models/{model}/unload", V1, "Unload", None, "Unloaded", BODILESS),
    operation(
        "post",
        "/v1/models/{model}/split",
        V1,
        "Versions answer by weight who names none; no weights: the highest version answers again",
        Some("Split"),
        "Released",
        ORDERS,
    ),
    operation(
        "post",
        "/v1/models/{model}/canary",
        V1,
        "A version gets more and more traffic, and becomes the stable one or is taken back",
        Some("Canary"),
        "Released",
        ORDERS,
    ),
    operation(
        "post",
        "/v1/models/{model}/shadow",
        V1,
        "A version is asked what others answer, and compared; without a version none is any more",
        Some("Shadow"),
        "Released",
        ORDERS,
    ),
    operation(
        "post",
        "/v1/models/{model}/promote",
        V1,
        "A version answers everything; the canary, unless one is named",
        Some("Promote"),
        "Released",
        ORDERS,
    ),
    operation(
        "post",
        "/v1/models/{model}/rollback",
        V1,
        "The stable version answers everything, or if it does already the one before it",
        None,
        "Released",
        ORDERS,
    ),
    operation("get", "/v1/config", V1, "Configuration in use, with origins", None, "Configuration", PLAIN),
    operation(
        "post",
        "/v1/config",
        V1,
        "Change keys until the next restart or SIGHUP: all of them or none",
        Some("ConfigurationText"),
        "Changed",
        &[400, 408, 409, 413, 415],
    ),
    operation("get", "/v1/breakers", V1, "Circuit breakers", None, "Any", PLAIN),
    operation(
        "post",
        "/v1/breakers",
        V1,
        "Decide about circuit breakers: auto, forced-open, disabled, metrics-only",
        Some("Any"),
        "Any",
        &[400, 404, 408, 409, 413, 415],
    ),
    operation(
        "get",
        "/v1/scaler/report",
        V1,
        "The fleet: what there is, what was decided and why, what it costs",
        None,
        "Any",
        &[400, 503],
    ),
    operation(
        "post",
        "/v1/scaler/release",
        V1,
        "What the machines of a group are to run from now on; the former release stays ready to go back",
        Some("Any"),
        "Any",
        &[400, 408, 413, 415, 503],
    ),
    operation(
        "post",
        "/v1/ticks",
        V1,
        "Feed observations, one JSON object a line; 200 when all are safe; all may be sent again",
        Some("Tick"),
        "Ticked",
        &[400, 408, 413, 415, 422, 429, 503, 507],
    ),
    operation(
        "get",
        "/v1/series",
        V1,
        "Which series were fed, a page at a time, on all nodes; ?pattern=&after=&limit= choose",
        None,
        "SeriesList",
        &[400, 429],
    ),
    operation("get", "/v1/series/{name}", V1, "What is kept of a series", None, "Series", &[400, 404, 503]),
    operation(
        "get",
        "/v1/stream",
        V1,
        "Websocket: subscribe to predictions and feed ticks, in JSON or MessagePack",
        None,
        "Websocket",
        WEBSOCKET,
    ),
    operation("get", "/v1/echo", V1, "Websocket: says what it hears", None, "Websocket", WEBSOCKET),
    operation(
        "get",
        "/v1/scorecard",
        V1,
        "How good the predictions that this node has scored were; ?model=&version=&series= choose, steps=true goes by step \
         ahead",
        None,
        "Any",
        NAMED,
    ),
    operation("get", "/v1/alerts", V1, "What is wrong now, what was, and by which rules", None, "Any", PLAIN),
    operation(
        "get",
        "/v1/audit",
        V1,
        "Where the chain of recorded predictions ends: kept elsewhere, it shows whether that was rewritten",
        None,
        "Any",
        PLAIN,
    ),
    operation(
        "get",
        "/v1/audit/{id}",
        V1,
        "A recorded prediction: by prediction_id, the id of a V2 request, or model/series#seq@epoch, escaped; without @epoch the newest of that name",
        None,
        "Record",
        &[400, 404, 503],
    ),
    operation(
        "get",
        "/v1/overview",
        V1,
        "A node at one glance: rates, percentiles, models, devices, actors, alerts; ?node= asks another one",
        None,
        "Any",
        &[400, 404, 503, 504],
    ),
    operation(
        "get",
        "/v1/overview/stream",
        V1,
        "Websocket: the overview at once, then the newest of it every second, without the history",
        None,
        "Websocket",
        WEBSOCKET,
    ),
    operation("get", "/v1/cluster", V1, "Nodes of the cluster and what they serve", None, "Any", PLAIN),
    operation(
        "post",
        "/neural/predict",
        OLD,
        "Forecast a symbol",
        Some("Predict"),
        "Prediction",
        FORECASTING,
    ),
    operation(
        "post",
        "/neural/batch_predict",
        OLD,
        "Forecast symbols",
        Some("BatchPredict"),
        "Predictions",
        FORECASTING,
    ),
    operation("get", "/health", OBSERVE, "Health with reasons", None, "Any", READY),
    operation("get", "/health/live", OBSERVE, "Is the process worth keeping", None, "Live", READY),
    operation("get", "/health/ready", OBSERVE, "Can it answer", None, "Any", READY),
    operation("get", "/health/startup", OBSERVE, "Was it ready once", None, "Any", READY),
    operation("get", "/health/gpu", OBSERVE, "Is the GPU that was asked for up", None, "Any", READY),
    operation("get", "/health/cluster", OBSERVE, "Members and their state", None, "Any", READY),
    operation("get", "/status", OBSERVE, "Everything in one", None, "Any", &[]),
    operation(
        "get",
        "/metrics",
        OBSERVE,
        "Prometheus text, or OpenMetrics for who accepts it",
        None,
        "Text",
        &[],
    ),
    operation("get", "/metrics/gpu", OBSERVE, "Devices", None, "Any", &[]),
    operation("get", "/openapi.json", OBSERVE, "This document", None, "Any", &[]),
    operation("get", "/docs", OBSERVE, "A browser for this document", None, "Html", &[]),
    operation("get", "/", OBSERVE, "The dashboard; it needs no key, what it shows does", None, "Html", &[]),
    operation("get", "/dashboard/{file}", OBSERVE, "A file of that page", None, "File", &[404]),
];

/// What may stand behind `?`: path, name, type.
pub(in crate::gateway) const QUERIES: &[(&str, &str, &str)] = &[
    ("/v1/ticks", "results", "boolean"),
    ("/v1/series", "pattern", "string"),
    ("/v1/series", "after", "string"),
    ("/v1/series", "limit", "integer"),
    ("/v1/series/{name}", "last", "integer"),
    ("/v1/models/{model}", "version", "integer"),
    ("/v1/models/{model}/unload", "version", "integer"),
    ("/v1/scorecard", "model", "string"),
    ("/v1/scorecard", "version", "integer"),
    ("/v1/scorecard", "series", "string"),
    ("/v1/scorecard", "steps", "boolean"),
    ("/v1/overview", "node", "string"),
    ("/v1/overview/stream", "node", "string"),
];

/// What is said over the stream.
pub(super) const STREAM: &str = "\
    Every message is one object with `op`, in JSON text or, under `peregrine.v1.msgpack`, MessagePack.\n\n\
    Client: `subscribe` {id, model, series: [names, with `*` for any run of characters], levels?: [80], from?: the first \
    number wanted, for all series or by name, epoch?: of the number before it, snapshot?: true, conflate?: true}; \
    `unsubscribe` {id}; `ping` {id?}; `tick` {id?, series, ts, value, …} or {id?, ticks: […]}, as `POST /v1/ticks` takes them.\n\n\
    Server: `subscribed` {id, channel, model, retention, matched, next?: the number by series that comes next, \
    left out where more than 1024 match, missing?: by series that was named and has no prediction yet, the observations it \
    is short of}; `snapshot` and `prediction` {model, series, seq, epoch, ts: of the newest observation, accepted_at?: when the tick came, where that is known, made_at: milliseconds since 1970, \
    horizon, mean? or median?, intervals, quantiles?: by level, those of no interval, model_version, backend, degraded, crossed?: true}; `gap` {model, series, from, to, reason: conflated | \
    expired | failed | lost}; `ticked` {id?, results}; `unsubscribed`; `pong`; `heartbeat`; `error` {id?, code, detail}; \
    `goodbye` {reconnect_after_ms, why}, before a close that was planned.\n\n\
    Of two predictions with one `seq` the higher `epoch` counts.";
