//! What the fake does, row by row of `machines-api.json`: the pool is only as well tested as the fake is faithful.
//!
//! Each test names its row.

use std::time::Duration;

use peregrine_fly::machines::{HttpRequest, Method};
use serde_json::{Value, json};

use super::fake::faults::Fault;
use super::fake::world::World;
use super::fake::{APP, FOREIGN_APP, ORG, TOKEN};

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

/// `auth`: 401 without a good token, 403 in another organisation, 404 without an app.
#[test]
fn who_may_ask() {
    let mut ask = Ask::new(1);
    assert_eq!(ask.get("").0, 200);
    ask.token = "Bearer fm2_test";
    assert_eq!(ask.get("").0, 200);
    ask.token = "Bearer wrong";
    assert_eq!(ask.get("").0, 401);
    (ask.token, ask.app) = (TOKEN, FOREIGN_APP);
    assert_eq!(ask.get(""), (403, json!({ "error": "unauthorized" })));
    ask.app = "nobodys";
    assert_eq!(ask.get(""), (404, json!({ "error": "app not found" })));
}

/// `errors_known` 400 EOF.
#[test]
fn a_body_that_is_missing_is_eof() {
    let ask = Ask::new(1);
    assert_eq!(ask.act(Method::Post, "", None), (400, json!({ "error": "EOF" })));
    let id = ask.started();
    assert_eq!(ask.act(Method::Post, &format!("/{id}"), None), (400, json!({ "error": "EOF" })));
}

/// `errors_known` 400 GPU; `guest_limits`.
#[test]
fn a_gpu_and_odd_guests_are_refused() {
    let ask = Ask::new(1);
    for guest in [
        json!({ "cpu_kind": "performance", "cpus": 8, "memory_mb": 32768, "gpus": 1 }),
        json!({ "cpu_kind": "performance", "cpus": 8, "memory_mb": 32768, "gpus": 0 }),
        json!({ "cpu_kind": "performance", "cpus": 8, "memory_mb": 32768, "gpu_kind": "l40s" }),
        json!({ "cpu_kind": "shared", "cpus": 3, "memory_mb": 768 }),
        json!({ "cpu_kind": "shared", "cpus": 1, "memory_mb": 300 }),
        json!({ "cpu_kind": "performance", "cpus": 1, "memory_mb": 1024 }),
    ] {
        let (status, body) = ask.post("", &order(json!({ "config": { "image": "i", "guest": guest } })));
        assert_eq!(status, 400, "{guest}: {body}");
    }
    assert_eq!(ask.post("", &order(json!({ "config": { "image": "i", "size": "a100-40gb" } }))).0, 400);
}

/// `types.Machine`, `compat_checklist`: both version and instance_id, autostop as a boolean.
#[test]
fn a_machine_is_shown_in_both_forms() {
    let ask = Ask::new(1);
    let services =
        json!([{ "internal_port": 1, "autostop": "off" }, { "internal_port": 2, "autostop": "suspend" }]);
    let id = ask.create(json!({ "name": "n", "config": { "image": "i", "services": services } }));
    let (_, machine) = ask.get(&format!("/{id}"));
    assert_eq!(id.len(), 14);
    assert_eq!(machine["version"], machine["instance_id"]);
    assert_eq!(machine["instance_id"].as_str().expect("a text").len(), 26);
    assert_eq!(machine["config"]["services"][0]["autostop"], json!(false));
    assert_eq!(machine["config"]["services"][1]["autostop"], json!("suspend"));
    assert_eq!((machine["host_status"].as_str(), machine["cordoned"].as_bool()), (Some("ok"), Some(false)));
}

