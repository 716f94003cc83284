//! Clusters as data: a file's text in, the report or the resolved values out.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use super::tests::{check, file_with};
use super::*;

const SECRET: &str = "secret = \"0123456789abcdef\"\n";

#[test]
fn a_node_is_alone_unless_told_otherwise() {
    let config = resolve(&Sources::default()).unwrap().config;
    assert_eq!((config.cluster.is_none(), config.nodes.len()), (true, 0));
    assert_eq!(config.holding("nhits-vol-quantile"), Holding::Yes);
}

#[test]
fn a_cluster_has_what_it_needs() {
    let text = format!(
        "[cluster]\nlisten = \"127.0.0.1:7946\"\nseeds = [\"iad.peregrine.internal:7946\", \"[::1]:7\"]\n{SECRET}"
    );
    let cluster = accepted(&text, &[]).config.cluster.unwrap();
    assert_eq!(cluster.listen.port(), 7946);
    assert_eq!((cluster.advertise, cluster.size, cluster.name.as_str()), (None, 1, "peregrine"));
    let seeds: Vec<String> = cluster.seeds.iter().map(Seed::to_string).collect();
    assert_eq!(seeds, ["iad.peregrine.internal:7946", "[::1]:7"]);
    assert_eq!(cluster.roles, [RoleChoice::Gateway, RoleChoice::Inference].into());
    assert_eq!(cluster.detector.gossip_interval, Duration::from_millis(100));
}

#[test]
fn credentials_come_one_way() {
    check(
        "[cluster]\nlisten = \"127.0.0.1:1\"\nsecret = \"\"\n",
        &["FILE:3:10: cluster.secret: is missing: give it, or ca, certificate and key"],
    );
    check("[cluster]\nsecret = \"short\"\n", &["FILE:2:10: cluster.secret: is shorter than 16 characters"]);
    check(
        &format!("[cluster]\n{SECRET}ca = \"ca.pem\"\n"),
        &["FILE:2:10: cluster.secret: is given beside ca, certificate or key: only one of both ways"],
    );
    check(
        "[cluster]\nca = \"/no/ca.pem\"\ncertificate = \"\"\nkey = \"Cargo.toml\"\n",
        &[
            "FILE:2:6: cluster.ca: there is no file `/no/ca.pem`",
            "FILE:3:15: cluster.certificate: is missing: ca, certificate and key go together",
        ],
    );
}

#[test]
fn a_secret_is_never_shown() {
    let resolved = accepted(&format!("[cluster]\n{SECRET}"), &[]);
    for shown in [resolved.to_toml(), resolved.to_json().to_string(), format!("{resolved:?}")] {
        assert!(!shown.contains("0123456789"), "{shown}");
    }
    assert!(resolved.to_toml().contains("secret = \"(redacted)\""));
    check("[cluster]\nsecret = 77\n", &["FILE:2:10: cluster.secret: expected text in quotes"]);
}

#[test]
fn an_address_that_nobody_could_dial_is_refused() {
    let wildcard = format!("[cluster]\nlisten = \"0.0.0.0:7\"\nadvertise = \"\"\n{SECRET}");
    check(
        &wildcard,
        &[
            "FILE:3:13: cluster.advertise: is missing: `0.0.0.0:7`, which is listened on, is nowhere that others \
           could dial",
        ],
    );
    let there = [("FLY_PRIVATE_IP", "fdaa::7")];
    let advertised = |text: &str| accepted(text, &there).config.cluster.unwrap().advertise;
    assert_eq!(advertised(&wildcard), Some("[fdaa::7]:7".parse().unwrap()));
    assert_eq!(advertised(&wildcard.replace("0.0.0.0", "127.0.0.1")), None);
    check(
        "[cluster]\nadvertise = \"[::]:7\"\n",
        &[
            "FILE:2:13: cluster.advertise: `[::]:7` is nowhere that others could dial: name an address and a port",
        ],
    );
    check(
        "[cluster]\nseeds = [\"0.0.0.0:7\", \"host\", \"1.2.3:7\", \"a..b:7\", \"x:0\"]\n",
        &[
            "FILE:2:9: cluster.seeds: `0.0.0.0:7` is nowhere that could be dialled",
            "FILE:2:9: cluster.seeds: `host` is not host:port, e.g. iad.peregrine.internal:7946",
            "FILE:2:9: cluster.seeds: `1.2.3:7` is not host:port, e.g. iad.peregrine.internal:7946",
            "FILE:2:9: cluster.seeds: `a..b:7` is not host:port, e.g. iad.peregrine.internal:7946",
            "FILE:2:9: cluster.seeds: `x:0` is not host:port, e.g. iad.peregrine.internal:7946",
        ],
    );
    check(
        &format!("[cluster]\nlisten = \"127.0.0.1:7\"\nseeds = [\"127.0.0.1:7\"]\n{SECRET}"),
        &["FILE:3:9: cluster.seeds: only this node itself is named; others could not be found"],
    );
}

