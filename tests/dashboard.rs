//! The dashboard in a real browser: what a person sees of a node, through its restart, on a desk and on a phone.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::harness::{Browser, Cases, Fleet, NodeProcess, Post, TestNode, WebSocket, drawn_key, request};

/// All that a browser loads of the page.
const PAGE_BYTES_MAX: u64 = 200_000;
const LIVE: &str = "document.getElementById('link').dataset.state === 'live'";
const PREDICTED: &str = "document.getElementById('fan-words').textContent.includes('Expected next')";

/// A node of its own process, replaying its market, at an address or on a free port.
fn market(listen: &str) -> NodeProcess {
    let mut command = Command::new(env!("CARGO_BIN_EXE_peregrine"));
    command
        .args(["serve", "--listen", listen])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("PEREGRINE_LOG__FILTER", "error")
        .env("PEREGRINE_DEMO__RATE", "40")
        .stdout(Stdio::piped());
    NodeProcess::ready(command.spawn().expect("the binary starts"))
}

fn visit(browser: &mut Browser, addr: SocketAddr) {
    browser.open(&format!("http://{addr}/"));
}

/// The number of the prediction on screen.
fn seq(browser: &mut Browser) -> u64 {
    let rows = "[...document.querySelectorAll('#fan-facts div')]";
    let found = browser.value(&format!(
        "{rows}.find((row) => row.firstChild.textContent === 'Number')?.lastChild.textContent.replaceAll(',', '') ?? '0'"
    ));
    found.as_str().and_then(|text| text.parse().ok()).unwrap_or(0)
}

#[test]
fn a_live_prediction_is_shown_and_goes_on_after_the_node_was_killed_and_started_again() {
    let node = market("127.0.0.1:0");
    let addr = node.addr;
    let mut browser = Browser::start();
    browser.resize(1440, 900, false);
    browser.prefer("dark");
    visit(&mut browser, addr);
    browser.until(LIVE);
    browser.until(PREDICTED);
    let first = seq(&mut browser);
    assert!(first > 0);
    let later = "[...document.querySelectorAll('#fan-facts dd')].at(-1).textContent.replaceAll(',', '')";
    browser.until(&format!("Number({later}) > {first}"));
    // What is drawn is more than an empty box.
    browser.until("document.querySelector('#fan-plot canvas')?.width > 300");
    let inked = "(() => { const c = document.querySelector('#fan-plot canvas'); \
        const all = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; \
        return all.filter((byte, at) => at % 4 === 3 && byte > 0).length; })()";
    assert!(browser.value(inked).as_u64().is_some_and(|points| points > 5_000));
    // The numbers come from the overview, and the models that ship are all there.
    browser.until("document.querySelectorAll('#models tbody tr').length >= 8");
    assert_eq!(browser.text("#node-ready"), "● ready");
    assert!(browser.text("#scaler").contains("PEREGRINE_SCALER__ENABLED=true"));
    let bytes = browser.page_bytes();
    assert!((10_000..PAGE_BYTES_MAX).contains(&bytes), "{bytes} bytes of the page came");
    browser.picture("dashboard-desktop-dark");
    assert_eq!(browser.faults(), Vec::<String>::new());

    drop(node);
    browser.until("document.getElementById('link').dataset.state === 'lost'");
    browser
        .until("/Lost; again in \\d+ s|Connecting/.test(document.getElementById('link-text').textContent)");
    assert_eq!(browser.text("#said"), "Connection lost; trying again.");
    // What is still on screen does not look like now.
    assert_eq!(browser.text("#node-ready"), "○ unknown");
    assert_eq!(browser.text("#alerts-note"), "unknown");
    let silence = browser.text("#silence");
    assert!(silence.starts_with("Nothing was heard of local since "), "{silence}");
    browser.until("document.querySelector('.fan').hasAttribute('data-silent')");
    let grey = "[...document.querySelectorAll('#numbers dd, #models .state > span, #fan-facts dd, .who dd')] \
        .every((one) => getComputedStyle(one).color === getComputedStyle(document.querySelector('#numbers dt')).color)";
    assert_eq!(browser.value(grey), json!(true));
    accessible(&mut browser, "a lost node");
    let _node = market(&addr.to_string());
    browser.until(LIVE);
    browser.until("document.getElementById('said').textContent === 'Connected again.'");
    browser.until("document.getElementById('silence').hidden && !document.querySelector('[data-silent]')");
    assert_eq!(browser.text("#node-ready"), "● ready");
    assert_eq!(browser.value(grey), json!(false));
    // While nobody listened, the browser said that its connections failed, and nothing else.
    let refused = browser.faults();
    assert!(refused.iter().all(|fault| fault.contains("ERR_CONNECTION")), "{refused:#?}");
    // The windows of the market were lost with the node: its numbers began again, and go on.
    let before = seq(&mut browser);
    browser.until(&format!("Number({later}) !== {before}"));
    browser.until(PREDICTED);
    assert_eq!(browser.faults(), Vec::<String>::new());
}