/// `transitions`: create, create skip_launch, and starting from each.
#[test]
fn machines_come_to_be_by_and_by() {
    let ask = Ask::new(2);
    let id = ask.create(json!({}));
    assert_eq!(ask.until(&id, "started"), ["creating", "starting", "started"]);
    let spare = ask.create(json!({ "skip_launch": true }));
    assert_eq!(ask.until(&spare, "created"), ["creating", "created"]);
    assert_eq!(ask.act(Method::Post, &format!("/{spare}/start"), None).1["previous_state"], "created");
    assert_eq!(ask.until(&spare, "started"), ["starting", "started"]);
    let again = ask.act(Method::Post, &format!("/{spare}/start"), None);
    assert_eq!((again.0, &again.1["previous_state"]), (200, &json!("started")), "idempotent on started");
    let quiet = ask.create(json!({ "skip_service_registration": true }));
    assert_eq!(ask.get(&format!("/{quiet}")).1["cordoned"], json!(true), "starts cordoned");
}

/// `transitions`: created is not settled, 412.
#[test]
fn one_that_was_just_made_may_refuse_a_start() {
    let ask = Ask::new(3);
    ask.world.with(|fake, _| fake.inject("create", Fault::Unsettled(Duration::from_secs(5)), 1));
    let id = ask.create(json!({ "skip_launch": true }));
    ask.until(&id, "created");
    let refused = ask.act(Method::Post, &format!("/{id}/start"), None);
    let text = "unable to start machine from current state: 'created'";
    assert_eq!(refused, (412, json!({ "error": text })));
    ask.world.pass(Duration::from_secs(5));
    assert_eq!(ask.act(Method::Post, &format!("/{id}/start"), None).0, 200);
}

/// `transitions`: stop, stop of stopped, start of stopped, suspend, resume, stop of suspended, restart.
#[test]
fn machines_stop_suspend_and_start_again() {
    let ask = Ask::new(4);
    let id = ask.stopped();
    assert_eq!(ask.act(Method::Post, &format!("/{id}/stop"), None), (200, json!({ "ok": true })), "no-op");
    assert_eq!(ask.state(&id), "stopped");
    assert_eq!(ask.act(Method::Post, &format!("/{id}/start"), None).1["previous_state"], "stopped");
    assert_eq!(ask.until(&id, "started"), ["starting", "started"]);
    assert_eq!(ask.act(Method::Post, &format!("/{id}/suspend"), None).0, 200);
    assert_eq!(ask.until(&id, "suspended"), ["suspending", "suspended"]);
    assert_eq!(ask.act(Method::Post, &format!("/{id}/start"), None).1["previous_state"], "suspended");
    ask.until(&id, "started");
    assert_eq!(ask.act(Method::Post, &format!("/{id}/restart"), None).0, 200);
    assert_eq!(ask.until(&id, "started"), ["restarting", "started"]);
    ask.act(Method::Post, &format!("/{id}/suspend"), None);
    ask.until(&id, "suspended");
    ask.act(Method::Post, &format!("/{id}/stop"), None);
    assert_eq!(ask.until(&id, "stopped"), ["stopping", "stopped"]);
    let big = json!({ "image": "i", "guest": { "cpu_kind": "shared", "cpus": 2, "memory_mb": 4096 } });
    let big = ask.create(json!({ "config": big }));
    ask.until(&big, "started");
    ask.act(Method::Post, &format!("/{big}/suspend"), None);
    assert_eq!(ask.until(&big, "stopped"), ["suspending", "stopped"], "falls back");
}

