//! What every worker shares: the system, the clock, the series, the repositories and the counters.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use actix_web::http::header::HeaderMap;
use actix_web::web;
use peregrine_actors::scorecard::Scorecard;
use peregrine_actors::{
    Forecast, ForecastError, ForecastRequest, Health, ModelStatus, Names, Origin, Subject, System,
};
use peregrine_fly::Identity;
use peregrine_runtime::watchdog::Watch;
use peregrine_runtime::{Address, Clock, Cluster, Deadline, NodeId, Region, TreeView};
use peregrine_shaders::Windows;

use super::body::{self, Body, BodyError, BodyLimits, Budget};
use super::error::Refusal;
use super::meter::{Admitted, Meter};
use super::overview::Board;
use super::replay::Replays;
use super::stream::Streams;
use super::tls::Tls;
use crate::alerts::{Alerts, Loops, LostNodes};
use crate::audit::AuditRecords;
use crate::cluster::{OwnCertificate, elsewhere, servers};
use crate::config::Config;
use crate::demo::Demo;
use crate::journal::TickJournal;
use crate::models::Refusals;
use crate::releases::Releases;
use crate::reload::{Current, Reload};
use crate::scaler::{LatestPicture, ToScaler, Told};
use crate::security::Security;
use crate::series::Started;
use crate::series_store::SeriesStore;
use crate::telemetry::Telemetry;

/// Shared by all workers of a node.
pub(crate) struct Shared {
    parts: SharedParts,
    pub(crate) meter: Meter,
    pub(super) replays: Replays,
    started: Instant,
    pub(crate) bodies: Budget,
    /// Held over a whole load.
    pub(super) loads: tokio::sync::Mutex<()>,
    /// Of the cluster.
    pub(crate) lost_nodes: LostNodes,
}

/// What a node has started before its gateway; read as parts of [`Shared`].
pub(crate) struct SharedParts {
    pub(crate) system: System,
    /// Versions in the repositories that are not served, and why.
    pub(crate) refusals: Refusals,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) series: SeriesStore,
    /// The series that ticks feed.
    pub(crate) live: Started,
    pub(crate) current: Current,
    pub(crate) reload: Arc<Reload>,
    /// `None`: this node is alone.
    pub(crate) cluster: Option<Cluster>,
    /// What Fly says of the Machine that this node of a cluster runs on; `None`: it runs elsewhere.
    pub(crate) platform: Option<Identity>,
    /// Over the system's actors.
    pub(crate) watch: Watch,
    pub(crate) alerts: Arc<Alerts>,
    /// Those of the gateway's workers, and the node's own.
    pub(crate) loops: Arc<Loops>,
    /// Whether the driver of a device can be asked how it fares.
    pub(crate) has_meters: bool,
    pub(crate) stream: Arc<Streams>,
    /// `None`: plain HTTP.
    pub(crate) tls: Option<Arc<Tls>>,
    /// That other nodes are shown; `None`: there are none, or they know this one by a secret.
    pub(crate) certificate: Option<Arc<OwnCertificate>>,
    /// Who may do what.
    pub(crate) security: Arc<Security>,
    pub(crate) scorecard: Arc<Scorecard>,
    /// `None`: windows do not survive the node.
    pub(crate) journal: Option<Arc<TickJournal>>,
    /// `None`: predictions are not recorded.
    pub(crate) records: Option<Arc<AuditRecords>>,
    /// `None`: releases end with the node.
    pub(crate) releases: Option<Releases>,
    /// `None`: nothing is traced.
    pub(crate) telemetry: Option<Arc<Telemetry>>,
    /// Ends with the node.
    pub(crate) demo: Option<Demo>,
    /// What the scaler has told this node.
    pub(crate) told: Arc<Told>,
    /// What the scaler shows while it acts on this node.
    pub(crate) picture: LatestPicture,
    /// Wherever it acts; `None`: this node is alone.
    pub(crate) scaler: Option<Address<ToScaler>>,
    /// The newest overview of this node.
    pub(crate) overviews: Arc<Board>,
    /// Supervised actors beside the system's, by what they do.
    pub(crate) trees: Vec<(&'static str, TreeView)>,
}

