//! `[scaler]`: what is built in, what a file changes of it, and what is wrong with what was written.

use std::time::Duration;

use peregrine_scaler::rule::defaults;

use super::tests::{check, file_with};
use super::*;

/// A group, a pool and a price in one text, each part of which may be changed.
const OWN: &str = r#"
[scaler.groups.gpu]
pool = "cloud"
provider = "acme"
kind = "h100"
machines_max = 4
capacity = 900.0
[scaler.groups.gpu.regions.fra]
[scaler.pools.cloud]
kind = "simulated"
[scaler.prices.acme.fra.h100]
running_per_hour = 2.5
stopped_per_hour = 0.02
read_on = "2026-11-01"
"#;

fn scaler(text: &str) -> ScalerConfig {
    let file = file_with(text);
    resolve(&Sources { files: vec![file.path().to_owned()], ..Sources::default() }).unwrap().config.scaler
}

/// What is wrong when a part of [`OWN`] is another.
#[track_caller]
fn changed(this: &str, that: &str, want: &[&str]) {
    let text = OWN.replacen(this, that, 1);
    assert_ne!(text, OWN, "{this}");
    check(&text, want);
}

#[test]
fn the_built_in_rules_are_the_default_ones() {
    let mut want = defaults();
    want.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(scaler("").rules, want);
}

#[test]
fn a_report_is_not_stale_before_the_next_can_be_there() {
    check(
        "[scaler]\nstale_after = \"1s\"\n",
        &["FILE:2:15: scaler.stale_after: 1s is not within 2s and 86400s"],
    );
}

#[test]
fn it_is_off_and_one_key_turns_it_on() {
    let off = scaler("");
    assert!(!off.enabled && !off.dry_run);
    let on = scaler("[scaler]\nenabled = true\n");
    assert_eq!(ScalerConfig { enabled: false, ..on.clone() }, off);
    let fleet = on.fleet();
    assert_eq!((fleet.groups.len(), fleet.rules.len()), (1, 6));
    let group = &fleet.groups[0];
    assert!(matches!(on.pools[&group.pool], PoolConfig::Local(_)));
    assert_eq!((group.machines_min, group.machines_max, group.warm), (1, 6, 1));
    assert_eq!(group.places.len(), 1);
    assert_eq!(fleet.budget.per_hour, None);
}

#[test]
fn a_group_has_its_regions_and_their_prices() {
    let own = scaler(OWN);
    let group = own.groups.iter().find(|group| group.spec.name == "gpu").unwrap();
    assert_eq!(group.release, env!("CARGO_PKG_VERSION"));
    assert_eq!(
        (group.spec.drain, group.spec.ready_after),
        (Duration::from_secs(30), Duration::from_secs(60))
    );
    let place = &group.spec.places[0];
    assert_eq!((place.region.as_str(), place.machines_max), ("fra", 4));
    assert_eq!((place.running_per_hour, place.stopped_per_hour), (2.5, 0.02));
    let price = own.prices.iter().find(|price| price.provider == "acme").unwrap();
    assert_eq!(price.read_on, jiff::civil::date(2026, 11, 1));
    let other = "[scaler.groups.gpu.regions.iad]\nkind = \"a100\"\nmachines_max = 2\n[scaler.prices.acme.iad.a100]\n\
        running_per_hour = 1.0\nread_on = \"2026-11-01\"\n";
    let both = scaler(&format!("{OWN}{other}"));
    let group = both.groups.iter().find(|group| group.spec.name == "gpu").unwrap();
    let places: Vec<(&str, u32, f64)> = group
        .spec
        .places
        .iter()
        .map(|place| (place.region.as_str(), place.machines_max, place.running_per_hour))
        .collect();
    assert_eq!(places, [("fra", 4, 2.5), ("iad", 2, 1.0)]);
}

#[test]
fn what_is_built_in_is_changed_key_by_key_or_turned_off() {
    let text = "[scaler.groups.inference]\nenabled = false\n[scaler.rules.low_use.down]\nwhen = \"utilisation < 0.2\"\n\
        [scaler.rules.cost_efficiency]\nenabled = false\n";
    let own = scaler(text);
    assert!(own.groups.is_empty());
    assert_eq!(own.rules.len(), 5);
    let low = own.rules.iter().find(|rule| rule.name == "low_use").unwrap();
    let down = low.down.as_ref().unwrap();
    assert_eq!((down.when.text(), down.cooldown), ("utilisation < 0.2", Duration::from_secs(600)));
}

