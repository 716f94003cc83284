//! Mistakes as data: a file's text in, the report out.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use peregrine_shaders::ModelSpec;

use super::*;
use crate::testing::point_spec;

#[test]
fn what_is_not_among_the_words_of_a_choice_is_told_them() {
    const WORDS: &str = "expected one of `never`, `allow`, `prefer`";
    for (written, told) in [("\"sometimes\"", "sometimes"), ("true", "true"), ("3", "3")] {
        let want = format!("FILE:2:12: backend.fallback: unknown variant `{told}`, {WORDS}");
        check(&format!("[backend]\nfallback = {written}\n"), &[&want]);
    }
    let config = resolved("[backend]\nfallback = \"prefer\"\nfallbacks = { m = \"never\" }\n");
    assert_eq!(config.backend.fallback, FallbackChoice::Prefer);
    assert_eq!(config.backend.fallbacks.get("m"), Some(&FallbackChoice::Never));
    assert_eq!(resolved("[backend]\ngpu_memory = \"0B\"\n").backend.gpu_memory, None);
    assert_eq!(resolved("[backend]\ngpu_memory = \"2GiB\"\n").backend.gpu_memory, Some(2 << 30));
    let small = "FILE:2:14: backend.gpu_memory: less than 1 MiB hold no model and its batches";
    check("[backend]\ngpu_memory = \"1KiB\"\n", &[small]);
}

#[test]
fn the_built_in_configuration_is_complete_and_right() {
    let config = resolve(&Sources::default()).unwrap().config;
    assert_eq!(config.server.listen, "127.0.0.1:8080".parse().unwrap());
    assert_eq!(config.batching.wait_max, Duration::from_millis(2));
    assert_eq!(config.models.default.as_deref(), Some("nhits-168x24-quantile"));
    assert!(config.server.workers > 0 && config.backend.threads > 0);
    assert_eq!(config.data.column_of("nhits-168x24-quantile"), "logrv5");
}

#[test]
fn the_built_in_configuration_names_every_key_of_the_schema() {
    let schema: serde_json::Value = serde_json::from_str(&schema()).unwrap();
    let built_in: toml::Table = toml::from_str(BUILT_IN).unwrap();
    for (section, written) in schema["properties"].as_object().unwrap() {
        // Sections by name and lists have no default: the text shows an example.
        let example = written.get("additionalProperties").or_else(|| written.get("items"));
        let reference = example.unwrap_or(written)["$ref"].as_str().unwrap();
        let name = reference.rsplit('/').next().unwrap();
        if example.is_some() {
            let (_, text) = BUILT_IN.split_once(&format!("[{section}")).unwrap();
            for key in schema["$defs"][name]["properties"].as_object().unwrap().keys() {
                assert!(text.contains(&format!("\n# {key} = ")), "configs/local.toml lacks {section}.{key}");
            }
            continue;
        }
        let keys = schema["$defs"][name]["properties"].as_object().unwrap();
        for key in keys.keys() {
            assert!(built_in[section].get(key).is_some(), "configs/local.toml lacks {section}.{key}");
        }
    }
}

#[test]
fn the_schema_that_ships_is_current() {
    let shipped = std::fs::read_to_string("configs/schema.json").unwrap();
    assert!(shipped == schema(), "run: cargo run --release -- schema > configs/schema.json");
}

#[test]
fn an_unknown_key_is_named_with_its_place() {
    check(
        "[server]\nlisten = \"[::]:80\"\nlisen = 1\n",
        &[
            "FILE:3:1: server.lisen: unknown key `lisen`, expected one of `listen`, `workers`, `busy_poll`, `body_max`, `bodies_max`, \
           `connections_max`, `in_flight_max`, `header_timeout`, `keep_alive`, `drain`, \
           `tls_certificate`, `tls_key`",
        ],
    );
}