#[test]
fn predictions_on_ticks_are_counted_apart_from_forecasts_that_were_asked_for() {
    let node = market("127.0.0.1:0");
    let mut browser = Browser::start();
    visit(&mut browser, node.addr);
    browser.until(PREDICTED);
    // Nobody asked, and what followed ticks is the same number wherever it stands.
    let tile = |name: &str| {
        format!(
            "[...document.querySelectorAll('#numbers div')].find((one) => one.firstChild.textContent === '{name}')\
             ?.lastChild.textContent"
        )
    };
    let key = |name: &str| {
        format!(
            "[...document.querySelectorAll('#rate-keys li')].find((one) => one.textContent.startsWith('{name} '))\
             ?.lastChild.textContent"
        )
    };
    let column = |name: &str| {
        format!(
            "[...document.querySelectorAll('#models thead th')].findIndex((one) => one.textContent === '{name}')"
        )
    };
    let rows = format!(
        "[...document.querySelectorAll('#models tbody tr')].map((row) => row.children[{}].textContent).find((rate) => rate !== '0')",
        column("Rows /s")
    );
    let (on_ticks, asked) = (tile("Predicted on ticks"), tile("Forecasts asked"));
    browser.until(&format!(
        "parseFloat({on_ticks}) > 0 && {asked} === '0 /s' && {on_ticks} === `${{{}}} /s` && {on_ticks} === `${{{rows}}} /s`",
        key("Predicted on ticks /s")
    ));
    assert_eq!(browser.value(&key("Forecasts asked /s")), json!("0"));
    assert!(browser.value(&column("Answers /s")).as_i64() > Some(0), "both kinds are answers of a model");
    assert_eq!(browser.faults(), Vec::<String>::new());
}

#[test]
fn dark_light_and_a_phone_are_served_alike_and_all_can_be_read() {
    let node = market("127.0.0.1:0");
    let mut browser = Browser::start();
    let mut grounds = Vec::new();
    for (name, width, height, is_phone, scheme) in [
        ("dashboard-desktop-light", 1440, 900, false, "light"),
        ("dashboard-phone-dark", 390, 844, true, "dark"),
        ("dashboard-phone-light", 360, 740, true, "light"),
    ] {
        browser.resize(width, height, is_phone);
        browser.prefer(scheme);
        visit(&mut browser, node.addr);
        browser.until(LIVE);
        browser.until(PREDICTED);
        browser.until("document.querySelectorAll('#models tbody tr').length >= 8");
        let wide = browser.value("[document.documentElement.scrollWidth, innerWidth]");
        assert!(wide[0].as_u64() <= wide[1].as_u64(), "{name}: wider than the screen: {wide}");
        grounds.push(browser.value("getComputedStyle(document.body).backgroundColor"));
        accessible(&mut browser, name);
        browser.picture(name);
        assert_eq!(browser.faults(), Vec::<String>::new(), "{name}");
    }
    assert!(grounds[0] == grounds[2] && grounds[0] != grounds[1], "{grounds:?}");
    // The reader's choice goes before the system's.
    browser.prefer("light");
    browser.click("#theme");
    assert_eq!(browser.value("getComputedStyle(document.body).backgroundColor"), grounds[1]);
}

/// What axe finds wrong, by the rules of WCAG 2.2 A and AA and its own best practice.
fn accessible(browser: &mut Browser, name: &str) {
    let axe = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser/axe/axe.min.js");
    let axe = fs::read_to_string(axe).expect("axe is beside the tests");
    browser.value(&format!("{axe}\n;true"));
    let found = browser.value(
        "axe.run(document, { resultTypes: ['violations'] }).then(({ violations, passes }) => ({ passes: passes.length, \
         violations: violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html, failureSummary }) => \
         html.slice(0, 160) + ' ' + failureSummary).slice(0, 3).join(' | ')}`) }))",
    );
    assert!(found["passes"].as_u64().is_some_and(|rules| rules > 20), "{name}: axe looked at {found}");
    assert_eq!(found["violations"], json!([]), "{name}");
}

#[test]
fn the_keyboard_reaches_everything_and_is_seen_where_it_is() {
    let node = market("127.0.0.1:0");
    let mut browser = Browser::start();
    browser.resize(1440, 900, false);
    visit(&mut browser, node.addr);
    browser.until(LIVE);
    browser.until("document.querySelectorAll('#models tbody tr').length >= 8");
    browser.press("Tab");
    assert_eq!(browser.text(":focus"), "Skip to the forecast");
    let mut reached = Vec::new();
    for _ in 0..60 {
        browser.press("Tab");
        let at = browser.value(
            "(() => { const at = document.activeElement; const style = getComputedStyle(at); \
             return [at.id || at.dataset.model || at.localName, style.outlineStyle !== 'none' && style.outlineWidth !== '0px']; })()",
        );
        assert!(at[1] == json!(true) || at[0] == json!("body"), "no focus is seen on {at}");
        reached.push(at[0].as_str().expect("a name").to_owned());
    }
    for name in ["pause", "theme", "key-open", "fan-model", "fan-series", "mlp-vol-quantile", "audit-id"] {
        assert!(reached.iter().any(|at| at == name), "{name} is not among {reached:?}");
    }
    // Arrows read the chart, and say what they read.
    browser.until(PREDICTED);
    browser.value("document.getElementById('fan-plot').focus()");
    browser.press("ArrowLeft");
    browser.until("/^At .* Observed .*80 %/.test(document.getElementById('fan-plot').ariaValueText)");
    assert_eq!(browser.faults(), Vec::<String>::new());
}

#[test]
fn another_series_is_chosen_and_its_address_kept() {
    let node = market("127.0.0.1:0");
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/#model=nhits-vol-quantile&series=USD", node.addr));
    browser.until(PREDICTED);
    browser.until("document.getElementById('fan-words').textContent.startsWith('USD by nhits-vol-quantile')");
    browser.value(
        "(() => { const series = document.getElementById('fan-series'); series.value = 'JPY'; \
         series.dispatchEvent(new Event('change', { bubbles: true })); })()",
    );
    browser.until("document.getElementById('fan-words').textContent.startsWith('JPY by nhits-vol-quantile')");
    assert_eq!(browser.value("location.hash"), "#model=nhits-vol-quantile&series=JPY");
    assert_eq!(browser.faults(), Vec::<String>::new());
}