/// `transitions`: delete of what runs 412, of what does not, by force or kill; destroyed machines stay readable; names
/// are reusable.
#[test]
fn machines_go_and_are_remembered_for_a_while() {
    let ask = Ask::new(5);
    let id = ask.create(json!({ "name": "inference-0" }));
    ask.until(&id, "started");
    assert_eq!(ask.act(Method::Delete, &format!("/{id}"), None).0, 412);
    let taken = ask.post("", &order(json!({ "name": "inference-0" })));
    let text = format!(
        "already_exists: unique machine name violation, machine ID {id} already exists with name \"inference-0\""
    );
    assert_eq!(taken, (409, json!({ "error": text })));
    ask.act(Method::Post, &format!("/{id}/stop"), None);
    ask.until(&id, "stopped");
    assert_eq!(ask.act(Method::Delete, &format!("/{id}"), None), (200, json!({ "ok": true })));
    assert_eq!(ask.until(&id, "destroyed"), ["destroying", "destroyed"]);
    assert_eq!(ask.get("").1, json!([]));
    assert_eq!(ask.get("?include_deleted=true").1.as_array().map(Vec::len), Some(1));
    assert_eq!(ask.act(Method::Post, &format!("/{id}/start"), None).0, 412);
    assert_eq!(ask.act(Method::Post, &format!("/{id}/lease"), None).0, 404);
    for word in ["force", "kill"] {
        let next = ask.create(json!({ "name": "inference-0" }));
        assert_ne!(next, id, "an id is not given again");
        ask.until(&next, "started");
        assert_eq!(ask.act(Method::Delete, &format!("/{next}?{word}=true"), None).0, 200);
        assert_eq!(ask.until(&next, "destroyed"), ["stopping", "destroying", "destroyed"]);
    }
    ask.world.pass(Duration::from_secs(31 * 60));
    assert_eq!(ask.get(&format!("/{id}")), (404, json!({ "error": "machine not found" })));
}

/// `transitions`: update; `compat_checklist`: version churn, `current_version`; wait honours the version.
#[test]
fn an_update_is_a_new_version() {
    let ask = Ask::new(6);
    let id = ask.started();
    let version = |ask: &Ask| ask.get(&format!("/{id}")).1["version"].as_str().expect("a text").to_owned();
    let old = version(&ask);
    let wrong = ask.post(&format!("/{id}"), &order(json!({ "current_version": "01OLD" })));
    assert_eq!(wrong.0, 412);
    let (status, reply) = ask.post(&format!("/{id}"), &order(json!({ "current_version": old })));
    assert_eq!((status, &reply["state"]), (200, &json!("replacing")));
    let new = version(&ask);
    assert_ne!(old, new);
    let meanwhile = ask.post(&format!("/{id}"), &order(json!({})));
    let text = "aborted: machine update failed due to concurrent update";
    assert_eq!(meanwhile, (409, json!({ "error": text })));
    assert_eq!(ask.until(&id, "started"), ["replacing", "starting", "started"]);
    assert_eq!(ask.get(&format!("/{id}/wait?state=started&version={new}")).0, 200);
    assert_eq!(ask.get(&format!("/{id}/wait?state=started&version={old}")).0, 408);
    assert_eq!(ask.get(&format!("/{id}/wait?state=started&instance_id={old}")).0, 408);
    assert_eq!(ask.get(&format!("/{id}/versions")).1.as_array().map(Vec::len), Some(2));
    let secrets = ask.post(&format!("/{id}"), &order(json!({ "min_secrets_version": 4 })));
    assert_eq!(secrets.0, 412);
    let stopped = ask.stopped();
    ask.post(&format!("/{stopped}"), &order(json!({})));
    assert_eq!(ask.until(&stopped, "stopped"), ["replacing", "stopped"]);
}

/// `endpoints` wait: 408 not reached, 400 out of range or unknown, default started, CSV and repeated, settled.
#[test]
fn a_wait_ends() {
    let ask = Ask::new(7);
    let id = ask.create(json!({}));
    assert_eq!(ask.get(&format!("/{id}/wait")).0, 408);
    ask.until(&id, "started");
    for (query, status) in [
        ("", 200),
        ("?state=stopped,started", 200),
        ("?state=stopped&state=started", 200),
        ("?state=settled", 200),
        ("?state=stopped", 408),
        ("?state=levitating", 400),
        ("?timeout=0", 400),
        ("?timeout=61", 400),
        ("?timeout=soon", 400),
    ] {
        assert_eq!(ask.get(&format!("/{id}/wait{query}")).0, status, "{query}");
    }
    assert_eq!(ask.get("/00000000000000/wait").0, 404);
}