#[test]
fn an_unknown_section_is_reported_once() {
    check(
        "\n[sevrer]\na = 1\nb = 2\n",
        &[
            "FILE:2:2: sevrer: unknown key `sevrer`, expected one of `server`, `security`, `node`, `models`, `backend`, \
           `batching`, `breaker`, `deadline`, `stream`, `data`, `series`, `journal`, `audit`, `demo`, `alerts`, `scaler`, `log`, `tracing`, `cluster`, `routing`, `regions`, `placement`, `nodes`",
        ],
    );
    check(
        "[empty]\n",
        &[
            "FILE:1:2: empty: unknown key `empty`, expected one of `server`, `security`, `node`, `models`, `backend`, \
           `batching`, `breaker`, `deadline`, `stream`, `data`, `series`, `journal`, `audit`, `demo`, `alerts`, `scaler`, `log`, `tracing`, `cluster`, `routing`, `regions`, `placement`, `nodes`",
        ],
    );
}

#[test]
fn every_mistake_is_named_not_just_the_first() {
    check(
        "[server]\nworkers = -1\n  body_max = \"16MB\"\n[batching]\nrows_max = 0\nwait_max = 3\n[breaker]\nslow_share = 1.5\n",
        &[
            "FILE:2:11: server.workers: invalid value: integer `-1`, expected a whole number from 0 up",
            "FILE:3:14: server.body_max: invalid value: string \"16MB\", expected a size such as \"16MiB\" (a whole \
             number and one of B, KiB, MiB, GiB)",
            "FILE:5:12: batching.rows_max: 0 is not within 1 and 65536",
            "FILE:6:12: batching.wait_max: invalid type: integer `3`, expected a time such as \"250ms\" (a whole \
             number and one of us, ms, s, m, h)",
            "FILE:8:14: breaker.slow_share: 1.5 is not above 0 and at most 1",
        ],
    );
}

#[test]
fn a_section_must_be_a_table() {
    check("server = 3\n", &["FILE:1:10: server: invalid type: integer `3`, expected a table"]);
    check("[[log]]\nformat = \"json\"\n", &["FILE:1:1: log: invalid type: list, expected a table"]);
}

#[test]
fn values_that_contradict_each_other_are_refused() {
    check(
        "[deadline]\ndefault = \"5s\"\nmax = \"1s\"\n",
        &["FILE:2:11: deadline.default: 5s is more than max = 1s"],
    );
    check(
        "[batching]\nrequest_rows_max = 5000\n",
        &["FILE:2:20: batching.request_rows_max: 5000 is more than queue_rows_max = 4096"],
    );
    check(
        "[breaker]\ncalls_min = 99\n",
        &["FILE:2:13: breaker.calls_min: 99 is more than window_calls = 32"],
    );
}

#[test]
fn records_have_a_folder_or_there_are_none() {
    use peregrine_actors::audit::{OnFailure, Survives};
    assert_eq!(resolved("").audit, None);
    let on = resolved("[audit]\ndir = \"/data\"\n").audit.unwrap();
    assert_eq!((on.on_failure, on.survives), (OnFailure::Refuse, Survives::Nothing));
    assert_eq!((on.keep.bytes_max, on.queue_bytes_max), (1 << 30, 16 << 20));
    let other = "[audit]\ndir = \"/data\"\non_failure = \"serve\"\ndurability = \"disk\"\n";
    let other = resolved(other).audit.unwrap();
    assert_eq!((other.on_failure, other.survives), (OnFailure::Serve, Survives::Disk));
    check(
        "[audit]\nsize_max = \"1KiB\"\nage_max = \"1ms\"\n",
        &[
            "FILE:2:12: audit.size_max: 1024 is not within 1048576 and 17592186044416",
            "FILE:3:11: audit.age_max: 1ms is not within 1s and 3162240000s",
        ],
    );
}

#[test]
fn a_journal_has_a_folder_or_there_is_none() {
    assert_eq!(resolved("").journal, None);
    let on = |durability| {
        let dir = PathBuf::from("/data");
        Some(JournalConfig { dir, capacity: 1024, series_max: 10_000, durability })
    };
    let sync_every = Duration::from_millis(100);
    assert_eq!(resolved("[journal]\ndir = \"/data\"\n").journal, on(Durability::Process { sync_every }));
    let disk = "[journal]\ndir = \"/data\"\ndurability = \"disk\"\n";
    assert_eq!(resolved(disk).journal, on(Durability::Disk));
    check(
        "[journal]\ncapacity = 0\nsync_every = \"2m\"\n",
        &[
            "FILE:2:12: journal.capacity: 0 is not within 1 and 1048576",
            "FILE:3:14: journal.sync_every: 120s is not within 1ms and 60s",
        ],
    );
}

