//! What the fake does, row by row of `machines-api.json`: the pool is only as well tested as the fake is faithful.
//!
//! Each test names its row.

mod lifecycle;
mod refusals;

use std::time::Duration;

use peregrine_fly::machines::{HttpRequest, Method};
use serde_json::{Value, json};

use super::fake::world::World;
use super::fake::{APP, TOKEN};

/// Asks the platform; the fake's limits are off unless a test is about them.
struct Ask {
    world: World,
    token: &'static str,
    app: &'static str,
}

impl Ask {
    fn new(seed: u64) -> Self {
        let world = World::new(seed);
        world.with(|fake, _| fake.settings.has_limits = false);
        Self { world, token: TOKEN, app: APP }
    }

    fn raw(&self, method: Method, target: &str, nonce: Option<&str>, body: Option<&Value>) -> (u16, Value) {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let mut headers = vec![("authorization", self.token.to_owned())];
        headers.extend(nonce.map(|nonce| ("fly-machine-lease-nonce", nonce.to_owned())));
        let request = HttpRequest {
            method,
            path: path.to_owned(),
            query: pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            headers,
            body: body.map(|body| body.to_string().into_bytes()),
        };
        let answer = self.world.with(|fake, now| fake.handle(now, &request)).expect("it answers");
        (answer.status, serde_json::from_slice(&answer.body).unwrap_or(Value::Null))
    }

    fn get(&self, rest: &str) -> (u16, Value) {
        self.raw(Method::Get, &format!("/v1/apps/{}/machines{rest}", self.app), None, None)
    }

    fn post(&self, rest: &str, body: &Value) -> (u16, Value) {
        self.raw(Method::Post, &format!("/v1/apps/{}/machines{rest}", self.app), None, Some(body))
    }

    fn act(&self, method: Method, rest: &str, nonce: Option<&str>) -> (u16, Value) {
        self.raw(method, &format!("/v1/apps/{}/machines{rest}", self.app), nonce, None)
    }

    fn create(&self, rest: Value) -> String {
        let (status, machine) = self.post("", &order(rest));
        assert_eq!(status, 200, "{machine}");
        machine["id"].as_str().expect("an id").to_owned()
    }

    fn state(&self, id: &str) -> String {
        self.get(&format!("/{id}")).1["state"].as_str().expect("a state").to_owned()
    }

    /// Lets time pass until it is in that state; all states on the way, each once.
    fn until(&self, id: &str, state: &str) -> Vec<String> {
        let mut states: Vec<String> = Vec::new();
        for _ in 0..2000 {
            let seen = self.state(id);
            if states.last() != Some(&seen) {
                states.push(seen.clone());
            }
            if seen == state {
                return states;
            }
            self.world.pass(Duration::from_millis(50));
        }
        panic!("{id} did not become {state} but {states:?}");
    }

    fn started(&self) -> String {
        let id = self.create(json!({}));
        self.until(&id, "started");
        id
    }

    fn stopped(&self) -> String {
        let id = self.started();
        assert_eq!(self.act(Method::Post, &format!("/{id}/stop"), None).0, 200);
        self.until(&id, "stopped");
        id
    }
}

fn order(rest: Value) -> Value {
    let mut whole = json!({ "region": "iad", "config": { "image": "i",
        "guest": { "cpu_kind": "shared", "cpus": 1, "memory_mb": 256 } } });
    whole.as_object_mut().expect("an object").extend(rest.as_object().expect("an object").clone());
    whole
}
