//! A version whose intervals stop to hold the truth, and hold it again: its breaker, and who answers meanwhile.

use std::fs::{self, File};
use std::path::Path;

use peregrine::score::Panel;
use serde_json::Value;

use crate::harness::{Cases, TestNode, WebSocket, eventually};

const BASE: &str = "mlp-vol-quantile";

/// A model in two versions, which are the same: what one says the other would say.
fn shelf() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    for version in [1, 2] {
        let (from, to) = (Cases::folder(BASE), dir.path().join(format!("m/{version}")));
        fs::create_dir_all(&to).expect("a folder");
        for name in ["model.json", "weights.safetensors"] {
            fs::copy(from.join(name), to.join(name)).expect("a copy");
        }
    }
    dir
}

fn node(shelf: &Path) -> TestNode {
    let repositories = format!("[\"{}\"]", shelf.display());
    TestNode::on_cpu(&[
        ("MODELS__REPOSITORIES", &repositories),
        ("MODELS__DEFAULT", BASE),
        ("BREAKER__COVERAGE_SHORTFALL", "0.4"),
        ("BREAKER__COVERAGE_VALUES_MIN", "100"),
    ])
}

/// The circuit of what the intervals of a version hold.
fn breaker(node: &TestNode, version: u32) -> Value {
    let all = node.get("/v1/breakers").json();
    let mut all = all["breakers"].as_array().expect("a list").iter();
    let is_it = |one: &&Value| one["kind"] == "coverage" && one["model"] == "m" && one["version"] == version;
    all.find(is_it).expect("a circuit for every version").clone()
}

/// A series of the kind that the model has learned, tick by tick.
struct Market<'a> {
    node: &'a TestNode,
    at: u64,
}

impl Market<'_> {
    fn tick(&mut self, values: &[f32]) {
        let mut line = |value: &f32| {
            self.at += 1;
            format!(r#"{{"series":"a","ts":{},"value":{value}}}"#, self.at)
        };
        let lines: Vec<String> = values.iter().map(&mut line).collect();
        assert_eq!(self.node.post("/v1/ticks", &lines.join("\n")).status, 200);
    }
}

#[test]
fn intervals_that_hold_nothing_open_a_breaker_and_the_truth_closes_it() {
    let panel = File::open("models/fx_vol_daily.csv.gz").expect("a panel");
    let panel = Panel::read(panel, "logrv5", &[]).expect("a panel");
    let usual = panel.series()[0].y();
    let shelf = shelf();
    let node = node(shelf.path());
    assert_eq!(breaker(&node, 2)["state"], "closed");
    let mut reader = WebSocket::open(node.node.addr, "/v1/stream", None);
    reader.text(r#"{"op":"subscribe","id":1,"series":["a"],"model":"m"}"#);
    reader.op("subscribed");
    let mut market = Market { node: &node, at: 0 };
    // In turns: of what comes at once the newest window alone is forecast.
    usual[..200].chunks(4).for_each(|few| market.tick(few));
    let jumps: Vec<f32> = (0..200).map(|at| at as f32 * if at % 2 == 0 { 1e3 } else { -1e3 }).collect();
    jumps.chunks(4).for_each(|few| market.tick(few));
    eventually("it opens", || breaker(&node, 2)["state"] == "open");
    let open = breaker(&node, 2);
    assert!(open["reason"].as_str().is_some_and(|why| why.contains('%')), "{open}");
    assert_eq!((&open["failures"], &open["backend"]), (&1.into(), &"coverage".into()));
    let metrics = String::from_utf8_lossy(&node.get("/metrics").body).into_owned();
    let series = "peregrine_breaker_state{model=\"m\",version=\"2\",backend=\"coverage\",";
    let line = metrics.lines().find(|line| line.starts_with(series));
    assert!(line.is_some_and(|line| line.ends_with(" 2")), "{line:?}");
    let stable = || node.get("/v1/models/m").json()["release"]["stable"].clone();
    eventually("the version before answers", || stable() == "1");
    // Nobody is answered by the other; the scorecard is told what it would say.
    let mut days = usual.iter().copied().cycle().skip(200);
    eventually("it closes", || {
        let few: Vec<f32> = days.by_ref().take(2).collect();
        market.tick(&few);
        breaker(&node, 2)["state"] == "closed"
    });
    eventually("it answers again", || stable() == "2");
    assert_eq!(breaker(&node, 2)["mode"], "auto");
    let log = node.get("/v1/models/m").json()["release"]["log"].to_string();
    assert!(log.contains("its breaker lets it answer again"), "{log}");
}
