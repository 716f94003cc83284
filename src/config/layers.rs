//! Layers of written values, each value with its place; a later layer replaces single keys of an earlier one.
//!
//! Knows no key by name: what a key means, and whether it exists, is `file.rs`'s and `resolve.rs`'s.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use serde::Deserialize;
use toml::de::{DeTable, DeValue, ValueDeserializer};
use toml::{Spanned, Table, Value};

use super::file::{ConfigFile, LISTS, NESTED};
use super::{BUILT_IN, Mistake};
use crate::sealed::{SIGNING, VARIABLE};

/// Longer reports help nobody, and whoever posts a layer chooses how much is wrong with it.
const MISTAKES_MAX: usize = 256;
/// Keys that posted layers may add up to.
const LEAVES_MAX: usize = 4096;

/// Variables of the environment that begin so are configuration, `__` between section and key.
const PREFIX: &str = "PEREGRINE_";

const CLUSTER_ROLES: [&str; 2] = ["cluster", "roles"];

/// Where to look, weakest first after the built-in layer.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// In rising strength.
    pub files: Vec<PathBuf>,
    /// The environment; names without the prefix are ignored.
    pub environment: Vec<(String, String)>,
    /// The command line.
    pub overrides: Overrides,
}

impl Sources {
    /// These files and options, and the environment of this process.
    #[must_use]
    pub fn of_process(files: Vec<PathBuf>, overrides: Overrides) -> Self {
        let lossy = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        let environment = std::env::vars_os().map(|(name, value)| (lossy(name), lossy(value))).collect();
        Self { files, environment, overrides }
    }

    /// Variables that would be keys, but are what Kubernetes tells every container of a service named `peregrine`.
    pub fn of_kubernetes(&self) -> impl Iterator<Item = &str> {
        self.environment
            .iter()
            .filter(|(name, text)| is_of_kubernetes(name, text))
            .map(|(name, _)| name.as_str())
    }
}

/// Whether Kubernetes has set this for a service: its own names, and those of container links. No key is called so: none
/// stands outside a section.
fn is_of_kubernetes(name: &str, text: &str) -> bool {
    let Some(name) = name.strip_prefix(PREFIX) else { return false };
    let is_protocol = |word: &str| matches!(word, "TCP" | "UDP" | "SCTP");
    match name {
        "SERVICE_HOST" | "SERVICE_PORT" => true,
        // An address there; a number was meant for `server.listen`.
        "PORT" => text.contains("://"),
        _ => {
            if let Some(port) = name.strip_prefix("SERVICE_PORT_") {
                return !port.is_empty() && !port.starts_with('_') && !port.contains("__");
            }
            let Some(link) = name.strip_prefix("PORT_") else { return false };
            let words: Vec<&str> = link.split('_').collect();
            let (port, protocol) = match words[..] {
                [port, protocol] | [port, protocol, "PROTO" | "PORT" | "ADDR"] => (port, protocol),
                _ => return false,
            };
            port.parse::<u16>().is_ok() && is_protocol(protocol)
        }
    }
}

