//! Text that is never printed: not by `check`, not by `/v1/config`, not in a log line.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{Deserializer, Error};

/// What is printed in place of a secret.
pub(super) const REDACTED: &str = "(redacted)";

/// Keys whose values are secrets; `*` is any one name.
const KEYS: [&str; 6] = [
    "cluster.secret",
    "models.key",
    "alerts.webhook",
    "tracing.headers",
    "scaler.pools.*.token",
    "scaler.pools.*.environment.*",
];

/// Is the value at this path a secret?
pub(super) fn is_secret(path: &[String]) -> bool {
    KEYS.iter().any(|key| {
        let parts = key.split('.');
        parts.clone().count() == path.len() && parts.zip(path).all(|(part, name)| part == "*" || part == name)
    })
}

/// Text that only [`Secret::expose`] shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Serde's own words would repeat the value.
        String::deserialize(deserializer).map(Self).map_err(|_| D::Error::custom("expected text in quotes"))
    }
}

impl JsonSchema for Secret {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "writeOnly": true })
    }
}