#[test]
fn a_machine_of_fly_is_called_as_the_platform_calls_it_unless_somebody_has_named_it() {
    let there = [("FLY_MACHINE_ID", "148e4d2b"), ("FLY_REGION", "ord")];
    let named = |text: &str, there: &[(&str, &str)]| {
        let node = accepted(text, there).config.node;
        (node.name.to_string(), node.region.to_string())
    };
    let pair = |name: &str, region: &str| (name.to_owned(), region.to_owned());
    assert_eq!(named("", &there), pair("148e4d2b", "ord"));
    assert_eq!(named("[node]\nname = \"a\"\n", &there), pair("a", "ord"));
    assert_eq!(named("[node]\nname = \"a\"\nregion = \"b\"\n", &there), pair("a", "b"));
    assert_eq!(named("", &[]), pair("local", "local"));
    assert!(
        accepted("", &there).to_toml().contains("FLY_REGION"),
        "the resolved form says where it comes from"
    );
}

/// What the image of `fly/` runs with.
#[test]
fn the_configurations_for_fly_are_whole() {
    for file in ["fly-gateway.toml", "fly-node.toml"] {
        let text = std::fs::read_to_string(format!("{}/configs/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let there = [
            ("FLY_PRIVATE_IP", "fdaa::7"),
            ("FLY_REGION", "iad"),
            ("FLY_MACHINE_ID", "148e4d2b"),
            ("PEREGRINE_CLUSTER__SECRET", "a secret of this test"),
            ("PEREGRINE_CLUSTER__SEEDS", "[\"global.peregrine.internal:7946\"]"),
            ("PEREGRINE_SECURITY__KEYS", "Cargo.toml"),
        ];
        let part = accepted(&text, &there).config.cluster.unwrap();
        assert_eq!(part.advertise, Some("[fdaa::7]:7946".parse().unwrap()), "{file}");
    }
}

#[test]
fn bounds_of_routing_are_named() {
    check(
        "[routing]\nhedge_percentile = 0.5\nhedge_budget = 1.5\nretry_budget = -0.1\nremote_in_flight_max = 0\n",
        &[
            "FILE:2:20: routing.hedge_percentile: 0.5 is not above 0.5 and below 1",
            "FILE:3:16: routing.hedge_budget: 1.5 is not within 0 and 1",
            "FILE:4:16: routing.retry_budget: -0.1 is not within 0 and 1",
            "FILE:5:24: routing.remote_in_flight_max: 0 is not within 1 and 1000000",
        ],
    );
    check(
        "[cluster]\nsilence_max = \"300ms\"\nroles = []\n[regions.a]\nstandby = \"a\"\ncost_per_hour = -1.0\n",
        &[
            "FILE:2:15: cluster.silence_max: 300ms is less than four times cluster.gossip_interval",
            "FILE:3:9: cluster.roles: a node without a role does nothing",
            "FILE:5:11: regions.a.standby: `a` cannot take over from itself",
            "FILE:6:17: regions.a.cost_per_hour: -1 is not a number from 0 up",
        ],
    );
    check("[routing]\nprefer = \"cost\"\n", &["FILE:2:10: routing.prefer: no region has a cost_per_hour"]);
}

#[test]
fn a_mistake_in_a_list_of_nodes_is_placed() {
    check(
        "[[nodes]]\nname = \"a\"\nregion = \"r\"\nlisten = \"127.0.0.1:0\"\ncluster_listen = \"127.0.0.1:0\"\n\n\
         [[nodes]]\nname = \"b c\"\nregio = \"r\"\n",
        &[
            "FILE:5:18: nodes.0.cluster_listen: `127.0.0.1:0` is nowhere that the others could dial: name an \
             address and a port",
            "FILE:8:8: nodes.1.name: `b c` is no name: 1 to 64 of a-z, A-Z, 0-9, `-`, `_` and `.`",
            "FILE:8:8: nodes.1.region: is missing",
            "FILE:8:8: nodes.1.listen: is missing",
            "FILE:8:8: nodes.1.cluster_listen: is missing",
            "FILE:9:1: nodes.1.regio: unknown key `regio`, expected one of `name`, `region`, `roles`, `listen`, \
             `cluster_listen`, `backend`, `models`",
        ],
    );
    check("nodes = 3\n", &["FILE:1:9: nodes: invalid type: integer `3`, expected a list of tables"]);
    check("nodes = [3]\n", &["FILE:1:10: nodes.0: invalid type: integer `3`, expected a table"]);
    check("[regions]\na = [1]\n", &["FILE:2:5: regions.a: invalid type: list, expected a table"]);
}

#[test]
fn two_nodes_share_no_name_and_no_address() {
    let twice = three().replace("fra-1", "iad-1").replace("127.0.0.1:7947", "127.0.0.1:7946");
    check(
        &twice.replace("127.0.0.1:8081", "0.0.0.0:8080"),
        &[
            "FILE:9:8: nodes.1.name: is the name of nodes.0, `iad-1`",
            "FILE:11:10: nodes.1.listen: is the address of nodes.0, `iad-1`",
            "FILE:12:18: nodes.1.cluster_listen: is the address of nodes.0, `iad-1`",
        ],
    );
    // IPv6 beside IPv4: only `[::]` takes both.
    let beside =
        |first: &str| three().replace("127.0.0.1:8080", first).replace("127.0.0.1:8081", "[::1]:8080");
    assert_eq!(accepted(&beside("0.0.0.0:8080"), &[]).config.nodes.len(), 3);
    check(&beside("[::]:8080"), &["FILE:11:10: nodes.1.listen: is the address of nodes.0, `iad-1`"]);
    let mapped = three().replace("127.0.0.1:8081", "[::ffff:127.0.0.1]:8080");
    check(&mapped, &["FILE:11:10: nodes.1.listen: is the address of nodes.0, `iad-1`"]);
    let free = three().replace(":8080", ":0").replace(":8081", ":0").replace(":8082", ":0");
    assert_eq!(accepted(&free, &[]).config.nodes.len(), 3);
}

#[test]
fn a_region_without_a_node_is_unknown() {
    check(
        &format!("{}[regions.lhr]\nin_flight_max = 1\n[regions.iad]\nstandby = \"sea\"\n", three()),
        &[
            "FILE:22:17: regions.lhr: no node of [[nodes]] is in the region `lhr`",
            "FILE:24:11: regions.iad.standby: no node of [[nodes]] is in the region `sea`",
        ],
    );
    check(
        &format!("{}[placement.nhits-vol-quantile]\nregions = [\"lhr\"]\nremote = \"fra\"\n", three()),
        &["FILE:23:10: placement.nhits-vol-quantile.remote: `fra` is not remote:<region>"],
    );
    check(
        &format!("{}[placement.nhits-vol-quantile]\nregions = [\"iad\"]\nremote = \"remote:sea\"\n", three()),
        &["FILE:23:10: placement.nhits-vol-quantile.remote: no node of [[nodes]] is in the region `sea`"],
    );
}

#[test]
fn a_model_is_left_nowhere_by_nobody() {
    let placed = |regions: &str| format!("{}[placement.nhits-vol-quantile]\n{regions}\n", three());
    check(
        &placed("regions = []"),
        &[
            "FILE:22:11: placement.nhits-vol-quantile.regions: leaves the model nowhere",
            "FILE:22:11: placement.nhits-vol-quantile.regions: no node of these regions has the role inference and \
             the model",
        ],
    );
    check(
        &placed("regions = [\"fra\"]"),
        &[
            "FILE:22:11: placement.nhits-vol-quantile.regions: no node of these regions has the role inference and \
           the model",
        ],
    );
    check(
        &placed("regions = [\"iad\"]\nstandby = [\"iad\"]"),
        &["FILE:23:11: placement.nhits-vol-quantile.standby: `iad` is among the regions already"],
    );
    check(
        &format!("{}[placement.\"no.such\"]\nregions = [\"iad\"]\n", three()),
        &["FILE:22:11: placement.\"no.such\": no repository holds a model `no.such`"],
    );
    check(
        &three()
            .replace("\"gateway\", \"inference\"", "\"gateway\"")
            .replace("[\"inference\"]", "[\"gateway\"]"),
        &["FILE:6:9: nodes.0.roles: no node has the role inference, `iad-1` neither: no model is held"],
    );
}

#[test]
fn a_majority_is_of_all_nodes() {
    let with = |size: usize| {
        format!(
            "[cluster]\nsize = {size}\nlisten = \"127.0.0.1:9\"\n{SECRET}[node]\nregion = \"iad\"\n{}",
            three()
        )
    };
    assert_eq!(accepted(&with(0), &[]).config.cluster.unwrap().size, 3);
    assert_eq!(accepted(&with(5), &[]).config.cluster.unwrap().size, 5);
    check(
        &with(2),
        &["FILE:2:8: cluster.size: 2 is less than the 3 of [[nodes]]: two halves could both be a majority"],
    );
}

#[test]
fn bodies_are_replayed_from_a_size_that_the_proxy_takes_or_not_at_all() {
    let from = |text: &str| accepted(text, &[]).config.routing.replay_from;
    assert_eq!(from(""), Some(256 << 10));
    assert_eq!(from("routing.replay_from = \"0B\""), None);
    assert_eq!(from("routing.replay_from = \"1000000B\""), Some(1_000_000));
    let large = "1048576 is more than the 1000000 bytes that Fly's proxy replays";
    check("[routing]\nreplay_from = \"1MiB\"\n", &[&format!("FILE:2:15: routing.replay_from: {large}")]);
}

#[test]
fn a_node_holds_what_is_placed_in_its_region() {
    use Holding::{No, Standby, Yes};
    let text = format!(
        "{}[placement.nhits-vol-quantile]\nregions = [\"iad\"]\nstandby = [\"nrt\"]\n\
         [placement.mlp-vol-quantile]\nstandby = [\"nrt\"]\n",
        three()
    );
    for (node, model, want) in [
        ("iad-1", "nhits-vol-quantile", Yes),
        ("nrt-1", "nhits-vol-quantile", Standby),
        ("fra-1", "nhits-vol-quantile", No),
        ("iad-1", "mlp-vol-quantile", Yes),
        ("nrt-1", "mlp-vol-quantile", Standby),
        ("iad-1", "tcn-vol-point", Yes),
        ("fra-1", "tcn-vol-point", No),
    ] {
        let region = &node[..3];
        let roles = if node == "fra-1" { "[\"gateway\"]" } else { "[\"inference\"]" };
        let environment = [
            ("PEREGRINE_NODE__NAME", node),
            ("PEREGRINE_NODE__REGION", region),
            ("PEREGRINE_CLUSTER__LISTEN", "127.0.0.1:9"),
            ("PEREGRINE_CLUSTER__SECRET", "0123456789abcdef"),
            ("PEREGRINE_CLUSTER__ROLES", roles),
        ];
        assert_eq!(accepted(&text, &environment).config.holding(model), want, "{node} {model}");
    }
    let named = three().replace("name = \"nrt-1\"", "name = \"nrt-1\"\nmodels = [\"tcn-vol-point\"]");
    let config = accepted(&named, &[]).config;
    let held =
        ["tcn-vol-point", "mlp-vol-quantile"].map(|model| config.nodes[2].holding(model, &config.placement));
    assert_eq!(held, [Yes, No]);
}

#[test]
fn a_node_of_the_list_has_the_roles_of_the_files_whatever_this_process_does() {
    let both: BTreeSet<RoleChoice> = [RoleChoice::Gateway, RoleChoice::Inference].into();
    let text = "[[nodes]]\nname = \"a-1\"\nregion = \"a\"\nlisten = \"127.0.0.1:1\"\ncluster_listen = \"127.0.0.1:2\"\n\
                [[nodes]]\nname = \"c-1\"\nregion = \"c\"\nlisten = \"127.0.0.1:3\"\ncluster_listen = \"127.0.0.1:4\"\nroles = [\"gateway\"]\n";
    let roles = |text: &str, environment: &[(&str, &str)]| {
        accepted(text, environment).config.nodes.iter().map(|node| node.roles.clone()).collect::<Vec<_>>()
    };
    let own = ("PEREGRINE_CLUSTER__ROLES", "[\"gateway\"]");
    assert_eq!(roles(text, &[own]), [both, [RoleChoice::Gateway].into()]);
    let inference: BTreeSet<RoleChoice> = [RoleChoice::Inference].into();
    let of_all = format!("[cluster]\nroles = [\"inference\"]\n{text}");
    assert_eq!(roles(&of_all, &[own])[0], inference);
    assert_eq!(roles(text, &[own, ("PEREGRINE_NODES__0__ROLES", "[\"inference\"]")])[0], inference);
}

#[test]
fn a_stronger_layer_reaches_single_nodes_and_a_file_replaces_the_list() {
    let config = accepted(&three(), &[("PEREGRINE_NODES__1__REGION", "lhr")]).config;
    assert_eq!(config.nodes[1].region.as_str(), "lhr");
    let (first, second) = (file_with(&three()), file_with("nodes = []\n"));
    let files = vec![first.path().to_owned(), second.path().to_owned()];
    assert_eq!(resolve(&Sources { files, ..Sources::default() }).unwrap().config.nodes.len(), 0);
}

#[test]
fn the_resolved_topology_resolves_to_itself() {
    let many: String = (0..12)
        .map(|at| {
            format!(
                "[[nodes]]\nname = \"n{at}\"\nregion = \"r\"\nlisten = \"127.0.0.1:0\"\n\
                 cluster_listen = \"127.0.0.1:{}\"\n",
                7000 + at
            )
        })
        .collect();
    let resolved = accepted(&many, &[]);
    let again = accepted(&resolved.to_toml(), &[]);
    assert_eq!(again.config, resolved.config);
    let names: Vec<&str> = again.config.nodes.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(names[9..], ["n9", "n10", "n11"]);
}

#[test]
fn the_cluster_that_ships_is_right() {
    let sources = Sources { files: vec![PathBuf::from("configs/cluster-local.toml")], ..Sources::default() };
    let config = resolve(&sources).unwrap().config;
    let regions: Vec<&str> = config.nodes.iter().map(|entry| entry.region.as_str()).collect();
    assert_eq!(regions, ["iad", "fra", "nrt"]);
}

/// iad answers and computes, fra answers, nrt computes. Seven lines each, the last without its empty one.
fn three() -> String {
    let entry = |name: &str, at: u16, roles: &str| {
        format!(
            "[[nodes]]\nname = \"{name}-1\"\nregion = \"{name}\"\nlisten = \"127.0.0.1:{}\"\n\
             cluster_listen = \"127.0.0.1:{}\"\nroles = [{roles}]\n\n",
            8080 + at,
            7946 + at
        )
    };
    let three = [
        entry("iad", 0, "\"gateway\", \"inference\""),
        entry("fra", 1, "\"gateway\""),
        entry("nrt", 2, "\"inference\""),
    ];
    three.concat().trim_end().to_owned() + "\n"
}

#[track_caller]
fn accepted(text: &str, environment: &[(&str, &str)]) -> Resolved {
    let file = file_with(text);
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let files = vec![file.path().to_owned()];
    resolve(&Sources { files, environment: environment.collect(), ..Sources::default() })
        .unwrap_or_else(|error| panic!("{error}"))
}
