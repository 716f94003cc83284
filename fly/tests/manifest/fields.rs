//! The form of a fly.toml: its keys and their types, enums and bounds, against the tree of fields.

use serde_json::Value as Json;
use toml::Value;

use crate::rules::{Report, Rule};
use crate::values::{duration, megabytes};

/// Where a value is: as it is read, and as the data writes it (`[]` for an entry, `*` for a key of any name).
#[derive(Clone)]
struct Place {
    at: String,
    pattern: String,
}

impl Place {
    fn key(&self, key: &str, is_any: bool) -> Self {
        let join = |before: &str, key: &str| match before {
            "" => key.to_owned(),
            before => format!("{before}.{key}"),
        };
        Self { at: join(&self.at, key), pattern: join(&self.pattern, if is_any { "*" } else { key }) }
    }

    fn entry(&self, index: usize) -> Self {
        Self { at: format!("{}[{index}]", self.at), pattern: format!("{}[]", self.pattern) }
    }

    /// Does the data's name, which may leave out what is before it, mean this place?
    fn is(&self, name: &str) -> bool {
        let pattern = self.pattern.replace("deploy.release_command_vm", "vm[]");
        pattern.strip_suffix(name).is_some_and(|before| before.is_empty() || before.ends_with('.'))
    }
}

/// Checks every key and value of `manifest` against `data`.
pub(crate) fn check(data: &Json, manifest: &toml::Table, report: &mut Report) {
    let root = Place { at: String::new(), pattern: String::new() };
    Fields { data, report }.table(&data["tree"], manifest, &root);
}

struct Fields<'a> {
    data: &'a Json,
    report: &'a mut Report,
}

