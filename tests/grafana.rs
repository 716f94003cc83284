//! The dashboard and the rules of Prometheus, beside what running nodes really export: no panel and no rule asks for a
//! metric or a label that there is not.

mod promql;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use peregrine_actors::{DeviceMeter, Meters};
use promql::{Selector, parse};
use serde_json::{Value, json};

use crate::harness::{Fleet, Post, PowerSwitch, TestNode, WebSocket, eventually, request, took};
use crate::releases::{Make, Shelf, order};
use crate::tls::{Authority, get};

const MODEL: &str = "nhits-vol-quantile";
const FORECAST: &str = r#"{"model":"nhits-vol-quantile","series":[{"symbol":"USD"}]}"#;

/// What may be absent from these nodes, and where the product says why.
const ABSENT: [(&str, &[&str], &str); 5] = [
    (
        "peregrine_backlog_limit_seconds",
        &["backend", "device"],
        "absent while nothing waited long: src/gateway/metrics/trust.rs, `queues`",
    ),
    (
        "peregrine_remote_refused_total",
        &["reason"],
        "absent until a node refused another's message: src/gateway/metrics/cluster.rs, `members`",
    ),
    (
        "peregrine_score_coverage_shortfall",
        &["model", "version"],
        "absent until enough values met their truth: src/gateway/metrics/series.rs, `scores`",
    ),
    (
        "peregrine_resident_requests_total",
        &["plan", "device"],
        "absent while no plan stays on a device: src/gateway/metrics/devices.rs, `residents`",
    ),
    ("peregrine_resident_silences_total", &["plan", "device"], "as the one before"),
];

/// Metrics, each with the labels of any of its samples.
type Exported = BTreeMap<String, BTreeSet<String>>;

struct Driver;

impl Meters for Driver {
    fn read(&self) -> Vec<DeviceMeter> {
        vec![DeviceMeter {
            index: 0,
            gpu: None,
            name: "a device".to_owned(),
            utilisation: Some(0.25),
            memory_used_bytes: Some(1 << 30),
            memory_total_bytes: Some(4 << 30),
            temperature_celsius: Some(40.0),
            power_watts: Some(70.5),
        }]
    }
}