#[test]
fn the_demo_runs_on_a_node_that_is_alone_unless_a_cluster_asks_for_it() {
    let rate = |text: &str| resolved(text).demo.map(|demo| (demo.rate, demo.column));
    let logrv5 = "logrv5".to_owned();
    assert_eq!(rate(""), Some((20.0, logrv5.clone())));
    assert_eq!(rate("demo.rate = 0\n"), None);
    assert_eq!(rate("data.file = \"\"\n"), None);
    assert_eq!(rate("demo.column = \"ret\"\n"), Some((20.0, "ret".to_owned())));
    let cluster = "[cluster]\nlisten = \"127.0.0.1:1\"\nsecret = \"0123456789abcdef\"\n";
    assert_eq!(rate(cluster), None);
    assert_eq!(rate(&format!("{cluster}[demo]\nrate = 5\n")), Some((5.0, logrv5)));
    check("demo.rate = -1\n", &["FILE:1:13: demo.rate: -1 is not within 0 and 1000000"]);
    check("demo.rate = 1\ndata.file = \"\"\n", &["FILE:1:13: demo.rate: there is no data.file to replay"]);
}

#[test]
fn what_does_not_exist_is_named() {
    check(
        "[models]\nrepositories = [\"/nowhere\"]\n",
        &["FILE:2:16: models.repositories: there is no folder `/nowhere`; name one with --models DIR"],
    );
    check(
        "[models]\ndefault = \"gone\"\n",
        &["FILE:2:11: models.default: no repository holds a model `gone`"],
    );
    check("[data]\nfile = \"/no.csv\"\n", &["FILE:2:8: data.file: there is no file `/no.csv`"]);
}

#[test]
fn a_filter_names_levels_and_modules() {
    let odd = "is neither a level nor a module, such as `peregrine_actors`";
    check("[log]\nfilter = \"###\"\n", &[&format!("FILE:2:10: log.filter: `###` {odd}")]);
    check("[log]\nfilter = \"info,a b=debug\"\n", &[&format!("FILE:2:10: log.filter: `a b` {odd}")]);
    assert_eq!(resolved("[log]\nfilter = \"info,my-app::x_1=debug\"\n").log.filter, "info,my-app::x_1=debug");
}

#[test]
fn less_of_a_series_than_the_longest_window_is_a_mistake() {
    let file = file_with(
        "[series]\nhistory = 1000\n[journal]\ndir = \"j\"\ncapacity = 999\n[series.always]\nlong = [\"*\"]\n",
    );
    let name = file.path().display().to_string();
    let resolved = resolve(&Sources { files: vec![file.path().to_owned()], ..Sources::default() }).unwrap();
    let spec = |name: &str, window: usize, series: usize| ModelSpec {
        name: name.to_owned(),
        series,
        ..point_spec(window, 2)
    };
    let said = |specs: &[ModelSpec]| -> Vec<String> {
        resolved.too_short(specs).iter().map(|mistake| mistake.to_string().replace(&name, "FILE")).collect()
    };
    assert_eq!(said(&[]), [""; 0]);
    // One of several series at once follows none.
    assert_eq!(said(&[spec("fits", 999, 1), spec("wide", 5000, 3)]), [""; 0]);
    let capacity = "FILE:5:12: journal.capacity: 999 is less than the window of model";
    assert_eq!(said(&[spec("fits", 999, 1), spec("long", 1000, 1)]), [format!("{capacity} `long`, 1000")]);
    assert_eq!(
        said(&[spec("long", 1000, 1), spec("longer", 1100, 1)]),
        [
            "FILE:2:11: series.history: 1000 is less than the window of model `longer`, 1100".to_owned(),
            format!("{capacity} `longer`, 1100"),
        ]
    );
    // Without a journal its size is nobody's.
    let file = file_with("[journal]\ncapacity = 1\n");
    let resolved = resolve(&Sources { files: vec![file.path().to_owned()], ..Sources::default() }).unwrap();
    assert_eq!(resolved.too_short(&[spec("long", 1000, 1)]), []);
}

