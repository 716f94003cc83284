//! Things break under load: a device is taken away, actors panic. Nothing accepted is lost, nothing hangs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crate::harness::{Client, PowerSwitch, TestNode, eventually};

const CLIENTS: usize = 4;
const INFER: &str = "/v2/models/nbeats-vol-quantile/infer";
const WINDOW: usize = 64;

fn body(seed: usize) -> String {
    let data: Vec<String> =
        (0..WINDOW).map(|i| format!("{}", ((seed * 31 + i * 17) % 97) as f32 / 10.0)).collect();
    let data = data.join(",");
    format!(r#"{{"inputs":[{{"name":"y","shape":[1,{WINDOW}],"datatype":"FP32","data":[{data}]}}]}}"#)
}

/// Answers by label, counted by clients that never stop asking until told.
#[derive(Default)]
struct Tally {
    ended: AtomicBool,
    gpu: AtomicUsize,
    cpu_degraded: AtomicUsize,
    others: std::sync::Mutex<BTreeMap<String, usize>>,
}

impl Tally {
    /// Clients ask while `during` runs; fails if any answer was neither the GPU's nor, labelled, the CPU's.
    fn while_asked(&self, node: &TestNode, during: impl FnOnce()) {
        thread::scope(|scope| {
            for client in 0..CLIENTS {
                scope.spawn(move || self.ask_until_ended(node, client));
            }
            // Ended whatever happens below, or the scope would wait for ever.
            let _end = EndOnDrop(&self.ended);
            during();
        });
        let others = self.others.lock().expect("no holder panics");
        assert!(others.is_empty(), "answers that are neither gpu nor labelled cpu: {others:?}");
    }

    fn ask_until_ended(&self, node: &TestNode, client: usize) {
        let mut connection = Client::connect(node.node.addr).expect("connects");
        let mut asked = 0;
        while !self.ended.load(Ordering::SeqCst) {
            let answer = connection
                .send("POST", INFER, &[], body(client * 1000 + asked).as_bytes())
                .expect("an answer");
            asked += 1;
            let label = if answer.status == 200 {
                let json = answer.json();
                format!("{} degraded={}", json["parameters"]["backend"], json["parameters"]["degraded"])
            } else {
                format!("{} {}", answer.status, String::from_utf8_lossy(&answer.body))
            };
            match label.as_str() {
                "\"gpu\" degraded=false" | "\"gpu\" degraded=null" => self.gpu.fetch_add(1, Ordering::SeqCst),
                "\"cpu\" degraded=true" => self.cpu_degraded.fetch_add(1, Ordering::SeqCst),
                _ => {
                    *self.others.lock().expect("no holder panics").entry(label).or_default() += 1;
                    0
                }
            };
        }
    }
}

fn gpu_breaker(node: &TestNode) -> peregrine_actors::BreakerStatus {
    let breakers = node.node.system.breakers();
    let found = breakers.into_iter().find(|breaker| {
        breaker.guards.backend() == "gpu"
            && breaker.guards.model().is_some_and(|(model, _)| model == "nbeats-vol-quantile")
    });
    found.expect("the model has a gpu breaker")
}

#[test]
fn clients_are_answered_before_a_slow_device_is_there_and_by_it_afterwards() {
    let node = TestNode::on_late_gpu(&PowerSwitch::default(), &[]);
    let tally = Tally::default();
    tally.while_asked(&node, || {
        eventually("the cpu answers", || tally.cpu_degraded.load(Ordering::SeqCst) > 0);
        eventually("the device answers", || tally.gpu.load(Ordering::SeqCst) > 0);
    });
}

#[test]
fn a_device_taken_away_under_load_loses_no_request() {
    let switch = PowerSwitch::default();
    let node = TestNode::on_gpu(&switch, &[("BREAKER__OPEN_FOR", "200ms")]);
    let tally = Tally::default();
    tally.while_asked(&node, || {
        let count = |counter: &AtomicUsize| counter.load(Ordering::SeqCst);
        eventually("the gpu answers", || count(&tally.gpu) >= 50);
        switch.off();
        eventually("the cpu answers, labelled", || count(&tally.cpu_degraded) >= 50);
        assert_ne!(gpu_breaker(&node).state, peregrine_actors::BreakerState::Closed);
        switch.on();
        let before = count(&tally.gpu);
        eventually("the gpu answers again", || count(&tally.gpu) >= before + 50);
        eventually("the breaker closes", || {
            gpu_breaker(&node).state == peregrine_actors::BreakerState::Closed
        });
    });
}

#[test]
fn of_two_gpus_one_is_taken_away_under_load_and_the_other_answers() {
    let switches = [PowerSwitch::default(), PowerSwitch::default()];
    let node = TestNode::on_gpus(&switches, &[("BREAKER__OPEN_FOR", "200ms")]);
    let requests = |gpu: usize| {
        let page = String::from_utf8(node.get("/metrics").body).expect("text");
        let name = format!("peregrine_device_requests_total{{backend=\"gpu\",device=\"{gpu}\"");
        let line = page.lines().find(|line| line.starts_with(&name)).expect("it is counted");
        line.rsplit(' ').next().and_then(|count| count.parse::<u64>().ok()).expect("a count")
    };
    let tally = Tally::default();
    tally.while_asked(&node, || {
        eventually("both answer", || requests(0) >= 20 && requests(1) >= 20);
        switches[0].off();
        eventually("it is down", || node.get("/health/gpu").json()["devices"][0]["state"] == "down");
        let before = requests(1);
        eventually("the other one answers", || requests(1) >= before + 50);
        assert_eq!(tally.cpu_degraded.load(Ordering::SeqCst), 0, "nobody needs the cpu");
        assert_eq!(node.get("/health/gpu").status, 200, "a gpu serves");
        switches[0].on();
        let before = requests(0);
        eventually("it answers again", || requests(0) >= before + 20);
    });
}

#[test]
fn a_panic_in_any_actor_is_survived() {
    let switch = PowerSwitch::default();
    let node = TestNode::on_gpu(&switch, &[]);
    let names: Vec<Arc<str>> =
        node.node.system.tree().snapshot().into_iter().map(|actor| actor.name).collect();
    assert!(names.len() >= 5, "router, breaker, health and two devices at least: {names:?}");
    for name in names {
        let restarts = |node: &TestNode| {
            let actors = node.node.system.tree().snapshot();
            actors.iter().find(|actor| actor.name == name).map_or(0, |actor| actor.restarts)
        };
        let before = restarts(&node);
        assert!(node.node.system.tree().inject_panic(&name), "{name} can be broken");
        // In-flight and later callers get an answer, whatever it says, and none hangs (the client has a deadline).
        eventually(&format!("{name} is restarted"), || {
            let answer = node.post(INFER, &body(1));
            assert!(matches!(answer.status, 200 | 503), "{name}: {}", answer.status);
            restarts(&node) > before
        });
        eventually(&format!("after {name} the gpu serves again"), || {
            let answer = node.post(INFER, &body(2));
            assert!(matches!(answer.status, 200 | 503), "{name}: {}", answer.status);
            answer.status == 200 && answer.json()["parameters"]["backend"] == "gpu"
        });
    }
    assert_eq!(node.get("/health/ready").status, 200);
}

/// A deadline that has no chance is answered 504 and the node goes on.
#[test]
fn a_deadline_is_kept() {
    let node = TestNode::on_cpu(&[]);
    let hopeless = body(1).replacen('{', r#"{"parameters":{"timeout":1},"#, 1);
    let statuses: Vec<u16> = (0..50).map(|_| node.post(INFER, &hopeless).status).collect();
    assert_eq!(statuses, [504; 50], "nor is one answered late that its caller's thread computed");
    assert_eq!(node.post(INFER, &body(1)).status, 200);
}

struct EndOnDrop<'a>(&'a AtomicBool);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