/// `lease`: nonce, TTL in body or query, refresh keeps the nonce, 409 with who and until when, expiry, release.
#[test]
fn a_lease_guards_a_machine_for_its_time() {
    let ask = Ask::new(8);
    let id = ask.started();
    let lease = format!("/{id}/lease");
    assert_eq!(ask.get(&lease), (404, json!({ "error": "lease not found" })));
    let (status, taken) = ask.post(&lease, &json!({ "ttl": 10, "description": "test" }));
    let nonce = taken["data"]["nonce"].as_str().expect("a nonce").to_owned();
    let expires_at = ask.world.now().as_second() + 10;
    assert_eq!((status, taken["status"].as_str(), nonce.len()), (201, Some("success"), 12));
    assert_eq!(taken["data"]["expires_at"], json!(expires_at));
    let held = json!({ "status": "error", "code": "lease_currently_held", "message": "lease is currently held",
        "data": { "owner": ORG, "expires_at": expires_at } });
    assert_eq!(ask.post(&lease, &json!({})), (409, held.clone()));
    let mutations = ["stop", "start", "suspend", "restart", "signal", "cordon", "uncordon"];
    for action in mutations {
        assert_eq!(ask.act(Method::Post, &format!("/{id}/{action}"), None), (409, held.clone()), "{action}");
    }
    assert_eq!(ask.act(Method::Delete, &format!("/{id}"), Some("000000000000")), (409, held.clone()));
    assert_eq!(ask.post(&format!("/{id}"), &order(json!({}))), (409, held.clone()), "update");
    assert_eq!(ask.get(&lease).1["data"].get("nonce"), None, "a stranger does not see it");
    ask.world.pass(Duration::from_secs(5));
    let (status, renewed) = ask.act(Method::Post, &format!("{lease}?ttl=30"), Some(&nonce));
    assert_eq!((status, &renewed["data"]["nonce"]), (201, &json!(nonce)));
    assert_eq!(renewed["data"]["expires_at"], json!(ask.world.now().as_second() + 30));
    assert_eq!(ask.act(Method::Post, &format!("/{id}/cordon"), Some(&nonce)).0, 200);
    assert_eq!(ask.act(Method::Delete, &lease, Some("000000000000")).0, 409);
    assert_eq!(ask.act(Method::Delete, &lease, Some(&nonce)).0, 200);
    assert_eq!(ask.act(Method::Delete, &lease, Some(&nonce)).0, 404);
    ask.post(&lease, &json!({ "ttl": 1 }));
    ask.world.pass(Duration::from_secs(2));
    assert_eq!(
        ask.act(Method::Post, &format!("/{id}/uncordon"), None).0,
        200,
        "unguarded once it has run out"
    );
    let leased = ask.post("", &order(json!({ "lease_ttl": 20 }))).1;
    assert_eq!(leased["nonce"].as_str().map(str::len), Some(12), "a creation may come with one");
}

/// `rate_limits`: 1 per second and burst 3 by action and machine, 5 and 10 for reads; 429.
#[test]
fn too_many_calls_are_refused() {
    let ask = Ask::new(9);
    let (id, other) = (ask.started(), ask.started());
    ask.world.with(|fake, _| fake.settings.has_limits = true);
    let cordon = |id: &str| ask.act(Method::Post, &format!("/{id}/cordon"), None).0;
    let statuses: Vec<u16> = (0..4).map(|_| cordon(&id)).collect();
    assert_eq!(statuses, [200, 200, 200, 429]);
    assert_eq!(cordon(&other), 200, "another machine");
    assert_eq!(ask.act(Method::Post, &format!("/{id}/uncordon"), None).0, 200, "another action");
    ask.world.pass(Duration::from_secs(1));
    assert_eq!((cordon(&id), cordon(&id)), (200, 429));
    ask.world.pass(Duration::from_secs(10));
    let reads: Vec<u16> = (0..11).map(|_| ask.get(&format!("/{id}")).0).collect();
    assert_eq!((reads.iter().filter(|status| **status == 200).count(), reads[10]), (10, 429));
    assert_eq!(ask.get(&format!("/{id}")), (429, json!({ "error": "rate limit exceeded" })));
    let creates: Vec<u16> = (0..4).map(|_| ask.post("", &order(json!({}))).0).collect();
    assert_eq!(creates, [200, 200, 200, 429], "by app");
}