#[test]
fn names_are_compared_with_what_there_is() {
    let file = file_with(
        "[models.profiles]\nghost = \"balanced\"\na = \"balanced\"\n[data]\ncolumn = \"zzz\"\n[data.columns]\n\"b.c\" = \"y\"\n\
         [placement.far]\nregions = [\"fra\"]\nstandby = [\"iad\"]\n[series.always]\na = [\"*\"]\ngone = [\"x\", \"y*\"]\n\
         [backend.fallbacks]\nlost = \"never\"\n",
    );
    let name = file.path().display().to_string();
    let resolved = resolve(&Sources { files: vec![file.path().to_owned()], ..Sources::default() }).unwrap();
    let said = |mistakes: Vec<Mistake>| -> Vec<String> {
        mistakes.iter().map(|mistake| mistake.to_string().replace(&name, "FILE")).collect()
    };
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    assert_eq!(
        said(resolved.unknown_models(&names(&["a", "b"]))),
        [
            "FILE:2:9: models.profiles.ghost: no repository holds a model `ghost`: there are `a`, `b`",
            "FILE:7:9: data.columns.\"b.c\": no repository holds a model `b.c`: there are `a`, `b`",
            "FILE:9:11: placement.far: no repository holds a model `far`: there are `a`, `b`",
            "FILE:13:8: series.always.gone: no repository holds a model `gone`: there are `a`, `b`",
            "FILE:15:8: backend.fallbacks.lost: no repository holds a model `lost`: there are `a`, `b`",
        ]
    );
    assert_eq!(said(resolved.unknown_models(&names(&["a", "b.c", "far", "ghost", "gone", "lost"]))), [""; 0]);
    // What the built-in text says is of the data that ship.
    assert_eq!(
        said(resolved.unknown_columns(&names(&["x"]))),
        [
            "FILE:5:10: data.column: the data have no column `zzz`: there are `x`",
            "FILE:7:9: data.columns.\"b.c\": the data have no column `y`: there are `x`",
        ]
    );
}

#[test]
fn text_that_is_not_toml_is_placed() {
    let report = report("[server\nlisten = \"x\"\n");
    assert!(report[0].starts_with("FILE:1:8: "), "{report:?}");
}

#[test]
fn columns_count_characters_not_bytes() {
    check(
        "node = { name = \"ä\", region = \"\" }\n",
        &[
            "FILE:1:17: node.name: `ä` is no name: 1 to 64 of a-z, A-Z, 0-9, `-`, `_` and `.`",
            "FILE:1:31: node.region: `` is no name: 1 to 64 of a-z, A-Z, 0-9, `-`, `_` and `.`",
        ],
    );
}

#[test]
fn a_missing_file_is_a_mistake() {
    let sources = Sources { files: vec![PathBuf::from("/no/such.toml")], ..Sources::default() };
    let error = resolve(&sources).unwrap_err().to_string();
    assert!(error.starts_with("/no/such.toml: cannot be read: "), "{error}");
}

#[test]
fn a_file_that_cannot_be_read_is_the_only_mistake() {
    let elsewhere = file_with("[models]\nrepositories = [\"/no/such\"]\n");
    let broken = file_with("[server\n");
    for bad in [broken.path().to_owned(), PathBuf::from("/no/such.toml")] {
        let files = vec![elsewhere.path().to_owned(), bad.clone()];
        let mistakes = resolve(&Sources { files, ..Sources::default() }).unwrap_err().mistakes;
        let is_of = |mistake: &Mistake| mistake.to_string().starts_with(&bad.display().to_string());
        assert!(!mistakes.is_empty() && mistakes.iter().all(is_of), "{mistakes:?}");
    }
}

