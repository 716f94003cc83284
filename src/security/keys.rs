//! The file of keys: TOML, a table `[[keys]]` for each. Knows no path; text comes in, keys go out.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::SystemTime;

use serde::Deserialize;
use toml::value::{Datetime, Offset};

use super::calendar::Civil;
use super::key::KeyHash;
use super::scopes::Scopes;
use crate::config::{Rate, Scope};

/// Every request is compared with each of them.
const KEYS_MAX: usize = 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeysFile {
    #[serde(default)]
    keys: Vec<KeyFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    name: String,
    hash: String,
    scopes: Vec<Scope>,
    expires: Option<Datetime>,
    requests_per_second: Option<f64>,
    burst: Option<usize>,
}

/// One key as used.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Key {
    /// In logs and metrics of the operator's choice; never the key itself.
    pub(crate) name: Arc<str>,
    pub(crate) hash: KeyHash,
    pub(crate) scopes: Scopes,
    pub(crate) expires: Option<SystemTime>,
    /// `None`: as all others.
    pub(crate) rate: Option<Option<Rate>>,
}

/// A file of keys that cannot be used; the operator acts. Never repeats a hash.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadKeys {
    #[error("line {line}: {message}")]
    Toml { line: usize, message: String },
    #[error("key {position} (`{name}`): {message}")]
    Key { position: usize, name: String, message: String },
    #[error("more than {KEYS_MAX} keys")]
    TooMany,
}

pub(crate) fn parse(text: &str) -> Result<Vec<Key>, BadKeys> {
    let file: KeysFile = toml::from_str(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start.min(text.len()));
        let line = text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count() + 1;
        BadKeys::Toml { line, message: error.message().to_owned() }
    })?;
    if file.keys.len() > KEYS_MAX {
        return Err(BadKeys::TooMany);
    }
    let (mut names, mut hashes, mut keys) = (HashSet::new(), HashSet::new(), Vec::new());
    for (at, written) in file.keys.into_iter().enumerate() {
        let name = written.name.clone();
        let bad = |message| BadKeys::Key { position: at + 1, name: name.clone(), message };
        let key = checked(written).map_err(bad)?;
        if !names.insert(key.name.clone()) {
            return Err(bad("another key has this name".to_owned()));
        }
        if !hashes.insert(key.hash) {
            return Err(bad("another key has this hash".to_owned()));
        }
        keys.push(key);
    }
    Ok(keys)
}

fn checked(written: KeyFile) -> Result<Key, String> {
    let hash = KeyHash::parse(&written.hash);
    let hash = hash.ok_or("hash is not `sha256:` and 64 hexadecimal digits")?;
    if !is_name(&written.name) {
        return Err("name is not 1 to 64 letters, digits, `-`, `_` or `.`".to_owned());
    }
    if written.scopes.is_empty() {
        return Err("scopes are empty: it could do nothing".to_owned());
    }
    let expires = match written.expires {
        None => None,
        Some(at) => {
            Some(instant(&at).ok_or("expires is not a time with its offset, e.g. 2027-01-31T00:00:00Z")?)
        }
    };
    let rate = match (written.requests_per_second, written.burst) {
        (None, None) => None,
        (None, Some(_)) => return Err("burst has no requests_per_second beside it".to_owned()),
        (Some(rate), burst) => Some(Rate::from_written(rate, burst.unwrap_or(0))?),
    };
    Ok(Key { name: written.name.into(), hash, scopes: Scopes::of(&written.scopes), expires, rate })
}

/// May a key be called so?
pub(crate) fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=64).contains(&name.len()) && name.bytes().all(fits)
}

/// When a key ends, as the file says it; `None`: it is no time with its offset.
pub(crate) fn expiry(text: &str) -> Option<SystemTime> {
    instant(&text.parse().ok()?)
}

fn instant(at: &Datetime) -> Option<SystemTime> {
    let (date, time) = (at.date?, at.time?);
    let minutes = match at.offset? {
        Offset::Z => 0,
        Offset::Custom { minutes } => i64::from(minutes),
    };
    let time_of_day =
        i64::from(time.hour) * 3600 + i64::from(time.minute) * 60 + i64::from(time.second.unwrap_or(0));
    let (year, month, day) = (i64::from(date.year), i64::from(date.month), i64::from(date.day));
    Civil { year, month, day, second: time_of_day - minutes * 60 }.to_system()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    const HASH: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn a_key_is_read_with_all_it_has() {
        let text = format!(
            "[[keys]]\nname = \"desk\"\nhash = \"{HASH}\"\nscopes = [\"predict\", \"ingest\"]\n\
             expires = 2000-03-01T01:00:00+01:00\nrequests_per_second = 2.5\nburst = 7\n"
        );
        let keys = parse(&text).unwrap();
        let key = &keys[0];
        assert_eq!((keys.len(), &*key.name, key.scopes.to_string()), (1, "desk", "predict or ingest".into()));
        assert_eq!(key.expires, Some(UNIX_EPOCH + Duration::from_secs(951_868_800)));
        assert_eq!(key.rate, Some(Some(Rate { per_second: 2.5, burst: 7.0 })));
        assert_eq!(parse(""), Ok(Vec::new()));
    }

    #[test]
    fn a_mistake_is_named_and_no_hash_repeated() {
        check("name = \"a b\"", "key 1 (`a b`): name is not");
        check("name = \"a\"\nexpires = 2027-01-31", "key 1 (`a`): expires is not");
        check("name = \"a\"\nburst = 3", "key 1 (`a`): burst has no");
        check("name = \"a\"\nrequests_per_second = -1.0", "key 1 (`a`): -1 is not within");
        check("name = \"a\"\ncolour = 3", "unknown field `colour`");
        check("name = 3", "line 2: invalid type");
        let one = format!("[[keys]]\nname = \"a\"\nhash = \"{HASH}\"\nscopes = [\"admin\"]\n");
        let refused = parse(&one.repeat(2)).unwrap_err().to_string();
        assert_eq!(refused, "key 2 (`a`): another key has this name");
        let many: String = (0..=KEYS_MAX).map(|at| one.replace("\"a\"", &format!("\"k{at}\""))).collect();
        assert_eq!(parse(&many), Err(BadKeys::TooMany));
    }

    #[track_caller]
    fn check(lines: &str, want: &str) {
        let refused = parse(&format!("[[keys]]\n{lines}\nhash = \"{HASH}\"\nscopes = [\"predict\"]\n"));
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains(want) && !refused.contains("0123456789"), "{refused}");
    }
}