#[test]
fn every_query_reads_what_running_nodes_export() {
    let exported = exported();
    let dashboard = dashboard();
    let queries = queries_of(&dashboard);
    assert!(queries.len() > 150, "{}", queries.len());
    let mut wrong: Vec<String> = queries.iter().filter_map(|query| query.check(&exported).err()).collect();
    for (at, expression) in rules() {
        let query = Query { at, text: expression, legend: String::new() };
        wrong.extend(query.check(&exported).err());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // What is said of those that may be absent is true where they are there.
    for (name, ..) in ABSENT {
        if let Some(labels) = exported.get(name) {
            assert_eq!(*labels, absent(name).expect("listed"), "{name}");
        }
    }
    // A copy with one name, one label, one group or one legend changed does not pass.
    let text = fs::read_to_string(path("configs/grafana/peregrine.json")).expect("the dashboard");
    for (good, bad) in [
        ("peregrine_queue_rows{", "peregrine_queue_row{"),
        ("quantile=\\\"0.99\\\"", "percentile=\\\"0.99\\\""),
        ("sum by (outcome)", "sum by (income)"),
        ("{{effect}}", "{{cause}}"),
        ("peregrine_request_seconds_bucket{", "peregrine_request_seconds{"),
        ("sum by (route, le)", "sum by (route)"),
    ] {
        let mutated = text.replace(good, bad);
        assert_ne!(mutated, text, "{good}");
        let mutated: Value = serde_json::from_str(&mutated).expect("JSON");
        let refused = queries_of(&mutated).iter().filter(|query| query.check(&exported).is_err()).count();
        assert!(refused > 0, "{bad} passes");
    }
}

#[test]
fn the_rules_that_ship_are_those_that_the_product_prints() {
    let printed = Command::new(env!("CARGO_BIN_EXE_peregrine"))
        .args(["alerts", "rules"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("the binary starts");
    assert!(printed.status.success());
    let shipped = fs::read_to_string(path("configs/prometheus/alerts.yml")).expect("the rules");
    let printed = String::from_utf8(printed.stdout).expect("text");
    assert!(shipped == printed, "configs/prometheus/alerts.yml is not what `peregrine alerts rules` prints");
}

#[test]
fn recorded_names_are_used_once_and_say_what_they_are() {
    let text = fs::read_to_string(path("configs/prometheus/recording.yml")).expect("the rules");
    let names: Vec<&str> = text.lines().filter_map(|line| line.trim().strip_prefix("- record: ")).collect();
    let expressions = text.lines().filter(|line| line.trim().starts_with("expr:")).count();
    assert!(names.len() > 10 && names.len() == expressions, "{names:?}");
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
    for name in names {
        assert!(
            name.starts_with("peregrine:") && name.split(':').count() >= 3,
            "{name}: level:metric:operation"
        );
    }
}

#[test]
fn panels_have_units_and_places_of_their_own() {
    let dashboard = dashboard();
    let mut ids = BTreeSet::new();
    let mut cells = BTreeSet::new();
    for panel in panels(&dashboard) {
        let title = panel["title"].as_str().expect("a title");
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{title}: its id is another's");
        let side =
            |name: &str| panel["gridPos"][name].as_u64().unwrap_or_else(|| panic!("{title}: no {name}"));
        let (left, top, width, height) = (side("x"), side("y"), side("w"), side("h"));
        assert!(width > 0 && height > 0 && left + width <= 24, "{title} is not within the grid");
        for cell in (left..left + width).flat_map(|x| (top..top + height).map(move |y| (x, y))) {
            assert!(cells.insert(cell), "{title} lies over another at {cell:?}");
        }
        if panel["type"] == "row" {
            continue;
        }
        assert!(!panel["targets"].as_array().expect("queries").is_empty(), "{title}");
        assert!(
            panel["description"].as_str().is_some_and(|text| text.ends_with('.')),
            "{title}: no description"
        );
        let unit = panel["fieldConfig"]["defaults"]["unit"].as_str();
        let known = ["short", "none", "reqps", "ops", "s", "bytes", "Bps", "percentunit", "celsius", "watt"];
        assert!(unit.is_some_and(|unit| known.contains(&unit)), "{title}: {unit:?}");
        let refs: Vec<&str> = targets(panel).filter_map(|target| target["refId"].as_str()).collect();
        assert_eq!(refs.iter().collect::<BTreeSet<_>>().len(), refs.len(), "{title}: {refs:?}");
        for target in targets(panel).chain([panel]) {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
        }
    }
    let variables: Vec<&str> =
        list(&dashboard["templating"]["list"]).filter_map(|variable| variable["name"].as_str()).collect();
    assert_eq!(variables, ["datasource", "region", "node", "model"]);
    let rows: Vec<&str> = panels(&dashboard)
        .filter(|panel| panel["type"] == "row")
        .filter_map(|row| row["title"].as_str())
        .collect();
    assert!(rows.len() >= 12, "{rows:?}");
}

/// One expression, where it stands, and what its lines are called.
struct Query {
    at: String,
    text: String,
    legend: String,
}

impl Query {
    fn check(&self, exported: &Exported) -> Result<(), String> {
        let told = |error: String| format!("{}: {error}\n    in {}", self.at, self.text);
        let whole = self.text.replace("$__rate_interval", "1m");
        let expr = parse(&whole).map_err(told)?;
        for selector in expr.selectors() {
            let has = labels(exported, selector).map_err(told)?;
            let unknown = selector.matched.iter().find(|(label, _)| !has.contains(label));
            if let Some((label, _)) = unknown {
                return Err(told(format!("{} has no label `{label}`", selector.metric)));
            }
        }
        let left = expr.labels(&|selector| labels(exported, selector)).map_err(told)?;
        let named = self.legend.split("{{").skip(1).filter_map(|rest| rest.split_once("}}"));
        for (label, _) in named {
            if !left.contains(label) {
                return Err(told(format!("the legend names `{label}`, and there is only {left:?}")));
            }
        }
        Ok(())
    }
}

fn labels(exported: &Exported, selector: &Selector) -> Result<BTreeSet<String>, String> {
    if selector.metric == "ALERTS" {
        // Prometheus' own: an alert has the labels of what it was made of.
        let own = ["alertname", "alertstate"].map(str::to_owned);
        return Ok(exported.values().flatten().cloned().chain(own).collect());
    }
    if let Some(labels) = absent(&selector.metric) {
        return Ok(labels);
    }
    exported.get(&selector.metric).cloned().ok_or_else(|| format!("no node exports {}", selector.metric))
}

/// The labels of what may be absent.
fn absent(metric: &str) -> Option<BTreeSet<String>> {
    let (_, labels, _) = ABSENT.iter().find(|(name, ..)| *name == metric)?;
    Some(labels.iter().chain(&["node", "region"]).map(|label| (*label).to_owned()).collect())
}

/// What nodes export that have a market, records, a journal, readers, a driver, a certificate, a scaler with machines,
/// each other, a model in two versions, and a GPU whose answers are checked.
fn exported() -> Exported {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = |name: &str| dir.path().join(name).display().to_string();
    let (journal, audit) = (folder("journal"), folder("audit"));
    let keys = [("DEMO__RATE", "200"), ("JOURNAL__DIR", &journal), ("AUDIT__DIR", &audit)];
    let market = TestNode::metered(Arc::new(Driver), &keys);
    let mut reader = WebSocket::open(market.node.addr, "/v1/stream", None);
    reader.text(&format!(r#"{{"op":"subscribe","id":1,"model":"{MODEL}","series":["*"]}}"#));
    reader.op("subscribed");
    assert_eq!(market.post("/v1/forecast", FORECAST).status, 200);
    let mut text = until(
        &market,
        &["peregrine_score_coverage{", "peregrine_device_power_watts{", "peregrine_vitals_age"],
    );

    let secure = Authority::new();
    let node = secure.node(&[]);
    text.push_str(&get(&mut secure.connect(node.node.addr), "/metrics"));

    let file = dir.path().join("scaler.toml");
    let scaler = format!(
        "[scaler]\nenabled = true\nevaluate_every = \"1s\"\ndir = {:?}\n\
         [scaler.groups.inference]\npool = \"trial\"\n[scaler.pools.trial]\nkind = \"simulated\"\n",
        folder("scaler")
    );
    fs::write(&file, scaler).expect("a file");
    text.push_str(&until(&TestNode::with_file(&file, &[]), &["peregrine_scaler_machines{"]));

    let released = Shelf::with(&[(1, Make::Plain), (2, Make::Plain)]).node();
    order(&released, "promote", &json!({ "version": 1 }));
    order(&released, "shadow", &json!({ "version": 2 }));
    text.push_str(&until(&released, &["peregrine_release_share{", "peregrine_release_shadow_total{"]));

    let switch = PowerSwitch::default();
    let gpu = TestNode::on_gpu(&switch, &[("BREAKER__CHECK_EVERY", "1ms")]);
    eventually("an answer is checked", || {
        assert_eq!(gpu.post("/v1/forecast", FORECAST).status, 200);
        page(&gpu).contains("peregrine_checks_total{")
    });
    text.push_str(&page(&gpu));

    let posts = [("a", &["gateway"][..]), ("b", &["gateway", "inference"])];
    let fleet = Fleet::start(
        None,
        &posts.map(|(name, roles)| Post { name, region: "fra", roles }),
        &[
            ("ALERTS__EVALUATE_EVERY", "100ms"),
            ("FLY_APP_NAME", "peregrine"),
            ("FLY_MACHINE_ID", "{node}"),
            ("FLY_REGION", "fra"),
        ],
    );
    let far =
        || String::from_utf8_lossy(&request(fleet.addr("a"), "GET", "/metrics", &[], b"").body).into_owned();
    took("b answers for a", || fleet.post("a", "/v1/forecast", FORECAST).status == 200);
    for name in
        ["peregrine_cluster_member_lost{", "peregrine_remote_asks_total{", "peregrine_cluster_rtt_seconds{"]
    {
        took(name, || far().contains(name));
    }
    text.push_str(&far());
    samples(&text)
}

/// The metrics of a node once these samples are among them.
#[track_caller]
fn until(node: &TestNode, samples: &[&str]) -> String {
    let mut text = String::new();
    eventually("all families are there", || {
        text = page(node);
        samples.iter().all(|sample| text.contains(&format!("\n{sample}")))
    });
    text
}

fn page(node: &TestNode) -> String {
    String::from_utf8(node.get("/metrics").body).expect("text")
}

fn samples(text: &str) -> Exported {
    let mut exported = Exported::new();
    for line in text.lines().filter(|line| line.starts_with("peregrine_")) {
        let (name, rest) = line.split_once('{').unwrap_or_else(|| panic!("no labels: {line}"));
        let own = exported.entry(name.to_owned()).or_default();
        // Values hold no `="` unless it is escaped.
        let names = rest.split("=\"").filter_map(|part| part.rsplit(['"', ',']).next());
        own.extend(
            names
                .filter(|name| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
                .map(str::to_owned),
        );
    }
    exported
}

fn dashboard() -> Value {
    let text = fs::read_to_string(path("configs/grafana/peregrine.json")).expect("the dashboard");
    serde_json::from_str(&text).expect("JSON")
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    list(&dashboard["panels"])
}

fn targets(panel: &Value) -> impl Iterator<Item = &Value> {
    list(&panel["targets"])
}

/// Of panels, annotations and variables.
fn queries_of(dashboard: &Value) -> Vec<Query> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let mut queries = Vec::new();
    for panel in panels(dashboard) {
        for target in targets(panel) {
            let at = format!("panel {} {}", panel["title"], target["refId"]);
            queries.push(Query { at, text: text(&target["expr"]), legend: text(&target["legendFormat"]) });
        }
    }
    for one in list(&dashboard["annotations"]["list"]).filter(|one| one.get("expr").is_some()) {
        let at = format!("annotation {}", one["name"]);
        queries.push(Query { at, text: text(&one["expr"]), legend: text(&one["titleFormat"]) });
    }
    for variable in list(&dashboard["templating"]["list"]).filter(|one| one["type"] == "query") {
        let asked = text(&variable["query"]["query"]);
        let inner = asked.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
        let (metric, label) =
            inner.and_then(|inner| inner.rsplit_once(", ")).expect("label_values(metric, label)");
        let legend = format!("{{{{{label}}}}}");
        queries.push(Query { at: format!("variable {}", variable["name"]), text: metric.to_owned(), legend });
    }
    queries
}

/// Every `expr:` of the rules files; they are JSON texts.
fn rules() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for file in ["alerts.yml", "recording.yml"] {
        let text = fs::read_to_string(path("configs/prometheus").join(file)).expect("rules");
        for (at, line) in text.lines().enumerate() {
            if let Some(expression) = line.trim().strip_prefix("expr: ") {
                let expression =
                    serde_json::from_str(expression).unwrap_or_else(|error| panic!("{file}:{at}: {error}"));
                found.push((format!("{file}:{}", at + 1), expression));
            }
        }
    }
    assert!(found.len() > 25, "{}", found.len());
    found
}

fn path(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}