/// `errors_known`: 409 no capacity and 422 of a region, 409 of a host; region expressions fall over.
#[test]
fn regions_and_hosts_are_finite() {
    let ask = Ask::new(10);
    ask.world.with(|fake, _| fake.capacity.insert("iad".to_owned(), 1));
    let id = ask.started();
    let mut seen: Vec<(u16, Value)> = (0..20).map(|_| ask.post("", &order(json!({})))).collect();
    seen.sort_by_key(|(status, _)| *status);
    seen.dedup();
    let candidate = json!({ "error": "could not find a candidate host", "status": "insufficient_capacity" });
    assert_eq!(seen, [(409, json!({ "error": "aborted: no capacity" })), (422, candidate)]);
    let elsewhere = ask.create(json!({ "region": "iad,dfw" }));
    assert_eq!(ask.get(&format!("/{elsewhere}")).1["region"], "dfw");
    ask.act(Method::Post, &format!("/{id}/stop"), None);
    ask.until(&id, "stopped");
    let second = ask.started();
    let full = ask.act(Method::Post, &format!("/{id}/start"), None);
    assert_eq!(full.0, 409);
    assert!(full.1["error"].as_str().expect("a text").contains("on the current host"), "{}", full.1);
    assert_ne!(id, second);
}

/// `endpoints` placements and regions.
#[test]
fn room_can_be_asked_for() {
    let ask = Ask::new(11);
    ask.world.with(|fake, _| fake.capacity.insert("iad".to_owned(), 4));
    let target = "/v1/platform/placements";
    let body = json!({ "org_slug": ORG, "region": "iad,lhr", "count": 0 });
    let (_, answer) = ask.raw(Method::Post, target, None, Some(&body));
    let counts: Vec<(&str, u64)> = answer["regions"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|row| (row["region"].as_str().expect("a code"), row["count"].as_u64().expect("a count")))
        .collect();
    assert_eq!(counts, [("iad", 4), ("lhr", 100)]);
    let foreign = json!({ "org_slug": "other", "region": "iad", "count": 0 });
    assert_eq!(ask.raw(Method::Post, target, None, Some(&foreign)).0, 403);
    let (_, regions) = ask.raw(Method::Get, "/v1/platform/regions", None, None);
    assert_eq!(regions["Regions"].as_array().map(Vec::len), Some(18), "with capitals");
}

/// `compat_checklist`: 408 after create, with and without a machine, and one that is shown late.
#[test]
fn a_creation_may_be_ambiguous() {
    let ask = Ask::new(12);
    let count = |ask: &Ask| ask.get("").1.as_array().map(Vec::len);
    ask.world.with(|fake, _| fake.inject("create", Fault::Status { status: 408, happens: false }, 1));
    assert_eq!((ask.post("", &order(json!({}))).0, count(&ask)), (408, Some(0)));
    ask.world.with(|fake, _| fake.inject("create", Fault::Status { status: 408, happens: true }, 1));
    assert_eq!((ask.post("", &order(json!({}))).0, count(&ask)), (408, Some(1)));
    ask.world.with(|fake, _| fake.inject("create", Fault::Late(Duration::from_secs(7)), 1));
    assert_eq!((ask.post("", &order(json!({ "name": "late" }))).0, count(&ask)), (408, Some(1)));
    assert_eq!(ask.post("", &order(json!({ "name": "late" }))).0, 409, "its name is taken already");
    ask.world.pass(Duration::from_secs(7));
    assert_eq!(count(&ask), Some(2));
}

