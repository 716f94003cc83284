//! Fly's Machines API as a pure state machine: requests and clock readings in, answers out.
//!
//! Written from `machines-api.json` (own notes on `superfly/fly-go`, `superfly/flyctl`, Fly's documentation and a
//! generated client as of 2026-08), with plain JSON, so that it shares no type with the client it tests. What those
//! notes leave open is marked `open:` where it is decided.

pub(crate) mod answers;
pub(crate) mod faults;
pub(crate) mod guests;
pub(crate) mod lifecycle;
pub(crate) mod machine;
pub(crate) mod of_machine;
pub(crate) mod routes;
pub(crate) mod socket;
pub(crate) mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use peregrine_fly::machines::{HttpRequest, HttpResponse, Method, TransportError};
use peregrine_scaler::Timestamp;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use answers::{fails, succeeds};
use faults::{Fault, Injection};
use machine::FakeMachine;
use routes::{Route, route};

/// The app that the token is for.
pub(crate) const APP: &str = "peregrine-test";
/// An app of another organisation.
pub(crate) const FOREIGN_APP: &str = "somebody-elses";
/// Its organisation.
pub(crate) const ORG: &str = "peregrine-org";
/// The only token.
pub(crate) const TOKEN: &str = "FlyV1 fm2_test";

/// How this one behaves.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// 429 when called too often.
    pub(crate) has_limits: bool,
    /// How often a start changes the private address.
    pub(crate) moves_share: f64,
    /// A machine that was destroyed can be read for so long.
    pub(crate) forgets_after: Duration,
    /// A change that is stuck goes on after so long.
    pub(crate) stuck_for: Duration,
    /// Version of the app's secrets.
    pub(crate) secrets_version: u64,
    /// A destroy of a machine that runs is refused without force. open: from memory, so both can be had.
    pub(crate) destroy_needs_stop: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            has_limits: true,
            moves_share: 0.2,
            forgets_after: Duration::from_secs(30 * 60),
            stuck_for: Duration::from_secs(8 * 60),
            secrets_version: 3,
            destroy_needs_stop: true,
        }
    }
}