/// A repository of one model, in two versions.
fn two_versions(name: &str) -> tempfile::TempDir {
    let shelf = tempfile::tempdir().expect("a folder");
    for version in [1, 2] {
        let folder = shelf.path().join(name).join(version.to_string());
        fs::create_dir_all(&folder).expect("a folder");
        for file in ["model.json", "weights.safetensors"] {
            fs::copy(Cases::folder("mlp-vol-quantile").join(file), folder.join(file)).expect("a copy");
        }
    }
    shelf
}

#[test]
fn a_version_is_promoted_by_hand_after_one_more_question() {
    let shelf = two_versions("m");
    let repositories = format!("[\"{}\"]", shelf.path().display());
    let node = TestNode::on_cpu(&[("MODELS__REPOSITORIES", &repositories)]);
    let mut browser = Browser::start();
    visit(&mut browser, node.node.addr);
    browser.until(LIVE);
    browser.click("button[data-model='m']");
    browser.until("document.getElementById('release-dialog').open");
    browser.until("document.getElementById('release-body').textContent.includes('No release: the highest version, 2, answers')");
    browser.click("button[data-order='promote'][data-version='1']");
    assert_eq!(browser.text(".sure"), "Version 1 of m on local answers everything, at once.");
    assert_eq!(node.get("/v1/models/m").json()["release"], Value::Null, "one click is not enough");
    browser.click("#release-body button.main");
    browser.until("document.getElementById('release-body').textContent.includes('version 1 is stable')");
    assert_eq!(node.get("/v1/models/m").json()["release"]["stable"], "1");
    browser.click("#release-close");
    browser.until("[...document.querySelectorAll('#models tbody tr')].some((row) => /^m MLP1.*100 %/.test(row.textContent))");
    browser.click("button[data-model='m']");
    browser.click("button[data-order='promote'][data-version='2']");
    browser.click("#release-body button.main");
    browser.until("document.getElementById('release-body').textContent.includes('version 2 is stable')");
    browser.click("button[data-order='rollback']");
    browser.click("#release-body button.main");
    browser.until("document.getElementById('release-body').textContent.includes('version 1 is stable')");
    assert_eq!(node.get("/v1/models/m").json()["release"]["stable"], "1");
    assert_eq!(browser.faults(), Vec::<String>::new());
}