impl std::ops::Deref for Shared {
    type Target = SharedParts;

    fn deref(&self) -> &SharedParts {
        &self.parts
    }
}

impl Shared {
    pub(crate) fn new(parts: SharedParts) -> Self {
        let started = parts.clock.now();
        let (meter, replays, bodies) = (Meter::default(), Replays::default(), Budget::default());
        let (loads, lost_nodes) = (tokio::sync::Mutex::default(), LostNodes::default());
        Self { parts, meter, replays, started, bodies, loads, lost_nodes }
    }

    /// The configuration in use; a request asks once where two of its steps must agree.
    pub(crate) fn config(&self) -> Arc<Config> {
        self.current.get()
    }

    /// How long this node has been up.
    pub(crate) fn uptime(&self) -> Duration {
        self.clock.now().saturating_duration_since(self.started)
    }

    /// How long the certificates of this node are good for, in seconds, by the port that shows them; negative: since when
    /// no longer.
    pub(crate) fn certificates(&self, now: SystemTime) -> impl Iterator<Item = (&'static str, f64)> {
        let public = self.tls.as_ref().map(|tls| tls.remaining_seconds(now));
        let cluster = self.certificate.as_ref().and_then(|own| own.remaining_seconds(now));
        [("public", public), ("cluster", cluster)].into_iter().filter_map(|(port, left)| Some((port, left?)))
    }

    /// How late timers of each event loop are, by its name.
    pub(crate) fn lags(&self, now: Instant, health: &Health) -> Vec<(String, Duration)> {
        let mut lags = self.loops.lags(now);
        lags.push(("actors".to_owned(), health.actor_lag));
        lags
    }

    pub(crate) async fn body(
        &self,
        headers: &HeaderMap,
        payload: &mut web::Payload,
    ) -> Result<Body, BodyError> {
        let config = self.config();
        let limits = BodyLimits {
            bytes_max: config.server.body_bytes_max,
            together_max: config.server.bodies_bytes_max,
            within: config.deadline.max,
        };
        body::read(headers, payload, limits, &self.bodies).await
    }

