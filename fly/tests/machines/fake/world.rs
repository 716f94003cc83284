//! The platform in virtual time, and a transport that leads there without a socket.

use std::sync::Arc;
use std::time::Duration;

use std::sync::Mutex;

use peregrine_fly::machines::{
    AppName, Client, FlyPool, HttpRequest, HttpResponse, MachineConfig, PoolSpec, Template, Token, Transport,
    TransportError,
};
use peregrine_scaler::Timestamp;
use serde_json::{Value, json};

use super::{APP, Fake, ORG, TOKEN};

/// A Saturday.
pub(crate) const BEGIN_SECOND: i64 = 1_795_867_200;
/// The cluster of all tests.
pub(crate) const CLUSTER: &str = "test";
/// What its machines run.
pub(crate) const RELEASE: &str = "v1";

/// A platform and its clock, shared by those who call it.
#[derive(Clone)]
pub(crate) struct World {
    shared: Arc<Mutex<(Timestamp, Fake)>>,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let begin = Timestamp::from_second(BEGIN_SECOND).expect("a time");
        Self { shared: Arc::new(Mutex::new((begin, Fake::new(seed)))) }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.shared.lock().expect("no test thread died in it").0
    }

    /// Lets time pass.
    pub(crate) fn pass(&self, time: Duration) -> Timestamp {
        let mut shared = self.shared.lock().expect("no test thread died in it");
        shared.0 = shared.0.checked_add(time).expect("a time");
        let now = shared.0;
        shared.1.advance(now);
        now
    }

    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut Fake, Timestamp) -> T) -> T {
        let mut shared = self.shared.lock().expect("no test thread died in it");
        let (now, fake) = &mut *shared;
        act(fake, *now)
    }

    pub(crate) fn client(&self) -> Client {
        let app = AppName::new(APP).expect("a name");
        Client::new(Box::new(Direct(self.clone())), app, Token::new(TOKEN).expect("a token"))
    }

    /// A pool with one template for each group.
    pub(crate) fn pool(&self, groups: &[(&str, Duration)]) -> FlyPool {
        FlyPool::new(self.client(), spec(groups)).expect("the templates are good")
    }
}

/// Templates that differ in their group alone.
pub(crate) fn spec(groups: &[(&str, Duration)]) -> PoolSpec {
    let templates = groups.iter().map(|(group, drain)| Template {
        group: (*group).to_owned(),
        release: RELEASE.to_owned(),
        config: config(json!({})),
        drain: *drain,
    });
    PoolSpec { cluster: CLUSTER.to_owned(), org: Some(ORG.to_owned()), templates: templates.collect() }
}

/// A configuration of a small machine with a service, and what else is given.
pub(crate) fn config(rest: Value) -> MachineConfig {
    let mut whole = json!({
        "image": "registry.fly.io/peregrine-test:v1",
        "guest": { "cpu_kind": "shared", "cpus": 1, "memory_mb": 512 },
        "services": [{ "protocol": "tcp", "internal_port": 8080, "autostop": "off", "autostart": false,
            "ports": [{ "port": 443, "handlers": ["tls", "http"] }] }],
        "checks": { "alive": { "type": "http", "port": 8080, "path": "/health/live", "interval": "10s" } },
        "restart": { "policy": "on-failure", "max_retries": 2 },
    });
    let rest = rest.as_object().expect("an object").clone();
    whole.as_object_mut().expect("an object").extend(rest);
    serde_json::from_value(whole).expect("it is one")
}

/// Leads to the platform of a world.
struct Direct(World);

impl Transport for Direct {
    fn send(&mut self, request: HttpRequest) -> Result<HttpResponse, TransportError> {
        self.0.with(|fake, now| fake.handle(now, &request))
    }
}
