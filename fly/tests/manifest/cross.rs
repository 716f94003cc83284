//! Rules of the platform that take more than one key: groups, Machines, ports, files.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value as Json;
use toml::{Table, Value};

use crate::rules::{Report, Rule};
use crate::values::{megabytes, words};

/// Entries under a key, whether they are written as one table or as several.
pub(crate) fn entries<'a>(table: &'a Table, key: &str) -> Vec<&'a Table> {
    match table.get(key) {
        Some(Value::Table(entry)) => vec![entry],
        Some(Value::Array(entries)) => entries.iter().filter_map(Value::as_table).collect(),
        _ => Vec::new(),
    }
}

/// Strings of a list.
fn texts<'a>(table: &'a Table, key: &str) -> Vec<&'a str> {
    table.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}

fn text<'a>(table: &'a Table, keys: &[&str]) -> Option<&'a str> {
    let (last, before) = keys.split_last()?;
    before.iter().try_fold(table, |table, key| table.get(*key)?.as_table())?.get(*last)?.as_str()
}

/// The names of the process groups, `app` if there is but one.
pub(crate) fn groups(manifest: &Table) -> Vec<&str> {
    match manifest.get("processes").and_then(Value::as_table) {
        Some(processes) => processes.keys().map(String::as_str).collect(),
        None => vec!["app"],
    }
}

/// The groups that an entry is for.
pub(crate) fn groups_of<'a>(manifest: &'a Table, entry: &'a Table) -> Vec<&'a str> {
    let named = texts(entry, "processes");
    if named.is_empty() { groups(manifest) } else { named }
}

/// Every service, `[http_service]` too, with its key.
pub(crate) fn services(manifest: &Table) -> Vec<(String, &Table)> {
    let http = manifest.get("http_service").and_then(Value::as_table);
    let others = entries(manifest, "services").into_iter().enumerate();
    let others = others.map(|(index, service)| (format!("services[{index}]"), service));
    http.into_iter().map(|service| ("http_service".to_owned(), service)).chain(others).collect()
}

/// Checks all of it; files are looked for in `root`, where flyctl is run, and in `folder`, where the manifest is.
pub(crate) fn check(data: &Json, manifest: &Table, root: &Path, folder: &Path, report: &mut Report) {
    region(data, manifest, report);
    processes(manifest, report);
    machines(data, manifest, report);
    volumes_and_strategy(manifest, report);
    ports(manifest, report);
    files(data, manifest, root, folder, report);
    for name in manifest.get("env").and_then(Value::as_table).into_iter().flat_map(Table::keys) {
        report.require(!name.starts_with("FLY_"), Rule::PlatformEnv, &format!("env.{name}"), name);
    }
}

fn region(data: &Json, manifest: &Table, report: &mut Report) {
    let regions = data["regions_2026_08"].as_array().expect("the data lists regions");
    if let Some(region) = text(manifest, &["primary_region"]) {
        let known = regions.iter().any(|known| known.as_str() == Some(region));
        report.require(known, Rule::UnknownRegion, "primary_region", region);
    }
}

fn processes(manifest: &Table, report: &mut Report) {
    let known = groups(manifest);
    let mut named = |at: &str, table: &Table| {
        for name in texts(table, "processes") {
            report.require(known.contains(&name), Rule::UnknownProcess, at, name);
        }
    };
    for key in ["mounts", "metrics", "services", "files", "restart", "vm"] {
        for (index, entry) in entries(manifest, key).into_iter().enumerate() {
            named(&format!("{key}[{index}]"), entry);
        }
    }
    entries(manifest, "http_service").into_iter().for_each(|service| named("http_service", service));
    for (name, check) in manifest.get("checks").and_then(Value::as_table).into_iter().flatten() {
        check.as_table().into_iter().for_each(|check| named(&format!("checks.{name}"), check));
    }
    if manifest.contains_key("processes") {
        for (at, service) in services(manifest) {
            report.require(!texts(service, "processes").is_empty(), Rule::NoProcess, &at, "processes");
        }
    }
    let mut split = |at: String, command: &str| {
        report.require(words(command).is_some(), Rule::ShellWords, &at, command);
    };
    for (name, command) in manifest.get("processes").and_then(Value::as_table).into_iter().flatten() {
        split(format!("processes.{name}"), command.as_str().unwrap_or_default());
    }
    for keys in [&["console_command"][..], &["deploy", "release_command"], &["deploy", "seed_command"]] {
        split(keys.join("."), text(manifest, keys).unwrap_or_default());
    }
}

