//! What the platform offers: sizes and regions. It offers no GPU.

use peregrine_fly::machines::HttpResponse;
use serde_json::Value;

use super::answers::fails;

/// PLATFORM §1.5.
pub(crate) const REGIONS: [&str; 18] = [
    "ams", "arn", "bom", "cdg", "dfw", "ewr", "fra", "gru", "iad", "jnb", "lax", "lhr", "nrt", "ord", "sin",
    "sjc", "syd", "yyz",
];

/// `guest_limits`, and the 400 for anything with a GPU.
pub(crate) fn refusal(guest: &Value) -> Option<HttpResponse> {
    let has = |key: &str| guest.get(key).is_some_and(|value| !value.is_null());
    if has("gpus") || has("gpu_kind") {
        // open: the text was not captured.
        return Some(fails(400, "GPU machines are no longer available"));
    }
    let number = |key: &str| guest[key].as_u64().unwrap_or(0);
    let (cpus, memory) = (number("cpus"), number("memory_mb"));
    let (counts, low, high, step): (&[u64], _, _, _) = match guest["cpu_kind"].as_str() {
        Some("shared") => (&[1, 2, 4, 6, 8], 256, 2048, 256),
        Some("performance") => (&[1, 2, 4, 6, 8, 10, 12, 14, 16], 2048, 8192, 2048),
        _ => return Some(fails(400, "invalid config.guest.cpu_kind")),
    };
    let fits =
        counts.contains(&cpus) && (low * cpus..=high * cpus).contains(&memory) && memory.is_multiple_of(step);
    (!fits).then(|| fails(400, "invalid config.guest"))
}

/// Whether a configuration is refused.
pub(crate) fn refusal_of_config(config: &Value) -> Option<HttpResponse> {
    if config["image"].as_str().is_none_or(str::is_empty) {
        return Some(fails(400, "config.image is required"));
    }
    match (config.get("guest"), config.get("size").and_then(Value::as_str)) {
        (Some(guest), _) if !guest.is_null() => refusal(guest),
        (_, Some(size)) if size.starts_with("shared-cpu-") || size.starts_with("performance-") => None,
        (_, Some(_)) => Some(fails(400, "GPU machines are no longer available")),
        _ => None,
    }
}

/// Regions of an expression, the preferred first: `iad,dfw`, `lhr,eu`, `any`.
pub(crate) fn regions(expression: &str) -> Vec<&'static str> {
    let mut regions = Vec::new();
    for word in expression.split(',') {
        let meant: &[&str] = match word.trim() {
            "any" => &REGIONS,
            "eu" => &["ams", "arn", "cdg", "fra", "lhr"],
            "na" | "usa" | "us" => &["dfw", "ewr", "iad", "lax", "ord", "sjc"],
            "sa" => &["gru"],
            "apac" => &["bom", "nrt", "sin", "syd"],
            one => &[one],
        };
        let known = REGIONS.iter().filter(|region| meant.contains(region));
        regions.extend(known.filter(|region| !regions.contains(*region)).copied().collect::<Vec<_>>());
    }
    regions
}