#[test]
fn releases_are_shown_and_ordered_of_the_node_of_the_page_alone() {
    let shelf = two_versions("m");
    let repositories = format!("[\"{}\"]", shelf.path().display());
    let post = |name, region| Post { name, region, roles: &["gateway", "inference"] };
    let posts = [post("fra-1", "fra"), post("iad-1", "iad")];
    let fleet = Fleet::start(None, &posts, &[("MODELS__REPOSITORIES", &repositories), ("DEMO__RATE", "0")]);
    assert_eq!(fleet.post("fra-1", "/v1/models/m/promote", r#"{"version":1}"#).status, 200);
    let mut browser = Browser::start();
    visit(&mut browser, fleet.addr("fra-1"));
    let shares = |first: &str, second: &str| {
        format!(
            "['{first}', '{second}'].every((share, at) => \
             document.querySelectorAll('#models tbody tr')[at]?.children[3].textContent === share)"
        )
    };
    let look = |browser: &mut Browser, name: &str| {
        browser.value(&format!(
            "(() => {{ const select = document.getElementById('node-select'); select.value = '{name}'; \
             select.dispatchEvent(new Event('change')); }})()"
        ));
        browser.until(&format!("document.getElementById('node-name').textContent === '{name}'"));
    };
    browser.until(&shares("100 %", "0 %"));
    browser.until("document.querySelectorAll('#node-select option').length === 2");
    // The other node has no release, and what this one has is not said of it.
    look(&mut browser, "iad-1");
    browser.until(&shares("–", "–"));
    assert_eq!(browser.value("document.querySelectorAll('#models button').length"), 0);
    let note = browser.text("#models-note");
    assert!(note.ends_with("shares and orders are on the dashboard of iad-1 itself"), "{note}");
    assert_eq!(browser.text("#fan-title"), "Forecast, by fra-1");
    // Until it was read which version answers, none is guessed.
    browser.value(
        "(() => { const real = fetch; let go; const gate = new Promise((open) => { go = open; }); window.go = go; \
         window.fetch = async (url, how) => { if (/models\\/m$/.test(String(url))) await gate; return real(url, how); }; })()",
    );
    look(&mut browser, "fra-1");
    browser.until(&shares("…", "…"));
    browser.click("button[data-model='m']");
    assert_eq!(browser.text("#release-title"), "Versions of m on fra-1");
    assert_eq!(browser.text("#release-body"), "Asking who answers …");
    browser.value("window.go()");
    browser.until(&shares("100 %", "0 %"));
    browser.click("button[data-order='rollback']");
    assert!(browser.text(".sure").starts_with("m on fra-1 goes back:"));
    browser.click("#release-close");
    // One that does not answer is not mistaken for what was heard of it, or of the one before.
    look(&mut browser, "iad-1");
    fleet.signal("iad-1", libc::SIGSTOP);
    browser.until(
        "document.getElementById('silence').textContent.startsWith('Nothing was heard of iad-1 since ')",
    );
    browser.until("document.body.hasAttribute('data-silent')");
    assert_eq!(browser.text("#node-ready"), "○ unknown");
    look(&mut browser, "fra-1");
    browser.until("document.getElementById('silence').hidden && !document.body.hasAttribute('data-silent')");
    assert_eq!(browser.faults(), Vec::<String>::new());
}

#[test]
fn a_pending_alert_is_not_called_nothing_and_stands_below_those_that_fire() {
    const MODEL: &str = "nbeats-vol-quantile";
    let node = TestNode::on_cpu(&[
        ("ALERTS__RULES__ABOUT__SIGNAL", "memory_share"),
        ("ALERTS__RULES__ABOUT__THRESHOLD", "-1.0"),
        ("ALERTS__RULES__ABOUT__FOR", "1h"),
        ("ALERTS__RULES__ABOUT__SEVERITY", "critical"),
        ("ALERTS__EVALUATE_EVERY", "100ms"),
        ("ALERTS__RULES__EVENT_LOOP_LAG__ENABLED", "false"),
        ("ALERTS__RULES__MEMORY__ENABLED", "false"),
    ]);
    let mut browser = Browser::start();
    visit(&mut browser, node.node.addr);
    browser.until("document.getElementById('alerts-note').textContent === '1 alert pending'");
    assert_eq!(browser.value("document.getElementById('alerts-note').dataset.mood ?? null"), Value::Null);
    let order = format!(r#"{{"model":"{MODEL}","backend":"cpu","mode":"forced-open"}}"#);
    assert_eq!(node.post("/v1/breakers", &order).status, 200);
    browser.until(
        "/^\\d+ alerts? fires?, 1 alert pending$/.test(document.getElementById('alerts-note').textContent)",
    );
    let states = browser.value(
        "[...document.querySelectorAll('#alerts li b')].map((one) => one.textContent.trim().split(', ')[1])",
    );
    let states = states.as_array().expect("states");
    assert_eq!(states.iter().position(|state| state == "pending"), Some(states.len() - 1), "{states:?}");
    assert_eq!(browser.faults(), Vec::<String>::new());
}

#[test]
fn long_names_hide_no_state_on_a_desk_or_a_phone() {
    let name = "m".repeat(110);
    let shelf = two_versions(&name);
    let repositories = format!("[\"{}\"]", shelf.path().display());
    let place = "n".repeat(40);
    let node = TestNode::on_cpu(&[
        ("MODELS__REPOSITORIES", &repositories),
        ("NODE__NAME", &place),
        ("NODE__REGION", &place),
    ]);
    let mut browser = Browser::start();
    for (width, height, is_phone) in [(1200, 900, false), (390, 844, true)] {
        browser.resize(width, height, is_phone);
        visit(&mut browser, node.node.addr);
        browser.until("document.querySelectorAll('#breakers .state').length >= 3");
        let hidden = browser.value(
            "[...document.querySelectorAll('#models .state, #breakers .state, #nodes .state')].filter((one) => \
             one.getBoundingClientRect().right > one.closest('.scroll').getBoundingClientRect().right) \
             .map((one) => one.closest('table').id)",
        );
        assert_eq!(hidden, json!([]), "{width} pixels wide");
        let names = "[...document.querySelectorAll('#models th .name')].map((one) => one.firstChild.data)";
        let names = browser.value(names);
        assert!(names.as_array().is_some_and(|names| names.contains(&json!(name))), "{names}");
        let wide = browser.value("[document.documentElement.scrollWidth, innerWidth]");
        assert_eq!(wide, json!([width, width]), "as wide as the screen");
    }
    assert_eq!(browser.faults(), Vec::<String>::new());
}

#[test]
fn on_a_phone_orders_are_in_sight_and_the_keyboard_is_not_lost_when_they_are_written_anew() {
    let shelf = two_versions("m");
    let repositories = format!("[\"{}\"]", shelf.path().display());
    let node = TestNode::on_cpu(&[("MODELS__REPOSITORIES", &repositories)]);
    let mut browser = Browser::start();
    browser.resize(390, 844, true);
    visit(&mut browser, node.node.addr);
    browser.click("button[data-model='m']");
    browser.until("document.querySelector('#release-body button[data-order=canary]')");
    let hidden = browser.value(
        "[...document.querySelectorAll('#release-dialog button')].filter((one) => one.getBoundingClientRect().right > \
         document.getElementById('release-dialog').getBoundingClientRect().right).map((one) => one.textContent)",
    );
    assert_eq!(hidden, json!([]));
    accessible(&mut browser, "the versions of a model");
    let at = "[document.activeElement.dataset.order, document.activeElement.dataset.version]";
    browser.value("document.querySelector('#release-body button[data-order=canary]').focus()");
    browser.value("void (window.before = document.getElementById('release-table'))");
    browser.until("document.getElementById('release-table') !== window.before");
    assert_eq!(browser.value(at), json!(["canary", "1"]));
    browser.value("document.activeElement.click()");
    browser.until("document.activeElement.textContent === 'Begin the canary'");
    browser.press("Tab");
    browser.value("document.activeElement.click()");
    assert_eq!(browser.value(at), json!(["canary", "1"]), "whoever leaves it is back where they were");
    browser.click("#release-close");
    browser.until("document.activeElement.dataset.model === 'm'");
    assert_eq!(browser.faults(), Vec::<String>::new());
}

#[test]
fn a_map_of_many_regions_can_be_read_on_a_phone() {
    let node = TestNode::on_cpu(&[]);
    let mut browser = Browser::start();
    browser.resize(390, 844, true);
    visit(&mut browser, node.node.addr);
    browser.until(LIVE);
    browser.until("document.querySelector('#map svg')");
    browser.click("#pause");
    let shown = browser.value(
        "import('/dashboard/map.js').then(({ show }) => { \
         const regions = ['ams', 'fra', 'lhr', 'cdg', 'iad', 'ewr', 'ord', 'sea', 'sjc', 'lax', 'nrt', 'syd', 'r'.repeat(40)]; \
         const members = regions.map((region, at) => ({ node: `n-${at}`, region, state: 'active', connected: true, \
           here: at === 0, rtt_ms: at })); \
         show({ node: { name: 'n-0', region: 'ams' }, cluster: { size: members.length, members } }); \
         const box = document.querySelector('#map svg').getBoundingClientRect(); \
         const all = [...document.querySelectorAll('#map text:not(.count)')].map((one) => one.getBoundingClientRect()); \
         const cut = all.filter((one) => one.left < box.left || one.right > box.right || one.bottom > box.bottom); \
         const over = all.filter((one, at) => all.slice(at + 1).some((other) => one.left < other.right && \
           other.left < one.right && one.top + 3 < other.bottom && other.top + 3 < one.bottom)); \
         return { cut: cut.length, over: over.length, high: Math.min(...all.map((one) => one.height)), \
           home: document.querySelector('#map .region').textContent }; })",
    );
    assert_eq!((&shown["cut"], &shown["over"]), (&json!(0), &json!(0)), "{shown}");
    assert_eq!(shown["home"], "ams");
    assert!(shown["high"].as_f64().is_some_and(|high| high > 10.0), "{shown}");
    assert_eq!(browser.faults(), Vec::<String>::new());
}

/// Ticks of a series, a minute apart.
fn feed(node: &TestNode, series: &str, places: std::ops::Range<u64>, value: impl Fn(u64) -> f64) {
    let tick = |at: u64| {
        let ts = 1_767_571_200_000 + at * 60_000;
        json!({ "series": series, "ts": ts, "value": value(at) }).to_string()
    };
    let lines: Vec<String> = places.map(tick).collect();
    assert_eq!(node.post("/v1/ticks", &lines.join("\n")).status, 200, "{series}");
}

fn choose(browser: &mut Browser, series: &str) {
    // Whoever goes there is offered what has come since.
    browser.value("void document.getElementById('fan-series-box').dispatchEvent(new Event('pointerenter'))");
    let name = json!(series);
    browser.until(&format!(
        "[...document.querySelectorAll('#fan-series option')].some((one) => one.value === {name})"
    ));
    wish(browser, series);
}

/// The same of one that is not offered.
fn wish(browser: &mut Browser, series: &str) {
    let name = json!(series);
    browser.value(&format!(
        "(() => {{ const field = document.getElementById('fan-series'); field.append(new Option({name})); \
         field.value = {name}; field.dispatchEvent(new Event('change', {{ bubbles: true }})); }})()"
    ));
}

#[test]
fn what_is_shown_is_of_the_chosen_series_whenever_it_came_and_whatever_it_lacks() {
    const MODEL: &str = "nhits-vol-quantile";
    let node = TestNode::on_cpu(&[]);
    let mut browser = Browser::start();
    browser.resize(1440, 900, false);
    browser.open(&format!("http://{}/#model={MODEL}", node.node.addr));
    browser.until("document.getElementById('fan-state').textContent.startsWith('no series is as long as the model’s window')");
    // The first that comes is shown without being asked for, to as many places as tell its changes.
    feed(&node, "tiny", 0..140, |at| 1.2e-6 + (at % 7) as f64 * 1e-8);
    browser.until(PREDICTED);
    let words = browser.text("#fan-words");
    assert!(words.starts_with(&format!("tiny by {MODEL}: observed 1.")) && words.contains("e−6"), "{words}");
    let marks =
        "[...document.querySelectorAll('#fan-readout dd, #fan-facts dd')].map((one) => one.textContent)";
    let shown = browser.value(marks).to_string();
    assert!(!shown.contains("0.000\""), "{shown}");
    feed(&node, "huge", 0..140, |at| 3e12 + (at % 7) as f64 * 1e9);
    choose(&mut browser, "huge");
    browser.until(&format!(
        "/^huge by {MODEL}: observed 3\\.\\d+e12 at /.test(document.getElementById('fan-words').textContent)"
    ));
    // A name with dots in it is not another's.
    feed(&node, "b", 0..140, |_| 77.0);
    feed(&node, "a/../b", 0..140, |at| 5.0 + (at % 2) as f64);
    choose(&mut browser, "a/../b");
    browser.until(&format!(
        "/^a\\/\\.\\.\\/b by {MODEL}: observed 6\\.0/.test(document.getElementById('fan-words').textContent)"
    ));
    browser.until(PREDICTED);
    // Of one that is too short nothing is said but that; what was there before is gone.
    feed(&node, "short", 0..100, |_| 41.0);
    wish(&mut browser, "short");
    browser.until("document.getElementById('fan-state').textContent.includes('28 observations short')");
    browser.until(&format!("/^short by {MODEL}: observed 41.* No prediction yet\\.$/.test(document.getElementById('fan-words').textContent)"));
    let facts = browser
        .value("['fan-readout', 'fan-facts'].map((id) => document.getElementById(id).textContent)")
        .to_string();
    assert!(facts.contains("41") && !facts.contains("6.0") && !facts.contains("Median"), "{facts}");
    feed(&node, "short", 100..110, |_| 41.0);
    browser.until("document.getElementById('fan-state').textContent.includes('18 observations short')");
    feed(&node, "short", 110..129, |_| 41.0);
    browser.until(PREDICTED);
    assert_eq!(browser.faults(), Vec::<String>::new());
    // Nor is the picture of another left to one of which nothing is known.
    wish(&mut browser, "nobody");
    browser.until("document.getElementById('fan-words').textContent.startsWith('nobody by')");
    browser.until("document.getElementById('fan-state').textContent.includes('128 observations short')");
    assert_eq!(browser.value("document.querySelectorAll('#fan-plot canvas').length"), json!(0));
    assert_eq!(browser.text("#fan-readout"), "");
    // What turns text around is seen as that.
    feed(&node, "\u{202e}evil", 0..140, |_| 1.0);
    choose(&mut browser, "\u{202e}evil");
    browser.until("document.getElementById('fan-words').textContent.startsWith('\\ufffdevil by')");
}

#[test]
fn numbers_are_read_as_what_they_are() {
    let node = TestNode::on_cpu(&[]);
    let mut browser = Browser::start();
    visit(&mut browser, node.node.addr);
    let shown = browser.value(
        "import('/dashboard/format.js').then(({ value, number, plain, scale, TIMES, millis }) => [ \
         value(-2.3271, 0.003), value(1234567.891, 0.5), value(65000, 100), value(1.2345e-6, 2e-10), value(0, 2e-10), \
         value(2.9989363e12, 7e6), value(null), value(5, 1), number(7.3e-7), number(0.0123), number(12345.6), \
         number(7.355e12), plain(-0.00001234), plain(1.5), plain(null), scale([0, 2.5, 5, 7.5], 2.5).join(), scale([0, 5, 10, 15], 5).join(), \
         scale([0, 0.2, 0.4], 0.2, TIMES).join(), scale([0, 2, 4], 2, TIMES).join(), millis(0.0088), millis(0.05), millis(0.25), millis(0), \
         millis(12.34), millis(20000)])",
    );
    let want = json!([
        "−2.327",
        "1,234,567.9",
        "65,000",
        "1.2345e−6",
        "0.00000000",
        "2.998936e12",
        "–",
        "5",
        "7.30e−7",
        "0.0123",
        "12,346",
        "7.36e12",
        "−0.00001234",
        "1.5",
        "–",
        "0.0,2.5,5.0,7.5",
        "0,5,10,15",
        "0 µs,200 µs,400 µs",
        "0 ms,2 ms,4 ms",
        "8.8 µs",
        "50 µs",
        "0.25 ms",
        "0.00 ms",
        "12.3 ms",
        "20.0 s"
    ]);
    assert_eq!(shown, want);
}

#[test]
fn a_node_that_is_gone_stays_on_the_map() {
    let node = TestNode::on_cpu(&[]);
    let mut browser = Browser::start();
    visit(&mut browser, node.node.addr);
    browser.until(LIVE);
    browser.until("document.querySelector('#map svg')");
    browser.click("#pause");
    browser.value(
        "import('/dashboard/map.js').then(({ show }) => show({ node: { name: 'a', region: 'iad' }, cluster: { size: 3, \
         members: [{ node: 'a', region: 'iad', here: true, state: 'active' }, { node: 'b', region: 'fra', state: 'active', rtt_ms: 80 }], \
         lost: [{ node: 'b', region: 'fra' }, { node: 'c', region: 'nrt', since: '2026-11-30T00:00:00Z' }] } }))",
    );
    let rows =
        browser.value("[...document.querySelectorAll('#nodes tbody tr')].map((row) => row.textContent)");
    let rows: Vec<&str> = rows.as_array().expect("rows").iter().filter_map(Value::as_str).collect();
    assert_eq!(rows.len(), 3, "{rows:?}");
    assert!(rows[2].starts_with("cnrt■ gone"), "{rows:?}");
    assert_eq!(browser.text("#map-note"), "2 of 3 nodes, 1 gone");
    let moods = browser.value("[...document.querySelectorAll('#map .spot')].map((one) => one.dataset.mood)");
    assert_eq!(moods, json!(["good", "good", "bad"]), "fra, iad, nrt");
    // Nor does one that cannot answer look well.
    browser.value(
        "import('/dashboard/map.js').then(({ show }) => show({ node: { name: 'a', region: 'iad' }, cluster: { size: 1, \
         members: [{ node: 'a', region: 'iad', here: true, state: 'not-ready' }] } }))",
    );
    assert_eq!(browser.text("#nodes .state"), "■ not-ready");
    assert_eq!(browser.value("document.querySelector('#map .spot').dataset.mood"), json!("bad"));
}

#[test]
fn charts_go_on_when_the_clock_of_the_node_is_set_back() {
    let node = TestNode::on_cpu(&[]);
    let mut browser = Browser::start();
    visit(&mut browser, node.node.addr);
    browser.until(LIVE);
    browser.click("#pause");
    let said = browser.value(
        "import('/dashboard/charts.js').then((charts) => { charts.clear(); \
         return [[2e12, 5], [2e12 + 1000, 6], [1e12, 7], [1e12 + 1000, 8]].map(([at, rate]) => { \
         charts.observe({ at, requests: { rate }, streams: {} }); charts.show(); \
         return document.querySelector('#rate-keys b').textContent; }); })",
    );
    assert_eq!(said, json!(["5.0", "6.0", "7.0", "8.0"]));
    assert_eq!(browser.faults(), Vec::<String>::new());
}

#[test]
fn of_very_many_models_each_is_found_and_what_does_not_serve_is_seen() {
    let node = TestNode::on_cpu(&[]);
    let mut browser = Browser::start();
    visit(&mut browser, node.node.addr);
    browser.until(LIVE);
    browser.click("#pause");
    let home = browser.text("#node-name");
    let shown = |from: usize, state: &str| {
        format!(
            "import('/dashboard/models.js').then(({{ observe }}) => observe({{ node: {{ name: '{home}', uptime_seconds: 9e9 }}, \
             models: Array.from({{ length: {} }}, (_, at) => ({{ name: `m${{{from} + at}}`, version: '1', \
             state: at === {} ? '{state}' : 'ready' }})) }}, '{home}'))",
            450 - from,
            449 - from,
        )
    };
    browser.value(&shown(100, "unavailable"));
    let first = "document.querySelector('#models tbody tr').textContent";
    assert!(browser.value(first).as_str().is_some_and(|row| row.starts_with("m449 1○ unavailable")));
    // Whoever is on a button stays on that of the same model, though others have come before it.
    browser.value("document.querySelector('button[data-model=m101]').focus()");
    browser.value(&shown(10, "ready"));
    let row = "[document.activeElement.dataset.model, document.activeElement.closest('tr').cells[0].textContent.trim()]";
    assert_eq!(browser.value(row), json!(["m101", "m101"]));
    let of_row = "[...document.querySelectorAll('#models tbody tr')].every((row) => \
                  !row.querySelector('button') || row.cells[0].textContent.trim() === row.querySelector('button').dataset.model)";
    assert_eq!(browser.value(of_row), json!(true));
    browser.value("document.getElementById('models-find').focus()");
    browser.insert("M449");
    let names = "[...document.querySelectorAll('#models tbody th')].map((one) => one.textContent.trim())";
    assert_eq!(browser.value(names), json!(["m449"]));
    accessible(&mut browser, "models that are sought");
    assert_eq!(browser.faults(), Vec::<String>::new());
}

#[test]
fn a_token_of_an_identity_provider_can_be_typed_whole() {
    let node = TestNode::on_cpu(&[]);
    let mut browser = Browser::start();
    visit(&mut browser, node.node.addr);
    browser.until(LIVE);
    browser.click("#key-open");
    browser.value("document.getElementById('key-input').focus()");
    let token = "e".repeat(4000);
    browser.insert(&token);
    assert_eq!(browser.value("document.getElementById('key-input').value.length"), json!(token.len()));
}

#[test]
fn a_pattern_is_no_series_to_be_shown() {
    let node = TestNode::on_cpu(&[]);
    let mut browser = Browser::start();
    visit(&mut browser, node.node.addr);
    browser.until("document.getElementById('fan-state').textContent.startsWith('no series is as long as')");
    let said = browser.value(
        "(() => { const field = document.getElementById('fan-series'); field.append(new Option('fx/*')); field.value = 'fx/*'; \
         field.dispatchEvent(new Event('change', { bubbles: true })); return document.getElementById('fan-state').textContent; })()",
    );
    assert_eq!(said, json!("a pattern stands for many series: name one"));
}

#[test]
fn fields_are_told_from_the_page_by_their_edge() {
    let node = TestNode::on_cpu(&[]);
    let mut browser = Browser::start();
    for scheme in ["light", "dark"] {
        browser.prefer(scheme);
        visit(&mut browser, node.node.addr);
        browser.until("document.querySelector('#audit-id')");
        // WCAG 2.2, 1.4.11.
        let least = browser.value(
            "(() => { const of = (colour) => { const [r, g, b] = colour.match(/\\d+/g).map((one) => { const part = one / 255; \
             return part <= .04045 ? part / 12.92 : ((part + .055) / 1.055) ** 2.4; }); return .2126 * r + .7152 * g + .0722 * b; }; \
             const ratio = (one, other) => { const [low, high] = [of(one), of(other)].sort((a, b) => a - b); return (high + .05) / (low + .05); }; \
             return Math.min(...[...document.querySelectorAll('main select, main input')].map((one) => \
             ratio(getComputedStyle(one).borderTopColor, getComputedStyle(one.closest('.panel')).backgroundColor))); })()",
        );
        assert!(least.as_f64().is_some_and(|least| least >= 3.0), "{scheme}: {least}");
    }
}

/// A file with one key that `peregrine keys new` has drawn.
struct Keys {
    _dir: tempfile::TempDir,
    file: String,
    key: String,
}

impl Keys {
    fn draw(scopes: &[&str]) -> Self {
        let drawn = drawn_key("desk", scopes);
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("keys.toml");
        fs::write(&file, drawn["entry"].as_str().expect("an entry")).expect("a file");
        let key = drawn["key"].as_str().expect("a key").to_owned();
        Self { _dir: dir, file: file.display().to_string(), key }
    }

    /// A node that answers nobody without a key.
    fn node(&self, keys: &[(&str, &str)]) -> TestNode {
        let own = [
            ("SECURITY__KEYS", self.file.as_str()),
            ("SECURITY__REQUIRED", "true"),
            ("SECURITY__ANONYMOUS", "[]"),
        ];
        TestNode::on_cpu(&[&own, keys].concat())
    }
}

#[test]
fn a_key_is_asked_for_kept_in_the_tab_and_shown_to_websockets() {
    let keys = Keys::draw(&["predict", "observe"]);
    // Pages of others are named; the node's own needs no name.
    let node = keys.node(&[("SECURITY__CORS_ORIGINS", "[\"https://desk.example\"]"), ("DEMO__RATE", "20")]);
    let key = &keys.key;
    let mut browser = Browser::start();
    visit(&mut browser, node.node.addr);
    browser.until("document.getElementById('key-dialog').open");
    assert!(browser.text("#key-wrong").contains("this needs an API key"));
    browser.value(&format!("document.getElementById('key-input').value = {}", json!(key)));
    browser.click("#key-form button.main");
    browser.until(LIVE);
    browser.until(PREDICTED);
    // What was refused before is told by status; nothing was ever told of the key.
    let refused = browser.faults();
    let is_refusal = |fault: &String| fault.contains("401") || fault.contains("HTTP Authentication failed");
    assert!(!refused.is_empty() && refused.iter().all(is_refusal), "{refused:#?}");
    let page = browser.value(
        "document.documentElement.outerHTML + location.href + document.cookie + JSON.stringify(localStorage)",
    );
    assert!(!page.as_str().expect("text").contains(key));
    browser.click("#key-open");
    browser.click("#key-forget");
    browser.until("document.getElementById('key-dialog').open && document.getElementById('key-wrong').textContent !== ''");
}

#[test]
fn who_closes_the_question_for_a_key_is_not_asked_again() {
    let keys = Keys::draw(&["predict", "observe"]);
    let node = keys.node(&[]);
    let mut browser = Browser::start();
    visit(&mut browser, node.node.addr);
    let is_open = "document.getElementById('key-dialog').open";
    browser.until(is_open);
    assert_eq!(browser.text("#link-text"), "A key is needed");
    assert_eq!(browser.text("#said"), "", "nothing was connected that could be lost");
    browser.click("#key-close");
    browser.value(
        "void (window.refused = 0, window.real = fetch, window.fetch = (...how) => real(...how).then((answer) => { \
         refused += answer.status === 401; return answer; }))",
    );
    browser.until("refused >= 2");
    assert_eq!(browser.value(is_open), json!(false));
    assert_eq!(browser.text("#link-text"), "A key is needed");
    // A wrong one is another matter.
    browser.click("#key-open");
    browser.value("void (document.getElementById('key-input').value = 'pgk_wrong')");
    browser.click("#key-form button.main");
    browser.until(&format!(
        "{is_open} && document.getElementById('key-wrong').textContent.includes('not known here')"
    ));
}

#[test]
fn a_key_that_may_not_read_predictions_is_told_so() {
    let keys = Keys::draw(&["observe"]);
    let node = keys.node(&[]);
    let mut browser = Browser::start();
    visit(&mut browser, node.node.addr);
    browser.until("document.getElementById('key-dialog').open");
    browser.value(&format!("document.getElementById('key-input').value = {}", json!(keys.key)));
    browser.click("#key-form button.main");
    browser.until(LIVE);
    browser.until("document.getElementById('fan-state').textContent.includes('scope predict is needed')");
}

#[test]
fn a_websocket_takes_a_key_among_its_subprotocols_and_does_not_repeat_it() {
    let keys = Keys::draw(&["predict", "observe"]);
    let node = keys.node(&[]);
    let coded = URL_SAFE_NO_PAD.encode(&keys.key);
    let offer = format!("peregrine.v1.json, peregrine.key.{coded}");
    let overview = WebSocket::open(node.node.addr, "/v1/overview/stream", Some(&offer));
    let mut socket = WebSocket::open(node.node.addr, "/v1/stream", Some(&offer));
    for head in [&socket.head, &overview.head] {
        assert!(head.contains("sec-websocket-protocol: peregrine.v1.json\r\n"), "{head}");
        assert!(!head.contains(&coded));
    }
    socket.text(r#"{"op":"subscribe","id":1,"model":"nhits-vol-quantile","series":["a"]}"#);
    socket.op("subscribed");
    let upgrade = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    for wrong in [
        "peregrine.v1.json, peregrine.key.cGdrX3dyb25n",
        "peregrine.v1.json, peregrine.key.*",
        "peregrine.v1.json",
    ] {
        let headers = [&upgrade[..], &[("Sec-WebSocket-Protocol", wrong)]].concat();
        assert_eq!(request(node.node.addr, "GET", "/v1/stream", &headers, b"").status, 401, "{wrong}");
    }
}

#[test]
fn the_page_needs_no_key_and_tells_browsers_to_run_nothing_else() {
    let node = Keys::draw(&["observe"]).node(&[]);
    for path in ["/", "/dashboard/app.js", "/dashboard/style.css"] {
        let answer = request(node.node.addr, "GET", path, &[("Accept-Encoding", "gzip, br")], b"");
        assert_eq!((answer.status, answer.header("content-encoding")), (200, Some("gzip")), "{path}");
        let policy = answer.header("content-security-policy").expect("a policy");
        assert!(
            policy.starts_with("default-src 'none'; script-src 'self';") && !policy.contains("unsafe"),
            "{policy}"
        );
        assert_eq!(answer.header("x-frame-options"), Some("DENY"));
        let tag = answer.header("etag").expect("a tag").to_owned();
        let known = [("Accept-Encoding", "gzip"), ("If-None-Match", tag.as_str())];
        let again = request(node.node.addr, "GET", path, &known, b"");
        assert_eq!(
            (again.status, again.body.len(), again.header("etag")),
            (304, 0, Some(tag.as_str())),
            "{path}"
        );
    }
    for path in ["/dashboard/none.js", "/dashboard/", "/dashboard"] {
        assert!(matches!(node.get(path).status, 401 | 404), "{path}");
    }
    assert_eq!(node.post("/", "").status, 405);
    assert_eq!(node.get("/v1/models").status, 401);
}
