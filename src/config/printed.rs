//! A resolved configuration for who reads it: each value with its origin, no secret.

use toml::Value;

use super::file::LISTS;
use super::layers::{key_of, quoted};
use super::secret::{REDACTED, is_secret};
use super::{Leaf, Resolved};

impl Resolved {
    /// The resolved form as TOML, each value with its origin.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut keys: Vec<(&[String], &String, &Leaf)> = self
            .leaves()
            .iter()
            .filter_map(|(path, leaf)| path.split_last().map(|(key, section)| (section, key, leaf)))
            .filter(|(.., leaf)| !leaf.value.is_table())
            .collect();
        let position = |part: &String| (part.parse::<usize>().unwrap_or(usize::MAX), part.clone());
        keys.sort_by_cached_key(|(section, key, _)| {
            (section.iter().map(position).collect::<Vec<_>>(), (*key).clone())
        });
        let mut text = String::new();
        let mut open: &[String] = &[];
        for (section, key, leaf) in keys {
            if section != open {
                let gap = if text.is_empty() { "" } else { "\n" };
                let header = match section {
                    [list, _] if LISTS.contains(&list.as_str()) => format!("[[{list}]]"),
                    section => format!("[{}]", key_of(section)),
                };
                text.push_str(&format!("{gap}{header}\n"));
                open = section;
            }
            let path: Vec<String> = section.iter().chain([key]).cloned().collect();
            let assignment = format!("{} = {}", quoted(key), shown(&path, leaf));
            text.push_str(&format!("{assignment:<44} # {}\n", leaf.origin));
        }
        text
    }

    /// The same for machines: key → value and origin.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let entries = self.leaves().iter().filter(|(_, leaf)| !leaf.value.is_table()).map(|(path, leaf)| {
            let value = shown(path, leaf);
            let entry = serde_json::json!({ "value": value, "origin": leaf.origin.to_string() });
            (key_of(path), entry)
        });
        serde_json::Value::Object(entries.collect())
    }
}

/// Nobody is shown a secret; that there is none may be seen.
fn shown(path: &[String], leaf: &Leaf) -> Value {
    match &leaf.value {
        Value::String(text) if text.is_empty() => leaf.value.clone(),
        _ if is_secret(path) => Value::String(REDACTED.to_owned()),
        value => value.clone(),
    }
}