fn machines(data: &Json, manifest: &Table, report: &mut Report) {
    let vms = entries(manifest, "vm").into_iter().enumerate();
    let mut all: Vec<(String, &Table)> = vms.map(|(index, vm)| (format!("vm[{index}]"), vm)).collect();
    if let Some(vm) = manifest.get("deploy").and_then(|deploy| deploy.get("release_command_vm")?.as_table()) {
        all.push(("deploy.release_command_vm".to_owned(), vm));
    }
    for (at, vm) in all {
        machine(data, &at, vm, report);
    }
}

fn machine(data: &Json, at: &str, vm: &Table, report: &mut Report) {
    for key in ["gpus", "gpu_kind"] {
        if let Some(value) = vm.get(key) {
            report.add(Rule::GpuNotOffered, &format!("{at}.{key}"), value.to_string());
        }
    }
    let presets = data["vm_presets"].as_object().expect("the data has sizes");
    let gone = data["vm_presets_rejected_by_api_since_2026_08"].as_array().expect("the data has old sizes");
    let size = vm.get("size").and_then(Value::as_str);
    if let Some(size) = size.filter(|size| gone.iter().any(|gone| gone.as_str() == Some(size))) {
        report.add(Rule::GpuNotOffered, &format!("{at}.size"), size);
        return;
    }
    let first = presets.get("shared-cpu-1x").expect("the smallest is known");
    let mut preset = match size {
        None => first,
        Some(size) => match presets.get(size) {
            Some(preset) => preset,
            None => return report.add(Rule::UnknownSize, &format!("{at}.size"), size),
        },
    };
    if vm.contains_key("cpus") || vm.contains_key("cpu_kind") {
        let kind = vm.get("cpu_kind").and_then(Value::as_str).or(preset["cpu_kind"].as_str());
        let cpus = vm.get("cpus").and_then(Value::as_integer).or(preset["cpus"].as_i64());
        let found =
            presets.values().find(|one| one["cpu_kind"].as_str() == kind && one["cpus"].as_i64() == cpus);
        match found {
            Some(found) => preset = found,
            None => return report.add(Rule::UnknownSize, at, format!("{kind:?} with {cpus:?} cpus")),
        }
    }
    let limits = ["memory_mb", "memory_mb_max", "step_mb"].map(|key| preset[key].as_i64().expect(key));
    for key in ["memory", "memory_mb", "max_memory_mb"] {
        let Some(written) = vm.get(key) else { continue };
        let mb = written.as_integer().or_else(|| written.as_str().and_then(megabytes));
        let [least, most, step] = limits;
        let fits = mb.is_some_and(|mb| (least..=most).contains(&mb) && mb % step == 0);
        let detail = format!("{written} is not {least} to {most} MB in steps of {step}");
        report.require(fits, Rule::Memory, &format!("{at}.{key}"), detail);
    }
    let twice = vm.contains_key("memory") && vm.contains_key("memory_mb");
    report.require(!twice, Rule::Memory, at, "written twice");
}

fn volumes_and_strategy(manifest: &Table, report: &mut Report) {
    let strategy = text(manifest, &["deploy", "strategy"]).unwrap_or("rolling");
    let mounted = !entries(manifest, "mounts").is_empty();
    let fits = !(mounted && ["canary", "bluegreen"].contains(&strategy));
    report.require(fits, Rule::MountStrategy, "mounts", strategy);
    for key in ["mounts", "metrics"] {
        let mut first: BTreeMap<&str, usize> = BTreeMap::new();
        for (index, entry) in entries(manifest, key).into_iter().enumerate() {
            for group in groups_of(manifest, entry) {
                let before = *first.entry(group).or_insert(index);
                let detail = format!("`{group}` has {key}[{before}]");
                report.require(before == index, Rule::OncePerGroup, &format!("{key}[{index}]"), detail);
            }
        }
    }
    let of_services = services(manifest).iter().any(|(_, service)| {
        ["checks", "tcp_checks", "http_checks"].iter().any(|key| !entries(service, key).is_empty())
    });
    let of_machines =
        manifest.get("checks").and_then(Value::as_table).is_some_and(|checks| !checks.is_empty());
    let checked = strategy != "bluegreen" || of_services || of_machines;
    report.require(checked, Rule::CheckMissing, "deploy.strategy", strategy);
    let by_machine = services(manifest).iter().any(|(_, service)| service.contains_key("machine_checks"))
        || manifest.contains_key("machine_checks");
    let fits = !by_machine || ["rolling", "canary"].contains(&strategy);
    report.require(fits, Rule::MachineChecks, "deploy.strategy", strategy);
    let share = manifest.get("deploy").is_some_and(|deploy| deploy.get("max_unavailable").is_some());
    let fits = !(share && ["bluegreen", "immediate"].contains(&strategy));
    report.require(
        fits,
        Rule::OutOfRange,
        "deploy.max_unavailable",
        format!("has no meaning with {strategy}"),
    );
}

