//! How machines come to be, change and go, row by row.

use std::time::Duration;

use peregrine_fly::machines::Method;
use serde_json::{Value, json};

use super::{Ask, order};
use crate::machines::fake::faults::Fault;

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