#[test]
fn a_table_in_a_variable_is_its_keys() {
    let file = file_with("[server]\nlisten = \"127.0.0.1:1\"\nworkers = 3\n[security]\nrequired = true\n");
    let sources = |variables: &[(&str, &str)]| Sources {
        files: vec![file.path().to_owned()],
        environment: variables.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect(),
        overrides: Overrides { listen: Some("127.0.0.1:4".to_owned()), ..Overrides::default() },
    };
    let resolved = resolve(&sources(&[
        ("PEREGRINE_SERVER__CONNECTIONS_MAX", "98"),
        ("PEREGRINE_SERVER", "{listen = \"127.0.0.1:2\", connections_max = 99}"),
        ("PEREGRINE_SECURITY", "{required = false}"),
        ("PEREGRINE_SERIES__STEPS", "{\"m/*\" = \"1m\"}"),
    ]))
    .unwrap();
    let server = &resolved.config.server;
    assert_eq!((server.listen.port(), server.workers, server.connections_max), (4, 3, 98));
    let shown = resolved.to_json();
    for (key, value, origin) in [
        ("server.listen", serde_json::json!("127.0.0.1:4"), "--listen"),
        ("server.connections_max", serde_json::json!(98), "PEREGRINE_SERVER__CONNECTIONS_MAX"),
        ("security.required", serde_json::json!(false), "PEREGRINE_SECURITY"),
        ("series.steps.\"m/*\"", serde_json::json!("1m"), "PEREGRINE_SERIES__STEPS"),
    ] {
        assert_eq!(shown[key], serde_json::json!({ "value": value, "origin": origin }), "{key}");
    }
    let posted = resolved.over("[server]\nconnections_max = 97\n").unwrap().to_json();
    assert_eq!(posted["server.connections_max"]["value"], serde_json::json!(97));
    let refused =
        resolve(&sources(&[("PEREGRINE_SERVER", "{lisen = 1, workers = \"x\"}")])).unwrap_err().to_string();
    assert!(refused.contains("PEREGRINE_SERVER: server.lisen: unknown key `lisen`"), "{refused}");
    assert!(refused.contains("PEREGRINE_SERVER: server.workers: invalid type"), "{refused}");
}

#[test]
fn a_list_of_nodes_in_a_variable_replaces_that_of_a_file() {
    let node = |name: &str, port: u16| {
        format!(
            "name = \"{name}\"\nregion = \"a\"\nlisten = \"127.0.0.1:{port}\"\ncluster_listen = \"127.0.0.1:{}\"\n",
            port + 100
        )
    };
    let file = file_with(&format!("[[nodes]]\n{}[[nodes]]\n{}", node("a", 1), node("b", 2)));
    let variable =
        ("PEREGRINE_NODES".to_owned(), format!("[{{{}}}]", node("c", 3).trim_end().replace('\n', ", ")));
    let files = vec![file.path().to_owned()];
    let own = ("PEREGRINE_CLUSTER__ROLES".to_owned(), "[\"gateway\"]".to_owned());
    let resolved =
        resolve(&Sources { files, environment: vec![own, variable], ..Sources::default() }).unwrap();
    let names: Vec<&str> = resolved.config.nodes.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names, ["c"]);
    assert_eq!(resolved.config.nodes[0].roles.len(), 2, "what this process does is no matter to others");
    assert_eq!(resolved.to_json()["nodes.0.name"]["origin"], serde_json::json!("PEREGRINE_NODES"));
}

#[test]
fn stronger_layers_replace_single_keys() {
    let file = file_with("[server]\nlisten = \"127.0.0.1:1\"\nworkers = 3\n[data.columns]\na = \"x\"\n");
    let second = file_with("[data.columns]\nb = \"y\"\n");
    let sources = Sources {
        files: vec![file.path().to_owned(), second.path().to_owned()],
        environment: vec![
            ("PEREGRINE_SERVER__LISTEN".to_owned(), "127.0.0.1:2".to_owned()),
            ("PEREGRINE_NODE__NAME".to_owned(), "7".to_owned()),
            ("PEREGRINE_SERVER__CONNECTIONS_MAX".to_owned(), "99".to_owned()),
            ("PATH".to_owned(), "/bin".to_owned()),
        ],
        overrides: Overrides { backend: Some("cpu".to_owned()), ..Overrides::default() },
    };
    let resolved = resolve(&sources).unwrap();
    let config = &resolved.config;
    assert_eq!(config.server.listen.port(), 2);
    assert_eq!((config.server.workers, config.server.connections_max), (3, 99));
    assert_eq!(config.node.name.as_str(), "7");
    assert_eq!(config.backend.choice, BackendChoice::Cpu);
    assert_eq!(
        (config.data.column_of("a"), config.data.column_of("b"), config.data.column_of("c")),
        ("x", "y", "logrv5")
    );
    let shown = resolved.to_toml();
    assert!(shown.contains("# PEREGRINE_SERVER__LISTEN\n") && shown.contains("# --backend\n"), "{shown}");
    assert!(shown.contains(":3:11\n"), "{shown}");
}