fn ports(manifest: &Table, report: &mut Report) {
    // Which service and group has a port first.
    let mut taken: BTreeMap<(bool, i64), String> = BTreeMap::new();
    for (at, service) in services(manifest) {
        let is_udp = service.get("protocol").and_then(Value::as_str) == Some("udp");
        if is_udp {
            report.notes.push(format!(
                "{at}: udp needs a dedicated IPv4 ($2 a month), listens on fly-global-services, and keeps its port"
            ));
        }
        let mut external: Vec<(i64, i64)> = Vec::new();
        if at == "http_service" {
            external.extend([(80, 80), (443, 443)]);
        }
        for (index, port) in entries(service, "ports").into_iter().enumerate() {
            let at = format!("{at}.ports[{index}]");
            let number = |key: &str| port.get(key).and_then(Value::as_integer);
            let range = match (number("port"), number("start_port"), number("end_port")) {
                (Some(port), None, None) => (port, port),
                (None, Some(start), Some(end)) if start <= end => (start, end),
                _ => {
                    report.add(Rule::PortForm, &at, port.to_string().trim());
                    continue;
                }
            };
            external.push(range);
            let handlers = texts(port, "handlers");
            report.require(!is_udp || handlers.is_empty(), Rule::UdpHandlers, &at, handlers.join(", "));
            let shared =
                matches!((range, &handlers[..]), ((80, 80), ["http"]) | ((443, 443), ["tls", "http"]));
            if !shared && !is_udp {
                report.notes.push(format!("{at}: needs a dedicated IPv4 ($2 a month)"));
            }
        }
        for group in groups_of(manifest, service) {
            for port in external.iter().flat_map(|(start, end)| *start..=*end) {
                let owner = format!("{at} of `{group}`");
                if let Some(first) = taken.insert((is_udp, port), owner) {
                    report.add(Rule::SharedPort, &at, format!("{port} is {first} already"));
                }
            }
        }
    }
}

fn files(data: &Json, manifest: &Table, root: &Path, folder: &Path, report: &mut Report) {
    let mut there = |at: &str, path: &Path| {
        report.require(path.is_file(), Rule::NoFile, at, path.display().to_string());
    };
    for (keys, base) in [(["build", "dockerfile"], folder), (["build", "ignorefile"], folder)] {
        if let Some(file) = text(manifest, &keys) {
            there(&keys.join("."), &base.join(file));
        }
    }
    for (index, file) in entries(manifest, "files").into_iter().enumerate() {
        let at = format!("files[{index}]");
        if let Some(local) = file.get("local_path").and_then(Value::as_str) {
            report.require(root.join(local).is_file(), Rule::NoFile, &format!("{at}.local_path"), local);
        }
        if file.contains_key("raw_value") {
            report.add(Rule::RawValue, &at, "raw_value");
        }
        let sources =
            ["local_path", "secret_name", "raw_value"].iter().filter(|key| file.contains_key(**key));
        report.require(sources.count() == 1, Rule::FileSource, &at, file.to_string().trim());
    }
    let statics_max = data["bounds"]["statics_max"].as_u64().expect("the data bounds statics");
    let statics = entries(manifest, "statics").len() as u64;
    report.require(statics <= statics_max, Rule::OutOfRange, "statics", statics.to_string());
}
