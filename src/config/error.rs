//! What is wrong with a configuration: every mistake, each with its place. The operator acts; exit code 2.

use std::fmt;

use super::Origin;

/// One mistake at one place.
#[derive(Clone, Debug, PartialEq)]
pub struct Mistake {
    /// Where it was written.
    pub origin: Origin,
    /// The key, dotted; empty when the text is not even TOML.
    pub key: String,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key.as_str() {
            "" => write!(f, "{}: {}", self.origin, self.message),
            key => write!(f, "{}: {key}: {}", self.origin, self.message),
        }
    }
}

/// At least one mistake, in the order of the layers and of the text.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigError {
    /// All of them.
    pub mistakes: Vec<Mistake>,
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, mistake) in self.mistakes.iter().enumerate() {
            let separator = if at == 0 { "" } else { "\n" };
            write!(f, "{separator}{mistake}")?;
        }
        Ok(())
    }
}
