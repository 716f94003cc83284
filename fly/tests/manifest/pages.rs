//! What the pages beside fly.toml say agrees with what they speak of.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use serde_json::Value as Json;

use crate::ours::{NodeFile, Settings, path_of};
use crate::{data, folder, root};

/// Where no WireGuard gateway is.
const WITHOUT_GATEWAY: [&str; 2] = ["gru", "jnb"];

fn page(name: &str) -> String {
    fs::read_to_string(folder().join(name)).unwrap_or_else(|error| panic!("fly/{name}: {error}"))
}

#[test]
fn a_worker_is_configured_by_keys_that_exist() {
    let (page, settings) = (page("worker.md"), Settings::read(&root()));
    let variables: Vec<&str> = page
        .lines()
        .filter_map(|line| line.split_once('=').map(|(name, _)| name))
        .filter(|name| name.starts_with("PEREGRINE_"))
        .collect();
    assert!(variables.len() > 5, "{variables:?}");
    for name in variables {
        let path = path_of(name).expect("it is ours");
        assert!(settings.has(&path), "worker.md sets {name}, which is no key");
    }
}

#[test]
fn a_worker_is_given_the_time_to_drain() {
    let page = page("worker.md");
    let stop = page.split("--stop-timeout ").nth(1).and_then(|rest| rest.split(' ').next());
    let stop = Duration::from_secs(stop.and_then(|text| text.parse().ok()).expect("docker run has one"));
    let node = NodeFile::read(&root(), &root().join("configs/fly-node.toml")).expect("the node's file");
    assert!(stop >= node.drain * 2, "{stop:?}, and it drains {:?}", node.drain);
}

#[test]
fn peers_can_be_made_in_all_regions_with_a_gateway_and_no_other() {
    let script = page("deploy.sh");
    let listed = script.lines().find_map(|line| line.strip_prefix("gateways=\"")?.strip_suffix('"'));
    let listed: BTreeSet<&str> = listed.expect("deploy.sh lists them").split_whitespace().collect();
    let data = data();
    let regions = data["regions_2026_08"].as_array().expect("the data lists regions");
    let mut regions: BTreeSet<&str> = regions.iter().filter_map(Json::as_str).collect();
    for region in WITHOUT_GATEWAY {
        assert!(regions.remove(region), "{region}");
    }
    assert_eq!(listed, regions);
}

#[test]
fn the_pages_name_verbs_that_the_script_has() {
    let usage = page("deploy.sh");
    for name in ["README.md", "worker.md", "fly.toml", "fly.edge.toml"] {
        let page = page(name);
        for verb in page.split("fly/deploy.sh ").skip(1) {
            let verb: String = verb.chars().take_while(char::is_ascii_alphabetic).collect();
            assert!(usage.contains(&format!("\n  {verb} ")), "{name}: deploy.sh has no verb `{verb}`");
        }
    }
}