#[test]
fn the_resolved_form_resolves_to_itself() {
    let resolved = resolve(&Sources::default()).unwrap();
    let file = file_with(&resolved.to_toml());
    let again = resolve(&Sources { files: vec![file.path().to_owned()], ..Sources::default() }).unwrap();
    assert_eq!(again.config, resolved.config);
}

#[test]
fn what_kubernetes_says_of_a_service_of_this_name_is_passed_over() {
    let told = [
        ("PEREGRINE_SERVICE_HOST", "10.0.0.7"),
        ("PEREGRINE_SERVICE_PORT", "8080"),
        ("PEREGRINE_SERVICE_PORT_HTTP", "8080"),
        ("PEREGRINE_PORT", "tcp://10.0.0.7:8080"),
        ("PEREGRINE_PORT_8080_TCP", "tcp://10.0.0.7:8080"),
        ("PEREGRINE_PORT_8080_TCP_PROTO", "tcp"),
        ("PEREGRINE_PORT_8080_TCP_PORT", "8080"),
        ("PEREGRINE_PORT_7946_UDP_ADDR", "10.0.0.7"),
    ];
    let sources = |variables: &[(&str, &str)]| {
        let owned = |&(name, text): &(&str, &str)| (name.to_owned(), text.to_owned());
        Sources { environment: variables.iter().map(owned).collect(), ..Sources::default() }
    };
    let resolved = resolve(&sources(&told)).unwrap();
    assert_eq!(resolved.config, resolve(&Sources::default()).unwrap().config);
    assert_eq!(resolved.sources().of_kubernetes().collect::<Vec<_>>(), told.map(|(name, _)| name));
    for wrong in [
        ("PEREGRINE_PORT", "8080"),
        ("PEREGRINE_SERVICE", "10.0.0.7"),
        ("PEREGRINE_SERVICE_PORT_", "8080"),
        ("PEREGRINE_SERVICE_PORT__HTTP", "8080"),
        ("PEREGRINE_PORT_8080", "8080"),
        ("PEREGRINE_PORT_HTTP_TCP", "8080"),
        ("PEREGRINE_PORT_8080_TCP_NAME", "8080"),
        ("PEREGRINE_PORT_8080_HTTP", "8080"),
    ] {
        let error = resolve(&sources(&[wrong])).unwrap_err().to_string();
        assert!(error.contains("unknown key"), "{wrong:?}: {error}");
    }
}

#[test]
fn an_unknown_variable_is_named() {
    let environment = vec![
        ("PEREGRINE_SERVER__LISEN".to_owned(), "x".to_owned()),
        ("PEREGRINE_SERVER__WORKERS".to_owned(), "many".to_owned()),
        ("PEREGRINE_ZOO".to_owned(), "1".to_owned()),
    ];
    let error = resolve(&Sources { environment, ..Sources::default() }).unwrap_err().to_string();
    let lines: Vec<&str> = error.lines().collect();
    assert!(lines[0].starts_with("PEREGRINE_SERVER__LISEN: server.lisen: unknown key `lisen`"), "{error}");
    assert_eq!(
        lines[1],
        "PEREGRINE_SERVER__WORKERS: server.workers: invalid type: string \"many\", expected a whole number from 0 up"
    );
    assert!(lines[2].starts_with("PEREGRINE_ZOO: zoo: unknown key `zoo`"), "{error}");
    assert_eq!(lines.len(), 3);
}

#[test]
fn an_added_repository_comes_first_and_must_exist() {
    let dir = tempfile::tempdir().unwrap();
    let with = |models: Vec<PathBuf>| Sources {
        overrides: Overrides { models, ..Overrides::default() },
        ..Sources::default()
    };
    let config = resolve(&with(vec![dir.path().to_owned()])).unwrap().config;
    assert_eq!(config.models.repositories, [dir.path().to_owned(), PathBuf::from("models")]);
    let error = resolve(&with(vec![PathBuf::from("/nowhere")])).unwrap_err().to_string();
    assert_eq!(
        error,
        "--models: models.repositories: there is no folder `/nowhere`; name one with --models DIR"
    );
}