/// `compat_checklist`: private_ip change on start, slow start, launch failure, stuck; `stuck_after`.
#[test]
fn starts_may_move_drag_fail_and_hang() {
    let ask = Ask::new(13);
    let id = ask.stopped();
    let address = |ask: &Ask| ask.get(&format!("/{id}")).1["private_ip"].clone();
    let before = address(&ask);
    ask.world.with(|fake, _| fake.inject("start", Fault::Moves, 1));
    assert_eq!(ask.act(Method::Post, &format!("/{id}/start"), None).1["migrated"], json!(true));
    assert_ne!(before, address(&ask));
    ask.until(&id, "started");
    let takes = |fault: Fault| {
        ask.world.with(|fake, _| fake.inject("create", fault, 1));
        let (began, made) = (ask.world.now(), ask.create(json!({})));
        ask.until(&made, "started");
        ask.world.now().duration_since(began).as_secs()
    };
    assert!(takes(Fault::Slow(10)) >= 15, "slow");
    ask.world.with(|fake, _| fake.inject("create", Fault::LaunchFails, 1));
    let failed = ask.create(json!({}));
    assert_eq!(ask.until(&failed, "failed"), ["creating", "starting", "failed"]);
    assert_eq!(ask.act(Method::Delete, &format!("/{failed}"), None).0, 200);
    ask.world.with(|fake, _| fake.inject("stop", Fault::Stuck, 1));
    ask.act(Method::Post, &format!("/{id}/stop"), None);
    ask.world.pass(Duration::from_secs(6 * 60));
    assert_eq!(ask.state(&id), "stopping");
}

/// `compat_checklist`: host unreachable; `transitions`: config moves, the state is frozen.
#[test]
fn a_host_may_be_out_of_reach() {
    let ask = Ask::new(14);
    let id = ask.create(json!({ "name": "n" }));
    ask.until(&id, "started");
    ask.post(&format!("/{id}/metadata/k"), &json!({ "value": "v" }));
    assert_eq!(ask.get("?metadata.k=v").1.as_array().map(Vec::len), Some(1));
    ask.world.with(|fake, now| fake.lose_host(now, &id, Duration::from_secs(60)));
    let (_, machine) = ask.get(&format!("/{id}"));
    assert_eq!((&machine["host_status"], &machine["config"]), (&json!("unreachable"), &Value::Null));
    assert_eq!((&machine["state"], &machine["name"]), (&json!("started"), &json!("n")));
    assert_eq!(ask.get("?metadata.k=v").1, json!([]), "not found by its words");
    assert_eq!(ask.act(Method::Post, &format!("/{id}/stop"), None).0, 503);
    ask.world.pass(Duration::from_secs(60));
    assert_eq!(ask.get(&format!("/{id}")).1["host_status"], json!("ok"));
}

/// `transitions`: a process that ends by itself; `MachineEvent`.
#[test]
fn a_process_is_restarted_in_place_and_then_left() {
    let ask = Ask::new(15);
    let restart = json!({ "image": "i", "restart": { "policy": "on-failure", "max_retries": 1 } });
    let id = ask.create(json!({ "config": restart }));
    ask.until(&id, "started");
    ask.world.with(|fake, now| fake.crash(now, &id, 1));
    let event = ask.get(&format!("/{id}/events?limit=1")).1[0].clone();
    assert_eq!(event["request"]["exit_event"]["restarting"], json!(true));
    assert_eq!(event["timestamp"], json!(ask.world.now().as_millisecond()), "milliseconds");
    ask.world.pass(Duration::from_secs(3));
    assert_eq!(ask.state(&id), "started");
    ask.world.with(|fake, now| fake.crash(now, &id, 1));
    assert_eq!(ask.until(&id, "stopped"), ["started", "stopped"]);
    let ended = ask.create(json!({ "config": { "image": "i", "restart": { "policy": "on-failure" } } }));
    ask.until(&ended, "started");
    ask.world.with(|fake, now| fake.crash(now, &ended, 0));
    ask.until(&ended, "stopped");
}