#[test]
fn mistakes_of_groups_and_prices_are_named_with_their_place() {
    changed(
        "pool = \"cloud\"",
        "pool = \"clod\"",
        &["FILE:3:8: scaler.groups.gpu.pool: there is no pool `clod` in use"],
    );
    changed(
        "[scaler.prices.acme.fra.h100]",
        "[scaler.prices.acme.fra.a100]",
        &["FILE:8:1: scaler.groups.gpu.regions.fra: has no price: [scaler.prices.acme.fra.h100] is missing"],
    );
    changed(
        "read_on = \"2026-11-01\"",
        "read_on = \"1.11.2026\"",
        &["FILE:14:11: scaler.prices.acme.fra.h100.read_on: `1.11.2026` is not a day such as 2026-11-28"],
    );
    changed(
        "running_per_hour = 2.5",
        "running_per_hour = nan",
        &["FILE:12:20: scaler.prices.acme.fra.h100.running_per_hour: NaN is not within 0 and 1000000000"],
    );
    changed(
        "capacity = 900.0",
        "capacity = 0.0",
        &["FILE:7:12: scaler.groups.gpu.capacity: 0 is not above 0 and at most 1000000000"],
    );
    changed(
        "capacity = 900.0",
        "capacity = 900.0\nmachines_min = 5",
        &["FILE:8:16: scaler.groups.gpu.machines_min: 5 is more than machines_max = 4"],
    );
    changed(
        "[scaler.groups.gpu.regions.fra]",
        "[scaler.groups.gpu.regions.fra]\nmachines_max = 1\nmachines_mx = 1",
        &[
            "FILE:10:1: scaler.groups.gpu.regions.fra.machines_mx: unknown key `machines_mx`, expected one of \
         `machines_max`, `provider`, `kind`",
        ],
    );
    changed(
        "machines_max = 4",
        "machines_max = 4000",
        &["FILE:6:16: scaler.groups.gpu.machines_max: 4000 is not within 1 and 1000"],
    );
    check(
        "[scaler.groups.\"../x\"]\nenabled = false\n",
        &[
            "FILE:2:11: scaler.groups.\"../x\": `../x` is no name: 1 to 32 of a-z, 0-9 and `-`, a letter first",
            "FILE:2:11: scaler.groups.\"../x\".pool: is missing",
            "FILE:2:11: scaler.groups.\"../x\".machines_max: is missing",
            "FILE:2:11: scaler.groups.\"../x\".capacity: is missing",
            "FILE:2:11: scaler.groups.\"../x\".regions: is missing",
        ],
    );
    check(
        "[scaler.groups]\ngpu = [1]\n",
        &["FILE:2:7: scaler.groups.gpu: invalid type: list, expected a table"],
    );
}

#[test]
fn a_market_has_a_calendar() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("mine.toml");
    std::fs::write(&file, "extends = \"xnys\"\n").unwrap();
    let text = |files: &str, market: &str| {
        format!("[scaler]\ncalendars = [{files}]\n[scaler.groups.inference]\nmarkets = [\"{market}\"]\n")
    };
    let own = scaler(&text(&format!("\"{}\"", file.display()), "MINE"));
    assert_eq!(
        (own.groups[0].markets.as_slice(), own.calendars.get("mine").is_ok()),
        (&["MINE".to_owned()][..], true)
    );
    check(
        &text("", "mine"),
        &["FILE:4:11: scaler.groups.inference.markets: there is no calendar `mine`; there are \
        crypto, fx, xcme, xetr, xlon, xnas, xnys, xtks"],
    );
    std::fs::write(&file, "zone = \"Mars\"\n").unwrap();
    let broken = file_with(&text(&format!("\"{}\"", file.display()), "xnys"));
    let error =
        resolve(&Sources { files: vec![broken.path().to_owned()], ..Sources::default() }).unwrap_err();
    assert!(error.to_string().contains(":2:13: scaler.calendars: calendar mine: "), "{error}");
}

#[test]
fn mistakes_of_rules_are_named_with_their_place() {
    let rule = |arm: &str| format!("[scaler.rules.own.up]\ncooldown = \"1m\"\nmachines_max = 3\n{arm}\n");
    check(
        "[scaler.rules.own]\npriority = 1\n",
        &["FILE:2:12: scaler.rules.own: has neither `up` nor `down`: it would do nothing"],
    );
    check(
        &rule("when = \"machines > 1.0\"\nstep = 0\nmachines_min = 4"),
        &[
            "FILE:5:8: scaler.rules.own.up.step: 0 is not within 1 and 1000",
            "FILE:6:16: scaler.rules.own.up.machines_min: 4 is more than machines_max = 3",
        ],
    );
    check(
        "[scaler.rules.own]\ngroups = [\"gpu\"]\n[scaler.rules.own.up]\nwhen = \"machines < 1.0\"\n",
        &[
            "FILE:2:10: scaler.rules.own.groups: there is no group `gpu`",
            "FILE:4:8: scaler.rules.own.up.cooldown: is missing",
            "FILE:4:8: scaler.rules.own.up.machines_max: is missing",
        ],
    );
    // What is no expression, what is not known, and what is neither true nor false, each in the language's own words.
    for (when, why) in
        [("utilisation >", "is no expression"), ("utilization > 0.5", "is not known"), ("1.0 + 1.0", "")]
    {
        let file = file_with(&rule(&format!("when = \"{when}\"")));
        let sources = Sources { files: vec![file.path().to_owned()], ..Sources::default() };
        let told = match resolve(&sources) {
            Err(error) => error.mistakes,
            Ok(resolved) => panic!("{when}: {:?}", resolved.config.scaler.rules),
        };
        assert_eq!(told.len(), 1, "{told:?}");
        let told = told[0].to_string().replace(&file.path().display().to_string(), "FILE");
        assert!(told.starts_with("FILE:4:8: scaler.rules.own.up.when: ") && told.contains(why), "{told}");
    }
}