/// What the command line sets.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--listen`
    pub listen: Option<String>,
    /// `--backend`
    pub backend: Option<String>,
    /// `--models`: come before the configured repositories.
    pub models: Vec<PathBuf>,
    /// No model is read from a repository: the built-in one may be absent.
    pub needs_no_models: bool,
}

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// In [`BUILT_IN`].
    BuiltIn {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// In a file; line 0: the file as a whole.
    File {
        /// As given.
        file: PathBuf,
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
    },
    /// In a text that was posted to the running node.
    Posted {
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
    },
    /// A variable of the environment.
    Variable(String),
    /// An option of the command line.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn { line, column } => write!(f, "built-in local.toml:{line}:{column}"),
            Self::File { file, line: 0, .. } => write!(f, "{}", file.display()),
            Self::File { file, line, column } => write!(f, "{}:{line}:{column}", file.display()),
            Self::Posted { line, column } => write!(f, "posted text:{line}:{column}"),
            Self::Variable(name) => f.write_str(name),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

/// One value, the strongest so far at its path.
#[derive(Clone, Debug, PartialEq)]
pub struct Leaf {
    /// Not a table, unless an empty one.
    pub value: Value,
    /// Where it was written.
    pub origin: Origin,
}

/// Values by path.
pub(super) type Leaves = BTreeMap<Vec<String>, Leaf>;

/// Reads and merges all layers; values that no key takes are reported and left out.
pub(super) fn gather(sources: &Sources, mistakes: &mut Vec<Mistake>) -> Leaves {
    let mut leaves = Leaves::new();
    add_text(BUILT_IN, &|line, column| Origin::BuiltIn { line, column }, &mut leaves, mistakes);
    for file in &sources.files {
        let place = |line, column| Origin::File { file: file.clone(), line, column };
        match std::fs::read_to_string(file) {
            Ok(text) => add_text(&text, &place, &mut leaves, mistakes),
            Err(error) => mistakes.push(Mistake {
                origin: place(0, 0),
                key: String::new(),
                message: format!("cannot be read: {error}"),
            }),
        }
    }
    let mut variables: Vec<&(String, String)> = sources.environment.iter().collect();
    let is_list = |name: &str| {
        name.strip_prefix(PREFIX).is_some_and(|key| LISTS.iter().any(|list| key.eq_ignore_ascii_case(list)))
    };
    // One that names a section comes before those that name its keys, and all entries are there before one is changed.
    variables.sort_by_cached_key(|(name, _)| (!is_list(name), name.clone()));
    for (name, text) in variables {
        if name == VARIABLE {
            let path = ["models", "key"].map(str::to_owned).to_vec();
            add_plain(path, text, Origin::Variable(name.clone()), &mut leaves, mistakes);
        } else if let Some(path) = name.strip_prefix(PREFIX)
            && name != SIGNING
            && name != crate::client::KEY_VARIABLE
            && !is_of_kubernetes(name, text)
        {
            let path: Vec<String> = path.split("__").map(str::to_ascii_lowercase).collect();
            add_plain(path, text, Origin::Variable(name.clone()), &mut leaves, mistakes);
        }
    }
    let flags = [
        ("--listen", "server.listen", &sources.overrides.listen),
        ("--backend", "backend.choice", &sources.overrides.backend),
    ];
    for (flag, key, text) in flags {
        if let Some(text) = text {
            add_plain(
                key.split('.').map(str::to_owned).collect(),
                text,
                Origin::Flag(flag),
                &mut leaves,
                mistakes,
            );
        }
    }
    leaves
}

/// Gives entries of `nodes` without roles those of the files: the environment says what this process does, and the other
/// nodes of the list have processes of their own.
fn spell_out_roles(leaves: &mut Leaves) {
    let key = CLUSTER_ROLES.map(str::to_owned);
    let Some(roles) = leaves.get(key.as_slice()).cloned() else { return };
    let entries: BTreeSet<String> = leaves
        .keys()
        .filter(|path| path[0] == "nodes" && path.len() > 2)
        .map(|path| path[1].clone())
        .collect();
    for entry in entries {
        leaves.entry(vec!["nodes".to_owned(), entry, "roles".to_owned()]).or_insert_with(|| roles.clone());
    }
}

/// A text that was posted, over what is there.
pub(super) fn add_posted(text: &str, leaves: &mut Leaves, mistakes: &mut Vec<Mistake>) {
    add_text(text, &|line, column| Origin::Posted { line, column }, leaves, mistakes);
    if leaves.len() > LEAVES_MAX {
        let origin = Origin::Posted { line: 1, column: 1 };
        let message = format!("the configuration would have more than {LEAVES_MAX} keys");
        mistakes.push(Mistake { origin, key: String::new(), message });
    }
}

type Place<'a> = &'a dyn Fn(usize, usize) -> Origin;

fn add_text(text: &str, place: Place<'_>, leaves: &mut Leaves, mistakes: &mut Vec<Mistake>) {
    let at = |offset: usize| {
        let before = &text[..text.floor_char_boundary(offset)];
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        place(before.matches('\n').count() + 1, before[start..].chars().count() + 1)
    };
    let (root, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        mistakes.extend(errors.iter().map(|error| Mistake {
            origin: at(error.span().map_or(0, |span| span.start)),
            key: String::new(),
            message: error.message().to_owned(),
        }));
        return; // what a broken text means is a guess
    }
    let mut written = Vec::new();
    flatten(root.get_ref(), &mut Vec::new(), &mut written);
    for list in LISTS.iter().filter(|list| root.get_ref().contains_key(**list)) {
        leaves.retain(|path, _| path[0] != **list); // like every list, it replaces the weaker one as a whole
    }
    for leaf in written {
        let path: Vec<String> = leaf.path.iter().map(|(key, _)| key.clone()).collect();
        match misfit(&path, &leaf.value) {
            None => {
                leaves.insert(path, Leaf { value: leaf.value, origin: at(leaf.value_at) });
            }
            Some(Misfit { depth, message }) => {
                let offset = depth.map_or(leaf.value_at, |depth| leaf.path[depth].1.start);
                push_once(mistakes, Mistake { origin: at(offset), key: key_until(&path, depth), message });
            }
        }
    }
}

/// A value without a type of its own: a string if the key takes one, else what TOML reads in it.
fn add_plain(
    path: Vec<String>,
    text: &str,
    origin: Origin,
    leaves: &mut Leaves,
    mistakes: &mut Vec<Mistake>,
) {
    let string = Value::String(text.to_owned());
    if misfit(&path, &string).is_none() {
        leaves.insert(path, Leaf { value: string, origin });
        return;
    }
    let typed = ValueDeserializer::parse(text).ok().and_then(|value| Value::deserialize(value).ok());
    let mut values = Vec::new();
    spread(path.clone(), typed.unwrap_or(string), &mut values);
    let is_list = path.len() == 1 && LISTS.contains(&path[0].as_str());
    if is_list && values.iter().any(|(at, value)| at.len() > 1 || value.is_array()) {
        leaves.retain(|at, _| at[0] != path[0]); // as in a text, it replaces the weaker one as a whole
    }
    if values.iter().any(|(at, _)| *at == CLUSTER_ROLES) {
        spell_out_roles(leaves);
    }
    for (path, value) in values {
        match misfit(&path, &value) {
            None => {
                leaves.insert(path, Leaf { value, origin: origin.clone() });
            }
            Some(Misfit { depth, message }) => {
                let (origin, key) = (origin.clone(), key_until(&path, depth));
                push_once(mistakes, Mistake { origin, key, message });
            }
        }
    }
}

/// The values of a table, each under its own path, as [`flatten`] has those of a text.
fn spread(path: Vec<String>, value: Value, out: &mut Vec<(Vec<String>, Value)>) {
    let within = |key: String| path.iter().cloned().chain([key]).collect::<Vec<_>>();
    match value {
        Value::Table(table) if !table.is_empty() => {
            table.into_iter().for_each(|(key, value)| spread(within(key), value, out));
        }
        Value::Array(entries)
            if path.len() == 1 && LISTS.contains(&path[0].as_str()) && !entries.is_empty() =>
        {
            let entries = entries.into_iter().enumerate();
            entries.for_each(|(position, entry)| spread(within(position.to_string()), entry, out));
        }
        value => out.push((path, value)),
    }
}

struct Written {
    path: Vec<(String, Range<usize>)>,
    value: Value,
    value_at: usize,
}

fn flatten(table: &DeTable<'_>, path: &mut Vec<(String, Range<usize>)>, out: &mut Vec<Written>) {
    for (key, value) in table {
        path.push((key.get_ref().to_string(), key.span()));
        match value.get_ref() {
            DeValue::Table(inner) if !inner.is_empty() => flatten(inner, path, out),
            DeValue::Array(entries) if path.len() == 1 && LISTS.contains(&path[0].0.as_str()) => {
                flatten_list(value, entries, path, out);
            }
            _ => out.push(Written { path: path.clone(), value: plain(value), value_at: value.span().start }),
        }
        path.pop();
    }
}

/// Each entry under its position.
fn flatten_list(
    list: &Spanned<DeValue<'_>>,
    entries: &[Spanned<DeValue<'_>>],
    path: &mut Vec<(String, Range<usize>)>,
    out: &mut Vec<Written>,
) {
    if entries.is_empty() {
        out.push(Written { path: path.clone(), value: plain(list), value_at: list.span().start });
    }
    for (position, entry) in entries.iter().enumerate() {
        path.push((position.to_string(), entry.span()));
        match entry.get_ref() {
            DeValue::Table(inner) if !inner.is_empty() => flatten(inner, path, out),
            _ => out.push(Written { path: path.clone(), value: plain(entry), value_at: entry.span().start }),
        }
        path.pop();
    }
}

/// Without spans. The text has parsed, so a number out of range is all that can fail; as a string it is refused.
fn plain(value: &Spanned<DeValue<'_>>) -> Value {
    let deserializer = ValueDeserializer::from(value.clone());
    Value::deserialize(deserializer).unwrap_or_else(|error| Value::String(error.message().to_owned()))
}

/// Why a configuration of this one value alone is refused.
struct Misfit {
    /// The path component that does not exist; `None`: all exist, the value is wrong.
    depth: Option<usize>,
    message: String,
}

fn misfit(path: &[String], value: &Value) -> Option<Misfit> {
    let names: Vec<&str> = path.iter().map(String::as_str).collect();
    let is_table = match names[..] {
        [section] => !LISTS.contains(&section),
        [section, _] => NESTED.contains(&section),
        ["alerts", "rules", _]
        | ["scaler", "groups" | "rules" | "pools", _]
        | ["scaler", "groups", _, "regions", _]
        | ["scaler", "rules", _, "up" | "down"]
        | ["scaler", "prices", _, _, _] => true,
        _ => false,
    };
    if is_table && value.is_array() {
        // Serde would take a list for a section's values in the order of its fields.
        let message = "invalid type: list, expected a table".to_owned();
        return misfit(path, &Value::Table(Table::new())).or(Some(Misfit { depth: None, message }));
    }
    let error = alone(path, value).err()?;
    let message = error.message().to_owned();
    if message.contains("unit variant, expected string only") && !value.is_str() {
        // Names no word: told as if it had been one that is not known.
        return misfit(path, &Value::String(value.to_string()));
    }
    let unknown = message.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next());
    // The name may be one of a known key above it, as in `log.log`.
    let is_unknown = |at: &usize| {
        let said = alone(&path[..=*at], &Value::Table(Table::new())).err();
        said.is_some_and(|error| error.message().starts_with(&format!("unknown field `{}`", path[*at])))
    };
    let depth = unknown.and_then(|name| (0..path.len()).filter(|at| path[*at] == name).find(is_unknown));
    let plain = [("unknown field", "unknown key"), ("expected usize", "expected a whole number from 0 up")];
    let message = plain.iter().fold(message, |text, (theirs, ours)| text.replace(theirs, ours));
    Some(Misfit { depth, message })
}

/// A configuration of one value, as far as it goes.
fn alone(path: &[String], value: &Value) -> Result<ConfigFile, toml::de::Error> {
    let within = |inner, key: &String| Value::Table(Table::from_iter([(key.clone(), inner)]));
    ConfigFile::deserialize(path.iter().rev().fold(value.clone(), within))
}

fn key_until(path: &[String], depth: Option<usize>) -> String {
    key_of(&path[..depth.map_or(path.len(), |depth| depth + 1)])
}

/// Dotted, as TOML would write it.
pub(crate) fn key_of<T: AsRef<str>>(path: &[T]) -> String {
    let parts: Vec<String> = path.iter().map(|part| quoted(part.as_ref())).collect();
    parts.join(".")
}

/// As a TOML key.
pub(super) fn quoted(key: &str) -> String {
    let bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if bare { key.to_owned() } else { Value::String(key.to_owned()).to_string() }
}

/// The reverse of [`key_of`].
pub(super) fn path_of(key: &str) -> Vec<String> {
    if !key.contains(['"', '\'']) {
        return key.split('.').map(str::to_owned).collect();
    }
    let mut path = Vec::new();
    let mut value = toml::from_str::<Table>(&format!("{key} = 0")).map(Value::Table).ok();
    while let Some(Value::Table(table)) = value {
        let (part, inner) = table.into_iter().next().unzip();
        path.extend(part);
        value = inner;
    }
    path
}

/// Where a key was written; one that is not there, where its section was.
pub(super) fn origin_of(leaves: &Leaves, key: &str) -> Origin {
    let path = path_of(key);
    let below = || leaves.range(path.clone()..).next().filter(|(at, _)| at.starts_with(&path));
    let beside = || {
        let section = &path[..path.len().saturating_sub(1)];
        leaves.range(section.to_vec()..).next().filter(|(at, _)| at.starts_with(section))
    };
    let leaf = leaves.get(&path).or_else(|| Some(below().or_else(beside)?.1));
    leaf.map_or(Origin::BuiltIn { line: 1, column: 1 }, |leaf| leaf.origin.clone())
}

fn push_once(mistakes: &mut Vec<Mistake>, mistake: Mistake) {
    if mistakes.len() < MISTAKES_MAX && !mistakes.contains(&mistake) {
        mistakes.push(mistake);
    }
}

/// All values as one written form; each was accepted alone, so together they are.
pub(super) fn assemble(leaves: &Leaves) -> Result<ConfigFile, toml::de::Error> {
    let mut root = Table::new();
    for (path, leaf) in leaves {
        let Some((last, sections)) = path.split_last() else {
            continue;
        };
        let mut table = &mut root;
        for section in sections {
            let inner = table.entry(section.clone()).or_insert_with(|| Value::Table(Table::new()));
            if !inner.is_table() {
                *inner = Value::Table(Table::new());
            }
            let Value::Table(inner) = inner else { unreachable!("just made one") };
            table = inner;
        }
        // `columns = {}` of a weaker layer comes first and must not wipe the keys of a stronger one.
        table.entry(last.clone()).or_insert_with(|| leaf.value.clone());
    }
    ConfigFile::deserialize(Value::Table(root))
}