/// `endpoints` events: the last 20, the newest first.
#[test]
fn events_are_kept_by_count() {
    let ask = Ask::new(16);
    let id = ask.stopped();
    for _ in 0..8 {
        ask.act(Method::Post, &format!("/{id}/start"), None);
        ask.until(&id, "started");
        ask.act(Method::Post, &format!("/{id}/stop"), None);
        ask.until(&id, "stopped");
    }
    let (_, events) = ask.get(&format!("/{id}/events"));
    let events = events.as_array().expect("a list");
    assert_eq!((events.len(), &events[0]["type"], &events[1]["type"]), (20, &json!("exit"), &json!("stop")));
    let times: Vec<i64> = events.iter().map(|event| event["timestamp"].as_i64().expect("a time")).collect();
    assert!(times.is_sorted_by(|a, b| a >= b), "{times:?}");
}

/// `endpoints` metadata: PUT replaces, PATCH merges, POST and DELETE one; no new version; 412 `machine_version`.
#[test]
fn words_about_a_machine_change_without_a_restart() {
    let ask = Ask::new(17);
    let id = ask.started();
    let version = ask.get(&format!("/{id}")).1["version"].clone();
    let at = |rest: &str| format!("/v1/apps/{APP}/machines/{id}/metadata{rest}");
    let words = || ask.raw(Method::Get, &at(""), None, None).1;
    assert_eq!(ask.raw(Method::Post, &at("/a"), None, Some(&json!({ "value": "1" }))).0, 204);
    let merge = json!({ "metadata": { "b": "2", "a": null }, "machine_version": version });
    assert_eq!(ask.raw(Method::Patch, &at(""), None, Some(&merge)).0, 204);
    assert_eq!(words(), json!({ "b": "2" }));
    assert_eq!(ask.raw(Method::Put, &at(""), None, Some(&json!({ "metadata": { "c": "3" } }))).0, 204);
    assert_eq!(words(), json!({ "c": "3" }));
    let stale = json!({ "metadata": {}, "machine_version": "01OLD" });
    assert_eq!(ask.raw(Method::Put, &at(""), None, Some(&stale)).0, 412);
    assert_eq!(ask.raw(Method::Get, &at("/c"), None, None), (200, json!({ "value": "3" })));
    assert_eq!(ask.raw(Method::Delete, &at("/c"), None, None).0, 204);
    assert_eq!(ask.raw(Method::Get, &at("/c"), None, None).0, 404);
    assert_eq!((ask.state(&id).as_str(), &ask.get(&format!("/{id}")).1["version"]), ("started", &version));
}

/// `compat_checklist`: signal as string or int, name or app_name; `endpoints` list: state, region, summary, leases.
#[test]
fn older_forms_are_taken() {
    let ask = Ask::new(18);
    let id = ask.started();
    for (signal, status) in [(json!("SIGTERM"), 200), (json!(9), 200), (json!("9"), 400), (json!(0), 400)] {
        assert_eq!(ask.post(&format!("/{id}/signal"), &json!({ "signal": signal })).0, status, "{signal}");
    }
    for (timeout, status) in [(json!("10s"), 200), (json!("soon"), 400), (json!(1_000_000_000), 200)] {
        assert_eq!(ask.post(&format!("/{id}/stop"), &json!({ "timeout": timeout })).0, status, "{timeout}");
    }
    let app = |body: Value| ask.raw(Method::Post, "/v1/apps", None, Some(&body)).0;
    assert_eq!((app(json!({ "name": "one" })), app(json!({ "app_name": "two" }))), (201, 201));
    assert_eq!(app(json!({ "name": "one" })), 422);
    ask.until(&id, "stopped");
    ask.post(&format!("/{id}/lease"), &json!({ "ttl": 60, "description": "d" }));
    let count = |query: &str| ask.get(query).1.as_array().map(Vec::len);
    assert_eq!((count("?state=started"), count("?state=started,stopped")), (Some(0), Some(1)));
    assert_eq!((count("?region=lhr"), count("?region=iad")), (Some(0), Some(1)));
    let (_, listed) = ask.get("?summary=true&include_leases=true");
    assert_eq!((&listed[0]["config"], &listed[0]["lease"]["description"]), (&Value::Null, &json!("d")));
}