#[test]
fn mistakes_of_pools_are_named_with_their_place() {
    changed(
        "kind = \"simulated\"",
        "kind = \"simulated\"\nmachines_max = 3",
        &["FILE:11:16: scaler.pools.cloud.machines_max: is a key of kind local, and this pool is simulated"],
    );
    changed(
        "kind = \"simulated\"",
        "kind = \"gpus\"",
        &[
            "FILE:3:8: scaler.groups.gpu.pool: there is no pool `cloud` in use",
            "FILE:10:8: scaler.pools.cloud.kind: unknown variant `gpus`, expected one of `local`, `command`, `fly`, \
         `simulated`",
        ],
    );
    changed(
        "kind = \"simulated\"",
        "kind = \"command\"\nlist = []\ncreate = [\"\"]\nstart = [\"a\"]\nstop = [\"a\"]\n\
        cordon = [\"a\"]",
        &[
            "FILE:11:8: scaler.pools.cloud.list: is not a program and its arguments, such as [\"cloud\", \"list\"]",
            "FILE:12:10: scaler.pools.cloud.create: is not a program and its arguments, such as [\"cloud\", \"list\"]",
            "FILE:15:10: scaler.pools.cloud.destroy: is missing",
            "FILE:15:10: scaler.pools.cloud.uncordon: is missing: `cordon` and `uncordon` come together",
        ],
    );
    changed(
        "kind = \"simulated\"",
        "kind = \"local\"\nmachines_max = 1\nprogram = \"/nowhere\"",
        &["FILE:12:11: scaler.pools.cloud.program: there is no file `/nowhere`"],
    );
    changed(
        "kind = \"simulated\"",
        "kind = \"fly\"\napp = \"A\"\ntoken = \"a\\nb\"\ntemplates = { gpu = \"/no.json\" }",
        &[
            "FILE:11:7: scaler.pools.cloud.app: is no name of an app",
            "FILE:12:9: scaler.pools.cloud.token: is no token",
            "FILE:13:21: scaler.pools.cloud.templates.gpu: there is no file `/no.json`",
        ],
    );
}

#[test]
fn numbers_of_the_whole_are_checked() {
    check(
        "[scaler]\nhold = \"15s\"\nbudget_per_hour = -1.0\ndead_band = inf\ndir = \"\"\ncalendars = [\"/no.toml\"]\n",
        &[
            "FILE:2:8: scaler.hold: 15s is not more than evaluate_every = 15s",
            "FILE:3:19: scaler.budget_per_hour: -1 is not within 0 and 1000000000",
            "FILE:4:13: scaler.dead_band: inf is not within 0 and 1",
            "FILE:5:7: scaler.dir: names no folder",
            "FILE:6:13: scaler.calendars: `/no.toml` cannot be read: No such file or directory (os error 2)",
        ],
    );
}

#[test]
fn what_a_pool_is_let_in_with_is_never_printed() {
    let fly = "kind = \"fly\"\napp = \"a\"\ntoken = \"hush-1\"\ntemplates = {}";
    let local =
        "[scaler.pools.own]\nkind = \"local\"\nmachines_max = 1\nenvironment = { KEY = \"hush-2\" }\n";
    let text = format!("{}{local}", OWN.replace("kind = \"simulated\"", fly));
    let file = file_with(&text);
    let resolved = resolve(&Sources { files: vec![file.path().to_owned()], ..Sources::default() }).unwrap();
    let PoolConfig::Fly(pool) = &resolved.config.scaler.pools["cloud"] else { panic!("it is Fly's") };
    assert_eq!(pool.token.expose(), "hush-1");
    for text in [resolved.to_toml(), resolved.to_json().to_string(), format!("{resolved:?}")] {
        assert!(!text.contains("hush"), "{text}");
    }
}