impl Fields<'_> {
    fn table(&mut self, tree: &Json, table: &toml::Table, place: &Place) {
        for (key, value) in table {
            let known = tree.get(key).filter(|_| key != "*");
            let inner = place.key(key, known.is_none());
            if let Some(canonical) = self.alias(&place.key(key, false).pattern) {
                self.report.add(Rule::LegacyAlias, &inner.at, canonical);
                continue;
            }
            match known.or_else(|| tree.get("*")) {
                Some(tree) => self.value(tree, value, &inner),
                None => self.report.add(Rule::UnknownKey, &inner.at, key.as_str()),
            }
        }
    }

    fn alias(&self, pattern: &str) -> Option<String> {
        self.data["aliases_accepted"].get(pattern).filter(|_| pattern != "note")?.as_str().map(str::to_owned)
    }

    fn value(&mut self, tree: &Json, value: &Value, place: &Place) {
        match (tree, value) {
            (Json::String(kind), value) => self.leaf(kind, value, place),
            (Json::Object(_), Value::Table(table)) => self.table(tree, table, place),
            (Json::Object(_), Value::Array(_)) => {
                self.report.add(Rule::TableForm, &place.at, "write one [table]");
            }
            (Json::Array(entry), Value::Array(values)) => {
                for (index, value) in values.iter().enumerate() {
                    self.value(&entry[0], value, &place.entry(index));
                }
            }
            (Json::Array(entry), Value::Table(table)) if entry[0].is_object() => {
                let accepted = &self.data["single_table_accepted_for"];
                let accepted = accepted.as_array().expect("the data lists them");
                if accepted.iter().any(|name| name.as_str() == Some(&place.pattern)) {
                    self.table(&entry[0], table, &place.entry(0));
                } else {
                    self.report.add(Rule::TableForm, &place.at, "write [[tables]]");
                }
            }
            (_, value) => self.report.add(Rule::WrongType, &place.at, value.type_str()),
        }
    }

    fn leaf(&mut self, kind: &str, value: &Value, place: &Place) {
        let fits = match kind {
            "string" => value.is_str(),
            "int" => value.is_integer(),
            "uint32_seconds" => value.as_integer().is_some_and(|n| u32::try_from(n).is_ok()),
            "float" => value.is_float() || value.is_integer(),
            "bool" => value.is_bool(),
            "string_or_int" => value.is_str() || value.is_integer(),
            "autostop" => value.is_str() || value.is_bool(),
            "any" => true,
            "duration" => {
                if value.as_str().and_then(duration).is_none() {
                    self.report.add(Rule::NoUnit, &place.at, value.to_string());
                    return;
                }
                true
            }
            other => panic!("the data has a type `{other}` that nobody wrote a check for"),
        };
        if !fits {
            self.report.add(Rule::WrongType, &place.at, format!("{} is not {kind}", value.type_str()));
            return;
        }
        self.one_of(value, place);
        self.bounds(value, place);
    }

    fn one_of(&mut self, value: &Value, place: &Place) {
        let enums = self.data["enums"].as_object().expect("the data has enums");
        // Lists of words are checked word by word: the entry stands for the list's name.
        let listed = Place { pattern: place.pattern.trim_end_matches("[]").to_owned(), ..place.clone() };
        let found = enums.iter().find(|(name, _)| place.is(name) || listed.is(name));
        if let (Some((_, words)), Some(word)) = (found, value.as_str()) {
            let words: Vec<&str> = words.as_array().into_iter().flatten().filter_map(Json::as_str).collect();
            let detail = format!("`{word}` is none of {}", words.join(", "));
            self.report.require(words.contains(&word), Rule::NotOneOf, &place.at, detail);
        }
    }

    fn bounds(&mut self, value: &Value, place: &Place) {
        let bounds = &self.data["bounds"];
        let number = |name: &str| bounds[name].as_f64().expect(name);
        let pair = |name: &str| bounds[name][0].as_f64().expect(name)..=bounds[name][1].as_f64().expect(name);
        let of = |names: &[&str]| names.iter().any(|name| place.is(name));
        let in_check = place.pattern.contains("checks");
        let gigabytes = || value.as_str().and_then(megabytes).map_or(f64::NAN, |mb| mb as f64 / 1024.0);
        let seconds = || value.as_str().and_then(duration).map_or(f64::NAN, |time| time.as_secs_f64());
        let plain = || value.as_float().or(value.as_integer().map(|n| n as f64)).unwrap_or(f64::NAN);
        let infinity = f64::INFINITY;
        let (measured, range) = if of(&["kill_timeout"]) {
            (seconds(), 0.0..=number("kill_timeout_max_s"))
        } else if in_check && of(&["interval"]) {
            (seconds(), number("check_interval_min_s")..=infinity)
        } else if in_check && of(&["timeout"]) {
            (seconds(), 0.001..=number("check_timeout_max_s"))
        } else if of(&["build.compression_level"]) {
            (plain(), pair("compression_level"))
        } else if of(&["snapshot_retention"]) {
            (plain(), pair("snapshot_retention"))
        } else if of(&["auto_extend_size_threshold"]) {
            (plain(), pair("auto_extend_size_threshold"))
        } else if of(&["auto_extend_size_increment"]) {
            (gigabytes(), pair("auto_extend_size_increment_gb"))
        } else if of(&["auto_extend_size_limit"]) {
            (gigabytes(), 1.0..=number("auto_extend_size_limit_gb_max"))
        } else if of(&["initial_size"]) {
            (gigabytes(), 1.0..=number("volume_max_gb"))
        } else if of(&["replay_cache[].ttl_seconds"]) {
            (plain(), number("replay_cache_ttl_min_s")..=infinity)
        } else if of(&["deploy.max_unavailable"]) {
            (plain(), f64::MIN_POSITIVE..=infinity)
        } else if of(&["port", "start_port", "end_port", "internal_port"]) {
            (plain(), 1.0..=65535.0)
        } else if of(&["soft_limit", "hard_limit", "cpus"]) {
            (plain(), 1.0..=infinity)
        } else if of(&["min_machines_running", "retries", "swap_size_mb"]) {
            (plain(), 0.0..=infinity)
        } else {
            return;
        };
        let detail = format!("{value} is not within {range:?}");
        self.report.require(range.contains(&measured), Rule::OutOfRange, &place.at, detail);
    }
}