#[test]
fn the_built_in_repository_may_be_absent_where_no_model_is_read() {
    let (nowhere, built_in) = ([PathBuf::from("/nowhere")], Origin::BuiltIn { line: 1, column: 1 });
    let refused = |origin: &Origin, needs_none| {
        paths::repositories(&[], &nowhere, origin, needs_none).refused.remove(0).is_some()
    };
    assert!(refused(&built_in, false) && !refused(&built_in, true));
    assert!(refused(&Origin::Variable("PEREGRINE_MODELS__REPOSITORIES".to_owned()), true), "it was named");
}

#[track_caller]
pub(super) fn check(text: &str, want: &[&str]) {
    assert_eq!(report(text), want);
}

#[test]
fn an_unknown_key_that_is_called_like_its_section_is_told_where_it_is() {
    for (text, place) in
        [("\n[log]\nlog = 1", "FILE:3:1: log.log: "), ("\n[placement.x]\nx = 1", "FILE:3:1: placement.x.x: ")]
    {
        let said = report(text);
        assert!(said.len() == 1 && said[0].starts_with(place), "{said:?}");
    }
}

#[test]
fn names_with_dots_are_told_where_they_are_and_hide_no_other_mistake() {
    let text = "[series.steps]\n\"fx/a.b\" = \"0s\"\n\"fx/c.d\" = \"0s\"\n[series.always]\n\"m.v1\" = [\"\\t\", \"*\"]\n";
    let said = report(text);
    assert_eq!(said.len(), 3, "{said:?}");
    for (said, place) in said.iter().zip([
        "FILE:2:12: series.steps.\"fx/a.b\": 0ns is not within",
        "FILE:3:12: series.steps.\"fx/c.d\": 0ns is not within",
        "FILE:5:10: series.always.\"m.v1\": a pattern has",
    ]) {
        assert!(said.starts_with(place), "{said}");
    }
}

#[test]
fn what_could_never_be_had_is_refused() {
    check(
        "[server]\nbody_max = \"2MiB\"\nbodies_max = \"1MiB\"\n[journal]\ndir = \"kept\"\n[audit]\ndir = \"kept\"\n",
        &[
            "FILE:2:12: server.body_max: 2097152 is more than bodies_max = 1048576",
            "FILE:5:7: journal.dir: is audit.dir: each needs a folder of its own",
        ],
    );
    check(
        "[nodes]\nname = \"a\"\n",
        &["FILE:2:8: nodes.name: `name` is no position: an entry begins with [[nodes]]"],
    );
}

#[test]
fn a_file_that_is_missing_hides_no_other_mistake() {
    let text = "[server]\ntls_certificate = \"none.crt\"\ntls_key = \"none.key\"\n\
                [security]\nkeys = \"none.toml\"\nrequests_per_second = -1.0\ncors_origins = [\"desk\"]\n\
                anonymous = [\"admin\"]\n";
    check(
        text,
        &[
            "FILE:2:19: server.tls_certificate: there is no file `none.crt`",
            "FILE:3:11: server.tls_key: there is no file `none.key`",
            "FILE:5:8: security.keys: there is no file `none.toml`",
            "FILE:6:23: security.requests_per_second: -1 is not within 0 and 1000000000",
            "FILE:7:16: security.cors_origins: `desk` is not an origin such as https://desk.example",
            "FILE:8:13: security.anonymous: `admin` always needs a key",
        ],
    );
}

#[track_caller]
fn resolved(text: &str) -> Config {
    let file = file_with(text);
    resolve(&Sources { files: vec![file.path().to_owned()], ..Sources::default() }).unwrap().config
}

fn report(text: &str) -> Vec<String> {
    let file = file_with(text);
    let name = file.path().display().to_string();
    let error = resolve(&Sources { files: vec![file.path().to_owned()], ..Sources::default() }).unwrap_err();
    error.mistakes.iter().map(|mistake| mistake.to_string().replace(&name, "FILE")).collect()
}

pub(super) fn file_with(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}
