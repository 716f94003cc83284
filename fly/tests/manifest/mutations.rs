//! One row for each way to break a shipped file, with all that is said of it then.

use crate::rules::{Finding, Rule};
use crate::{shipped, validated};

/// File, text in it, what takes its place, and the rule, key and detail of what is found then. Text: `""` is the end of the
/// file, `A…B` all from A to before B. Detail: `A…` begins so.
type Row = (&'static str, &'static str, &'static str, Rule, &'static str, &'static str);

const WHOLE: &str = "fly.toml";
const EDGE: &str = "fly.edge.toml";

#[rustfmt::skip]
const ROWS: &[Row] = &[
    // Keys at any depth.
    (WHOLE, "app = ", "ap = 1\napp = ", Rule::UnknownKey, "ap", "ap"),
    (WHOLE, "soft_limit = 2000", "soft_limit = 2000\nsoft = 1", Rule::UnknownKey, "http_service.concurrency.soft", "soft"),
    (WHOLE, "interval = \"5s\"", "interval = \"5s\"\nretries = 1", Rule::UnknownKey, "http_service.checks[0].retries", "retries"),
    (WHOLE, "[checks.node_ready]", "[checks.node_ready]\nkind = \"readiness\"", Rule::UnknownKey, "checks.node_ready.kind", "kind"),
    (WHOLE, "[[metrics]]", "[[metrics]]\ninterval = \"1s\"", Rule::UnknownKey, "metrics[0].interval", "interval"),
    (EDGE, "wait_timeout", "wait_time", Rule::UnknownKey, "deploy.wait_time", "wait_time"),
    (EDGE, "[processes]", "[\"*\"]\n[processes]", Rule::UnknownKey, "*", "*"),
    // Old names.
    (WHOLE, "", "[compute]\nsize = \"shared-cpu-1x\"", Rule::LegacyAlias, "compute", "vm"),
    (WHOLE, "", "[mount]\nsource = \"a\"", Rule::LegacyAlias, "mount", "mounts"),
    (EDGE, "", "[metric]\nport = 8080", Rule::LegacyAlias, "metric", "metrics"),
    (WHOLE, "[build]", "[build]\nbuild_target = \"x\"", Rule::LegacyAlias, "build.build_target", "build.build-target"),
    (WHOLE, "", "[experimental]\nkill_timeout = \"5s\"", Rule::LegacyAlias, "experimental.kill_timeout", "kill_timeout"),
    // Types and forms.
    (WHOLE, "force_https = true", "force_https = \"true\"", Rule::WrongType, "http_service.force_https", "string is not bool"),
    (WHOLE, "hard_limit = 4000", "hard_limit = 4000\n[http_service.http_options.response]\nheaders = 1", Rule::WrongType, "http_service.http_options.response.headers", "integer"),
    (WHOLE, "idle_timeout = 60", "idle_timeout = -1", Rule::WrongType, "http_service.http_options.idle_timeout", "integer is not uint32_seconds"),
    (EDGE, "PEREGRINE_CLUSTER__SEEDS = '[\"peregrine.internal:7946\"]'", "PEREGRINE_CLUSTER__SEEDS = [\"peregrine.internal:7946\"]", Rule::WrongType, "env.PEREGRINE_CLUSTER__SEEDS", "array is not string"),
    (WHOLE, "[[http_service.checks]]", "[http_service.checks]", Rule::TableForm, "http_service.checks", "write [[tables]]"),
    (WHOLE, "[[restart]]", "[restart]", Rule::TableForm, "restart", "write [[tables]]"),
    (WHOLE, "[http_service.tls_options]", "[[http_service.tls_options]]", Rule::TableForm, "http_service.tls_options", "write one [table]"),
    // Durations.
    (WHOLE, "kill_timeout = \"60s\"", "kill_timeout = \"60\"", Rule::NoUnit, "kill_timeout", "\"60\""),
    (WHOLE, "wait_timeout = \"10m\"", "wait_timeout = 600", Rule::NoUnit, "deploy.wait_timeout", "600"),
    (WHOLE, "grace_period = \"60s\"", "grace_period = 60", Rule::NoUnit, "checks.node_ready.grace_period", "60"),
    (EDGE, "timeout = \"2s\"", "timeout = 2000", Rule::NoUnit, "http_service.checks[0].timeout", "2000"),
    // Enums.
    (WHOLE, "\"rolling\"", "\"blue-green\"", Rule::NotOneOf, "deploy.strategy", "`blue-green` is none of rolling, canary, bluegreen, immediate"),
    (WHOLE, "\"connections\"", "\"sockets\"", Rule::NotOneOf, "http_service.concurrency.type", "`sockets` is none of connections, requests"),
    (WHOLE, "\"h2\", ", "\"h3\", ", Rule::NotOneOf, "http_service.tls_options.alpn[0]", "`h3` is none of h2, http/1.1"),
    (WHOLE, "auto_stop_machines = \"off\"", "auto_stop_machines = \"none\"", Rule::NotOneOf, "http_service.auto_stop_machines", "`none` is none of off, stop, suspend"),
    (WHOLE, "policy = \"on-failure\"", "policy = \"no\"", Rule::NotOneOf, "restart[0].policy", "`no` is none of always, never, on-failure"),
    (WHOLE, "type = \"http\"", "type = \"https\"", Rule::NotOneOf, "checks.gateway_live.type", "`https` is none of http, tcp"),
    (WHOLE, "", "[deploy.release_command_vm]\npersist_rootfs = \"yes\"", Rule::NotOneOf, "deploy.release_command_vm.persist_rootfs", "`yes` is none of never, restart, always"),
    // Bounds.
    (WHOLE, "kill_timeout = \"60s\"", "kill_timeout = \"301s\"", Rule::OutOfRange, "kill_timeout", "\"301s\" is not within 0.0..=300.0"),
    (WHOLE, "interval = \"5s\"", "interval = \"1s\"", Rule::OutOfRange, "http_service.checks[0].interval", "\"1s\" is not within 2.0..=inf"),
    (WHOLE, "timeout = \"2s\"", "timeout = \"61s\"", Rule::OutOfRange, "http_service.checks[0].timeout", "\"61s\" is not within 0.001..=60.0"),
    (WHOLE, "[build]", "[build]\ncompression_level = 10", Rule::OutOfRange, "build.compression_level", "10 is not within 0.0..=9.0"),
    (WHOLE, "max_unavailable = 0.25", "max_unavailable = 0.0", Rule::OutOfRange, "deploy.max_unavailable", "0.0 is not within 2.2250738585072014e-308..=inf"),
    (EDGE, "wait_timeout", "max_unavailable = 0.3\nwait_timeout", Rule::OutOfRange, "deploy.max_unavailable", "has no meaning with bluegreen"),
    (WHOLE, "", "[mounts]\nsource = \"a\"\ndestination = \"/a\"\nsnapshot_retention = 61", Rule::OutOfRange, "mounts[0].snapshot_retention", "61 is not within 1.0..=60.0"),
    (WHOLE, "", "[mounts]\nsource = \"a\"\ndestination = \"/a\"\ninitial_size = \"501gb\"", Rule::OutOfRange, "mounts[0].initial_size", "\"501gb\" is not within 1.0..=500.0"),
    (WHOLE, "", "[mounts]\nsource = \"a\"\ndestination = \"/a\"\nauto_extend_size_threshold = 49", Rule::OutOfRange, "mounts[0].auto_extend_size_threshold", "49 is not within 50.0..=99.0"),
    (WHOLE, "", "[mounts]\nsource = \"a\"\ndestination = \"/a\"\nauto_extend_size_increment = \"much\"", Rule::OutOfRange, "mounts[0].auto_extend_size_increment", "\"much\" is not within 1.0..=100.0"),
    (WHOLE, "", "[mounts]\nsource = \"a\"\ndestination = \"/a\"\nauto_extend_size_limit = \"501gb\"", Rule::OutOfRange, "mounts[0].auto_extend_size_limit", "\"501gb\" is not within 1.0..=500.0"),
    (WHOLE, "idle_timeout = 60", "replay_cache = [{ path_prefix = \"/\", ttl_seconds = 9 }]", Rule::OutOfRange, "http_service.http_options.replay_cache[0].ttl_seconds", "9 is not within 10.0..=inf"),
    (WHOLE, "retries = 5", "retries = -1", Rule::OutOfRange, "restart[0].retries", "-1 is not within 0.0..=inf"),
    // Names.
    (WHOLE, "processes = [\"gateway\", \"node\"]", "processes = [\"gateway\", \"nodes\"]", Rule::UnknownProcess, "restart[0]", "nodes"),
    (EDGE, "processes = [\"gateway\"]\n\n[[metrics]]", "processes = [\"edge\"]\n\n[[metrics]]", Rule::UnknownProcess, "checks.gateway_live", "edge"),
    (EDGE, "min_machines_running = 2\nprocesses = [\"gateway\"]", "min_machines_running = 2", Rule::NoProcess, "http_service", "processes"),
    (WHOLE, "\"iad\"", "\"atl\"", Rule::UnknownRegion, "primary_region", "atl"),
    (WHOLE, "\"shared-cpu-2x\"", "\"shared-cpu-3x\"", Rule::UnknownSize, "vm[0].size", "shared-cpu-3x"),
    (WHOLE, "size = \"performance-4x\"", "cpu_kind = \"performance\"\ncpus = 5", Rule::UnknownSize, "vm[1]", "Some(\"performance\") with Some(5) cpus"),
    (WHOLE, "\"Dockerfile\"", "\"Containerfile\"", Rule::NoFile, "build.dockerfile", "FOLDER/Containerfile"),
    (WHOLE, "", "[[files]]\nguest_path = \"/a\"\nlocal_path = \"configs/none.toml\"", Rule::NoFile, "files[0].local_path", "configs/none.toml"),
    (WHOLE, "[processes]", "[env]\nFLY_REGION = \"iad\"\n[processes]", Rule::PlatformEnv, "env.FLY_REGION", "FLY_REGION"),
    (WHOLE, "serve --config /app/configs/fly-node.toml", "serve --config '/app/configs/fly-node.toml", Rule::ShellWords, "processes.node", "serve --config '/app/configs/fly-node.toml"),
    (WHOLE, "wait_timeout = \"10m\"", "wait_timeout = \"10m\"\nrelease_command = \"check \\\"\"", Rule::ShellWords, "deploy.release_command", "check \""),
    // GPUs.
    (WHOLE, "memory = \"8gb\"", "memory = \"8gb\"\ngpus = 1", Rule::GpuNotOffered, "vm[1].gpus", "1"),
    (WHOLE, "memory = \"8gb\"", "memory = \"8gb\"\ngpu_kind = \"l40s\"", Rule::GpuNotOffered, "vm[1].gpu_kind", "\"l40s\""),
    (WHOLE, "\"performance-4x\"", "\"a100-80gb\"", Rule::GpuNotOffered, "vm[1].size", "a100-80gb"),
    (EDGE, "\"shared-cpu-2x\"", "\"a10\"", Rule::GpuNotOffered, "vm[0].size", "a10"),
    (WHOLE, "", "[deploy.release_command_vm]\ngpus = 1", Rule::GpuNotOffered, "deploy.release_command_vm.gpus", "1"),
    // Machines.
    (WHOLE, "\"8gb\"", "\"6gb\"", Rule::Memory, "vm[1].memory", "\"6gb\" is not 8192 to 32768 MB in steps of 2048"),
    (WHOLE, "\"8gb\"", "\"64gb\"", Rule::Memory, "vm[1].memory", "\"64gb\" is not 8192 to 32768 MB in steps of 2048"),
    (WHOLE, "\"8gb\"", "9216", Rule::Memory, "vm[1].memory", "9216 is not 8192 to 32768 MB in steps of 2048"),
    (WHOLE, "memory = \"1gb\"", "memory_mb = 1000", Rule::Memory, "vm[0].memory_mb", "1000 is not 512 to 4096 MB in steps of 256"),
    (WHOLE, "memory = \"1gb\"", "memory = \"1gb\"\nmemory_mb = 1024", Rule::Memory, "vm[0]", "written twice"),
    (EDGE, "", "[[mounts]]\nsource = \"a\"\ndestination = \"/a\"", Rule::MountStrategy, "mounts", "bluegreen"),
    (WHOLE, "strategy = \"rolling\"…# Each takes", "strategy = \"canary\"\n[mounts]\nsource = \"a\"\ndestination = \"/a\"\n# Each takes", Rule::MountStrategy, "mounts", "canary"),
    (WHOLE, "", "[[metrics]]\nport = 8081\npath = \"/m\"\nprocesses = [\"node\"]", Rule::OncePerGroup, "metrics[2]", "`node` has metrics[1]"),
    (WHOLE, "", "[[mounts]]\nsource = \"a\"\ndestination = \"/a\"\nprocesses = [\"node\"]\n[[mounts]]\nsource = \"b\"\ndestination = \"/b\"\nprocesses = [\"node\"]", Rule::OncePerGroup, "mounts[1]", "`node` has mounts[0]"),
    (EDGE, "[[http_service.checks]]…[[metrics]]", "", Rule::CheckMissing, "deploy.strategy", "bluegreen"),
    (EDGE, "", "[[machine_checks]]\nimage = \"a\"", Rule::MachineChecks, "deploy.strategy", "bluegreen"),
    // Ports.
    (WHOLE, "", "[[services]]\ninternal_port = 8081\nprocesses = [\"node\"]\nports = [{ port = 443, handlers = [\"tls\", \"http\"] }]", Rule::SharedPort, "services[0]", "443 is http_service of `gateway` already"),
    (WHOLE, "", "[[services]]\ninternal_port = 8081\nprocesses = [\"node\"]\nports = [{ start_port = 79, end_port = 81 }]", Rule::SharedPort, "services[0]", "80 is http_service of `gateway` already"),
    (WHOLE, "", "[[services]]\ninternal_port = 8081\nprocesses = [\"node\"]\nports = [{ port = 1, end_port = 2 }]", Rule::PortForm, "services[0].ports[0]", "end_port = 2\nport = 1"),
    (WHOLE, "", "[[services]]\ninternal_port = 8081\nprotocol = \"udp\"\nprocesses = [\"node\"]\nports = [{ port = 1, handlers = [\"tls\"] }]", Rule::UdpHandlers, "services[0].ports[0]", "tls"),
    (WHOLE, "", "[[services]]\ninternal_port = 8081\nprocesses = [\"node\"]\nports = [{ port = 65536 }]", Rule::OutOfRange, "services[0].ports[0].port", "65536 is not within 1.0..=65535.0"),
    // Files.
    (WHOLE, "", "[[files]]\nguest_path = \"/a\"", Rule::FileSource, "files[0]", "guest_path = \"/a\""),
    (WHOLE, "", "[[files]]\nguest_path = \"/a\"\nlocal_path = \"Cargo.toml\"\nsecret_name = \"A\"", Rule::FileSource, "files[0]", "guest_path = \"/a\"\nlocal_path = \"Cargo.toml\"\nsecret_name = \"A\""),
    (WHOLE, "", "[[files]]\nguest_path = \"/a\"\nraw_value = \"YQ==\"", Rule::RawValue, "files[0]", "raw_value"),
    // Ours.
    (WHOLE, "\"SIGTERM\"", "\"SIGQUIT\"", Rule::Signal, "kill_signal", "SIGQUIT"),
    (EDGE, "kill_timeout = \"60s\"", "kill_timeout = \"49s\"", Rule::KillBeforeDrain, "kill_timeout", "49s is less than twice the 25s that `gateway` drains"),
    (EDGE, "kill_timeout = \"60s\"", "", Rule::KillBeforeDrain, "kill_timeout", "5s is less than twice the 25s that `gateway` drains"),
    (WHOLE, "node = \"serve --config", "node = \"server --config", Rule::Command, "processes.node", "`server` is none of serve, cluster, check, …"),
    (WHOLE, "node = \"serve --config", "node = \"check --config", Rule::Command, "processes.node", "`check` ends, and the Machine with it"),
    (WHOLE, "node = \"serve --config", "node = \"serve --file", Rule::Command, "processes.node", "`--file` is none of --config, --models, --listen, --backend"),
    (WHOLE, "node = \"serve --config /app/configs/fly-node.toml\"", "node = \"serve\"", Rule::Command, "processes.node", "without --config it would listen on this machine only"),
    (WHOLE, "node = \"serve --config /app/", "node = \"serve --config /etc/", Rule::Command, "processes.node", "`/etc/configs/fly-node.toml` is not in /app/"),
    (EDGE, "port = 8080\npath", "port = 9091\npath", Rule::PortNotListened, "metrics[0].port", "9091, but `gateway` listens on 8080"),
    (WHOLE, "internal_port = 8080", "internal_port = 8081", Rule::PortNotListened, "http_service.internal_port", "8081, but `gateway` listens on 8080"),
    (WHOLE, "port = 8081\ntype", "port = 8080\ntype", Rule::PortNotListened, "checks.node_ready.port", "8080, but `node` listens on 8081"),
    (WHOLE, "hard_limit = 4000", "hard_limit = 4096", Rule::OverConnections, "http_service.concurrency", "soft 2000, hard 4096, and server.connections_max is 4096"),
    (WHOLE, "soft_limit = 2000", "soft_limit = 4001", Rule::OverConnections, "http_service.concurrency", "soft 4001, hard 4000, and server.connections_max is 4096"),
    (WHOLE, "idle_timeout = 60", "idle_timeout = 60\nh2_backend = true", Rule::Http2, "http_service", "h2_backend"),
    (WHOLE, "", "[[services]]\ninternal_port = 8081\nprocesses = [\"node\"]\nports = [{ port = 8443, handlers = [\"http\"], http_options = { h2_backend = true } }]", Rule::Http2, "services[0]", "h2_backend"),
    (EDGE, "PEREGRINE_CLUSTER__SEEDS =", "PEREGRINE_CLUSTER__SEED =", Rule::UnknownSetting, "env.PEREGRINE_CLUSTER__SEED", "cluster.seed"),
    (EDGE, "[env]", "[env]\nPEREGRINE_CLUSTER = \"a\"", Rule::UnknownSetting, "env.PEREGRINE_CLUSTER", "cluster"),
    (EDGE, "[env]", "[env]\nPEREGRINE_CLUSTER__SECRET = \"a\"", Rule::SecretInFile, "env.PEREGRINE_CLUSTER__SECRET", "PEREGRINE_CLUSTER__SECRET"),
    (EDGE, "[env]", "[env]\nPEREGRINE_MODEL_KEY = \"a\"", Rule::SecretInFile, "env.PEREGRINE_MODEL_KEY", "PEREGRINE_MODEL_KEY"),
];

#[test]
fn each_mutation_is_found_and_nothing_else() {
    let wrong: Vec<String> = ROWS.iter().filter_map(surprise).collect();
    assert!(wrong.is_empty(), "{} rows:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_rule_has_a_mutation() {
    let without: Vec<&Rule> =
        Rule::ALL.iter().filter(|rule| !ROWS.iter().any(|(_, _, _, seen, ..)| seen == *rule)).collect();
    assert!(without.is_empty(), "{without:?}");
}

#[test]
fn a_gpu_is_refused_with_the_date_and_the_way_out() {
    let text = broken(WHOLE, "\"performance-4x\"", "\"l40s\"");
    let said = validated(&text).findings[0].to_string();
    for part in ["2026-08-01", "2026-08-11", "external worker", "fly/worker.md", "vm[1].size", "l40s"] {
        assert!(said.contains(part), "{said}");
    }
}

fn broken(file: &str, from: &str, to: &str) -> String {
    let text = shipped(file);
    let at = |part: &str, after: usize| {
        let found = text[after..].find(part).unwrap_or_else(|| panic!("fly/{file} has no `{part}`"));
        after + found
    };
    let span = match from.split_once('…') {
        _ if from.is_empty() => return format!("{text}\n{to}\n"),
        None => at(from, 0)..at(from, 0) + from.len(),
        Some((first, last)) => at(first, 0)..at(last, at(first, 0)),
    };
    // The last of a range stays.
    let to = from.split_once('…').map_or(to, |(_, last)| to.strip_suffix(last).unwrap_or(to));
    format!("{}{to}{}", &text[..span.start], &text[span.end..])
}

/// What was found, unless it is what the row says and that alone.
fn surprise((file, from, to, rule, at, detail): &Row) -> Option<String> {
    let findings = validated(&broken(file, from, to)).findings;
    let folder = crate::folder();
    let detail = detail.replace("FOLDER", &folder.display().to_string());
    let expected = |found: &Finding| {
        let same = match detail.strip_suffix('…') {
            Some(start) => found.detail.starts_with(start),
            None => found.detail == detail,
        };
        found.rule == *rule && found.at == *at && same
    };
    let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
    let is_expected = findings.len() == 1 && expected(&findings[0]);
    (!is_expected).then(|| format!("fly/{file}: `{from}` -> `{to}`: {}", lines.join(" | ")))
}
