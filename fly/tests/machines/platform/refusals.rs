//! Who may ask what and how often, leases, room, words about machines, and older forms, row by row.

use std::time::Duration;

use peregrine_fly::machines::Method;
use serde_json::{Value, json};

use super::{Ask, order};
use crate::machines::fake::faults::Fault;
use crate::machines::fake::{APP, FOREIGN_APP, ORG, TOKEN};

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
