//! `[log]`, as used.

use super::checker::Checker;
use super::file::{LogFile, LogFormat};

/// What is logged, on stderr.
#[derive(Clone, Debug, PartialEq)]
pub struct LogConfig {
    /// One line of text or one JSON object per event.
    pub format: LogFormat,
    /// A `tracing` filter, e.g. `info,peregrine_actors=debug`.
    pub filter: String,
}

impl Checker<'_> {
    pub(super) fn log(&mut self, written: LogFile) -> Option<LogConfig> {
        let format = self.present("log.format", written.format);
        let filter = self.filter(written.filter);
        Some(LogConfig { format: format?, filter: filter? })
    }

    fn filter(&mut self, written: Option<String>) -> Option<String> {
        let text = self.present("log.filter", written)?;
        match text.parse::<tracing_subscriber::filter::Targets>() {
            Ok(targets) => {
                let is_path = |target: &str| {
                    target.chars().all(|char| char.is_alphanumeric() || matches!(char, '_' | ':' | '-'))
                };
                let odd = targets
                    .iter()
                    .map(|(target, _)| target)
                    .find(|target| !is_path(target))
                    .map(str::to_owned);
                if let Some(odd) = odd {
                    let message =
                        format!("`{odd}` is neither a level nor a module, such as `peregrine_actors`");
                    self.mistake("log.filter", message);
                    return None;
                }
                Some(text)
            }
            Err(error) => {
                self.mistake("log.filter", format!("`{text}`: {error}"));
                None
            }
        }
    }
}