/// Something that was asked of a machine or became of it, for tests to judge.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) at: Timestamp,
    pub(crate) machine: String,
    pub(crate) name: String,
    pub(crate) what: What,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum What {
    Created,
    Became(&'static str),
    Cordoned,
    Uncordoned,
    /// Asked to stop, while its process ran since then or not at all; cordoned since then.
    StopAsked {
        up_since: Option<Timestamp>,
        cordoned_at: Option<Timestamp>,
        timeout: Option<Duration>,
    },
    /// Asked to go, while it did this.
    DestroyAsked {
        state: &'static str,
        by_force: bool,
    },
}

/// The platform.
pub(crate) struct Fake {
    pub(crate) settings: Settings,
    pub(crate) log: Vec<Entry>,
    pub(crate) injections: Vec<Injection>,
    pub(crate) machines: BTreeMap<String, FakeMachine>,
    /// Machines that may run in a region; one that is not named takes any number.
    pub(crate) capacity: BTreeMap<String, u32>,
    pub(crate) apps: BTreeSet<String>,
    /// Calls by action and status.
    pub(crate) calls: BTreeMap<(&'static str, u16), u64>,
    /// Injected faults that came to pass.
    pub(crate) faults: u64,
    chance: StdRng,
    buckets: BTreeMap<(&'static str, String), (f64, Timestamp)>,
    /// What becomes of the machine that the present call changes.
    twist: Option<Fault>,
}

impl Fake {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            settings: Settings::default(),
            log: Vec::new(),
            injections: Vec::new(),
            machines: BTreeMap::new(),
            capacity: BTreeMap::new(),
            apps: BTreeSet::from([APP.to_owned(), FOREIGN_APP.to_owned()]),
            calls: BTreeMap::new(),
            faults: 0,
            chance: StdRng::seed_from_u64(seed),
            buckets: BTreeMap::new(),
            twist: None,
        }
    }

    /// Answers a request, or does not.
    pub(crate) fn handle(
        &mut self,
        now: Timestamp,
        request: &HttpRequest,
    ) -> Result<HttpResponse, TransportError> {
        self.advance(now);
        let Some(route) = route(request) else {
            return Ok(fails(404, "404 page not found"));
        };
        let answer = self.answer(now, request, &route);
        let status = answer.as_ref().map_or(0, |answer| answer.status);
        *self.calls.entry((route.action, status)).or_default() += 1;
        self.advance(now);
        answer
    }

    fn answer(
        &mut self,
        now: Timestamp,
        request: &HttpRequest,
        route: &Route,
    ) -> Result<HttpResponse, TransportError> {
        let fault = self.draw(route.action, route.machine.as_deref());
        if fault == Some(Fault::Unreached) {
            return Err(TransportError::NotSent("connection refused"));
        }
        if let Some(refusal) = self.authorize(request, route) {
            return Ok(refusal);
        }
        if self.settings.has_limits && !self.take_token(route, now) {
            return Ok(fails(429, "rate limit exceeded"));
        }
        match fault {
            None | Some(Fault::Unreached) => Ok(self.carry_out(now, request, route)),
            Some(Fault::Refused(status, body)) => Ok(HttpResponse { status, body: body.into_bytes() }),
            Some(Fault::Status { status, happens }) => {
                if happens {
                    self.carry_out(now, request, route);
                }
                Ok(fails(status, "upstream"))
            }
            Some(Fault::Lost { happens }) => {
                if happens {
                    self.carry_out(now, request, route);
                }
                Err(TransportError::Lost("connection lost"))
            }
            Some(Fault::Garbled) => {
                let mut answer = self.carry_out(now, request, route);
                answer.body.truncate(answer.body.len() / 2);
                answer.body.push(b'{');
                Ok(answer)
            }
            Some(twist) => {
                self.twist = Some(twist);
                let answer = self.carry_out(now, request, route);
                self.twist = None;
                Ok(answer)
            }
        }
    }

    /// `auth` of the notes.
    fn authorize(&self, request: &HttpRequest, route: &Route) -> Option<HttpResponse> {
        match request.header("authorization") {
            // A token with the other word before it is taken as well.
            Some(TOKEN | "Bearer fm2_test") => {}
            _ => return Some(fails(401, "unauthenticated")),
        }
        match route.app.as_deref() {
            Some(FOREIGN_APP) => Some(fails(403, "unauthorized")),
            Some(app) if !self.apps.contains(app) => Some(fails(404, "app not found")),
            _ => None,
        }
    }

    /// `rate_limits`: keyed by action and machine, or by the app where no machine is named.
    fn take_token(&mut self, route: &Route, now: Timestamp) -> bool {
        let (per_second, burst) = if route.action == "get" { (5.0, 10.0) } else { (1.0, 3.0) };
        let key = (route.action, route.machine.clone().unwrap_or_default());
        let (tokens, at) = self.buckets.get(&key).copied().unwrap_or((burst, now));
        let filled = (tokens + now.duration_since(at).as_secs_f64().max(0.0) * per_second).min(burst);
        let is_enough = filled >= 1.0 - 1e-9; // what sums of fractions lose
        self.buckets.insert(key, (if is_enough { filled - 1.0 } else { filled }, at.max(now)));
        is_enough
    }

    fn carry_out(&mut self, now: Timestamp, request: &HttpRequest, route: &Route) -> HttpResponse {
        let body: Option<Value> = match &request.body {
            None => None,
            Some(bytes) => match serde_json::from_slice(bytes) {
                Ok(body) => Some(body),
                Err(error) => return fails(400, &error.to_string()),
            },
        };
        let Some(id) = &route.machine else { return self.of_app(now, request, route, body) };
        let is_shown = self.machines.get(id).is_some_and(|machine| machine.shown_from <= now);
        if !is_shown {
            return fails(404, "machine not found");
        }
        self.of_machine(now, request, route, id, body)
    }

    fn of_app(
        &mut self,
        now: Timestamp,
        request: &HttpRequest,
        route: &Route,
        body: Option<Value>,
    ) -> HttpResponse {
        match (request.method, route.action) {
            (_, "list") => self.list(now, request),
            (_, "create") => match body {
                Some(body) => self.create(now, &body),
                None => fails(400, "EOF"),
            },
            (Method::Get, "app") => {
                succeeds(200, &json!({ "name": route.app, "machine_count": self.live().count() }))
            }
            (Method::Post, "app") => self.create_app(body),
            (_, "placements") => match body {
                Some(body) => self.placements(&body),
                None => fails(400, "EOF"),
            },
            (_, "regions") => answers::regions(),
            _ => fails(405, "method not allowed"),
        }
    }

    /// `accept name or app_name`; 422 `name_taken`.
    fn create_app(&mut self, body: Option<Value>) -> HttpResponse {
        let Some(body) = body else { return fails(400, "EOF") };
        let name = body.get("name").or_else(|| body.get("app_name")).and_then(Value::as_str);
        match name {
            None => fails(400, "name is missing"),
            Some(name) if !self.apps.insert(name.to_owned()) => {
                answers::fails_with(422, "name_taken", "Name has already been taken")
            }
            Some(name) => succeeds(201, &json!({ "id": name, "created_at": 0 })),
        }
    }

    fn list(&self, now: Timestamp, request: &HttpRequest) -> HttpResponse {
        let query = |name: &str| {
            let found = request.query.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
        };
        let is_set = |name: &str| query(name) == Some("true");
        let words: Vec<(&str, &str)> = request
            .query
            .iter()
            .filter_map(|(name, value)| Some((name.strip_prefix("metadata.")?, value.as_str())))
            .collect();
        let fits = |machine: &&FakeMachine| {
            machine.shown_from <= now
                && (is_set("include_deleted") || !machine.is_gone())
                && query("region").is_none_or(|region| region == machine.region)
                && query("state").is_none_or(|states| states.split(',').any(|state| state == machine.state))
                // open: a machine whose host cannot be reached has no configuration to be searched.
                && words.iter().all(|(key, value)| machine.is_reachable() && machine.metadata(key) == Some(value))
        };
        let shown = self.machines.values().filter(fits).map(|machine| {
            let mut shown = machine.shown(now, is_set("include_leases"));
            if is_set("summary") {
                shown["config"] = Value::Null;
            }
            shown
        });
        succeeds(200, &Value::Array(shown.collect()))
    }

    /// `placements`: how many more machines each region of the expression takes.
    fn placements(&self, body: &Value) -> HttpResponse {
        if body["org_slug"] != ORG {
            return fails(403, "unauthorized");
        }
        if let Some(refusal) = body.get("compute").and_then(guests::refusal) {
            return refusal;
        }
        let asked = guests::regions(body["region"].as_str().unwrap_or("any"));
        let count = |region: &str| self.room(region).unwrap_or(100);
        let wanted = body["count"].as_u64().unwrap_or(0);
        let regions = asked.iter().filter(|region| u64::from(count(region)) >= wanted).map(
            |region| json!({ "region": region, "count": count(region), "concurrency": count(region).min(10) }),
        );
        succeeds(200, &json!({ "regions": regions.collect::<Vec<_>>() }))
    }

    /// Machines that are not gone.
    pub(crate) fn live(&self) -> impl Iterator<Item = &FakeMachine> {
        self.machines.values().filter(|machine| !machine.is_gone())
    }

    /// The machine of that name that is not gone.
    pub(crate) fn named(&self, name: &str) -> Option<&FakeMachine> {
        self.live().find(|machine| machine.name == name)
    }

    pub(crate) fn room(&self, region: &str) -> Option<u32> {
        let capacity = *self.capacity.get(region)?;
        let uses = |machine: &&FakeMachine| machine.region == region && machine.uses_host();
        let used = u32::try_from(self.live().filter(uses).count()).expect("few machines");
        Some(capacity.saturating_sub(used))
    }

    pub(crate) fn note(&mut self, at: Timestamp, id: &str, what: What) {
        let name = self.machines.get(id).map(|machine| machine.name.clone()).unwrap_or_default();
        self.log.push(Entry { at, machine: id.to_owned(), name, what });
    }

    pub(crate) fn hex(&mut self, digits: usize) -> String {
        (0..digits).map(|_| format!("{:x}", self.chance.random_range(0..16_u8))).collect()
    }

    /// 26 characters of which the first eleven are the time.
    pub(crate) fn ulid(&mut self, now: Timestamp) -> String {
        format!("{:011X}", now.as_millisecond()) + &self.hex(15).to_uppercase()
    }

    pub(crate) fn millis(&mut self, range: [u64; 2]) -> Duration {
        Duration::from_millis(self.chance.random_range(range[0]..=range[1]))
    }

    pub(crate) fn happens(&mut self, share: f64) -> bool {
        self.chance.random_bool(share.clamp(0.0, 1.0))
    }
}