    pub(crate) fn admit(&self) -> Result<Admitted<'_>, Refusal> {
        let requests_max = self.config().server.in_flight_max;
        self.meter.admit(requests_max).ok_or(Refusal::TooManyInFlight { requests_max })
    }

    /// What the caller wished, within what the node allows.
    pub(crate) fn deadline(&self, wished: Option<Duration>) -> Deadline {
        Deadline::after(self.clock.now(), self.time_for(wished))
    }

    pub(super) fn time_for(&self, wished: Option<Duration>) -> Duration {
        let limits = &self.config().deadline;
        wished.map_or(limits.default, |wished| wished.min(limits.max))
    }

    pub(crate) async fn forecast(
        &self,
        model: &ModelStatus,
        version: Option<u32>,
        windows: Windows,
        deadline: Deadline,
        origin: Origin,
        subject: Subject,
    ) -> Result<Forecast, ForecastError> {
        let model = model.spec.name.clone();
        // What else this thread has at hand is read first: one request after the other would never share a batch.
        tokio::task::yield_now().await;
        let is_alone = self.meter.in_flight() <= 1;
        let request = ForecastRequest { model, version, windows, deadline, origin, subject, is_alone };
        self.system.forecast(request).await
    }

    /// What an answer is called where it is recorded; asked for only if it is.
    pub(crate) fn subject(&self, names: impl FnOnce() -> Names) -> Subject {
        self.records.as_ref().map_or(Subject::Unnamed, |_| Subject::Named(Box::new(names())))
    }

    /// The model of a native request: named, configured, or the first by name.
    pub(crate) async fn model(
        &self,
        name: Option<&str>,
        version: Option<u32>,
    ) -> Result<Arc<ModelStatus>, Refusal> {
        let default = self.config().models.default.clone();
        if let Some(name) = name.or(default.as_deref()) {
            return Ok(self.located(name, version).await?);
        }
        let own = self.system.models().into_iter().map(|model| model.spec.name.clone()).min();
        let first = own.or_else(|| self.elsewhere().into_keys().next().map(|(model, _)| model));
        Ok(self.located(&first.ok_or(Refusal::NoModel)?, version).await?)
    }

    /// A model that is ready, here or on another node. One that nobody serves and that was refused here is not unknown.
    pub(crate) async fn located(
        &self,
        model: &str,
        version: Option<u32>,
    ) -> Result<Arc<ModelStatus>, ForecastError> {
        let located = self.system.locate(model, version, self.deadline(None)).await;
        located.map_err(|error| match error {
            ForecastError::UnknownModel(_) | ForecastError::UnknownVersion { .. } => {
                self.refusals.told(model, version).unwrap_or(error)
            }
            error => error,
        })
    }

    /// Models that other nodes serve, by name and version, with the regions of these.
    pub(crate) fn elsewhere(&self) -> BTreeMap<(String, u32), BTreeSet<Region>> {
        self.cluster.as_ref().map_or_else(BTreeMap::new, |cluster| elsewhere(&cluster.view(), cluster.id()))
    }

    /// Why an order about a model (and `version` if named) that this node does not serve is refused: other nodes do, or
    /// it is unknown.
    pub(crate) fn not_served(&self, model: &str, version: Option<u32>) -> Refusal {
        let model = model.to_owned();
        if let Some(cluster) = &self.cluster {
            let view = cluster.view();
            let nodes: Vec<&str> =
                servers(&view, cluster.id(), &model, version).map(NodeId::as_str).collect();
            if !nodes.is_empty() {
                let what = version.map_or_else(String::new, |version| format!("version {version} of "));
                return Refusal::ServedElsewhere { what: format!("{what}`{model}`"), nodes: some(&nodes) };
            }
        }
        match version {
            Some(version) => ForecastError::UnknownVersion { model, version }.into(),
            None => ForecastError::UnknownModel(model).into(),
        }
    }

    /// Whether a node is in this one's cluster.
    pub(crate) fn is_member(&self, node: &NodeId) -> bool {
        let view = self.cluster.as_ref().map(Cluster::view);
        view.is_some_and(|view| view.members.values().any(|member| member.id == *node))
    }

    /// Whether another node serves it as well.
    pub(crate) fn is_elsewhere(&self, model: &ModelStatus) -> bool {
        self.elsewhere().contains_key(&(model.spec.name.clone(), model.version))
    }

    /// Refuses the name of a model that no known node serves and no repository of this node holds.
    /// `version`: that one alone, which may also have been scored here before it went.
    pub(crate) async fn known(&self, model: &str, version: Option<u32>) -> Result<(), Refusal> {
        let is_it = |name: &str, of: u32| name == model && version.is_none_or(|version| version == of);
        let mut is_model = false;
        let mut holds = |name: &str, of: u32| {
            is_model |= name == model;
            is_it(name, of)
        };
        let is_known = self.system.models().iter().any(|one| holds(&one.spec.name, one.version))
            || self.elsewhere().keys().any(|(name, of)| holds(name, *of))
            || self.scorecard.scored().iter().any(|(name, of, _)| is_it(name, *of))
            // One that cannot be read holds nothing that could be asked about.
            || self.repository().await.unwrap_or_default().iter().any(|entry| holds(&entry.name, entry.version));
        let model = model.to_owned();
        match version {
            _ if is_known => Ok(()),
            Some(version) if is_model => Err(ForecastError::UnknownVersion { model, version }.into()),
            _ => Err(ForecastError::UnknownModel(model).into()),
        }
    }
}

/// The first of many names.
fn some(names: &[&str]) -> String {
    const NAMED_MAX: usize = 8;
    let named = names[..names.len().min(NAMED_MAX)].join(", ");
    if names.len() > NAMED_MAX { format!("{named}, …") } else { named }
}

pub(crate) fn unix_millis(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
