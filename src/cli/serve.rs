//! `peregrine serve`: the configuration, the log, then a node until it is told to stop.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;

use clap::Args;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::Handle;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use super::CliError;
use super::options::{ConfigArgs, ModelsArgs};
use crate::config::{BackendChoice, Config, LogConfig, LogFormat, Overrides};
use crate::node;
use crate::reload::{Room, Staged};

#[derive(Debug, Default, Args)]
#[command(mut_arg("models", |arg| arg.help("Adds a model repository: a folder of model folders")))]
pub(super) struct ServeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    models: ModelsArgs,
    /// Address and port; port 0 picks a free one
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Which device answers
    #[arg(long, value_enum)]
    backend: Option<BackendChoice>,
    /// Say on stdout who is in the cluster, whenever that changes: for who has started several
    #[arg(long, hide = true)]
    tells_members: bool,
}

pub(super) fn run(args: ServeArgs) -> Result<(), CliError> {
    let backend = args.backend.map(|choice| choice.name().to_owned());
    let overrides =
        Overrides { listen: args.listen, backend, models: args.models.dirs, ..Overrides::default() };
    let resolved = args.config.with(overrides)?;
    let log = start_log(&resolved.config.log);
    let passed_over: Vec<&str> = resolved.sources().of_kubernetes().collect();
    if !passed_over.is_empty() {
        tracing::info!(variables = passed_over.join(" "), "passed over what Kubernetes says of its service");
    }
    Ok(node::serve(resolved, vec![Box::new(log)], args.tells_members)?)
}

/// Which events are logged; can be changed while the node runs.
struct LogRoom(Handle<Targets, Registry>);

impl Room for LogRoom {
    fn name(&self) -> &'static str {
        "log"
    }

    fn prepare(&self, next: &Arc<Config>) -> Result<Staged, String> {
        let filter: Targets = next.log.filter.parse().map_err(|error| format!("log.filter: {error}"))?;
        let handle = self.0.clone();
        Ok(Box::new(move || {
            if let Err(error) = handle.reload(filter) {
                tracing::warn!(%error, "another log is in use: its filter stays");
            }
            false
        }))
    }
}

/// On stderr; stdout is for answers. A subscriber that is there already stays.
fn start_log(config: &LogConfig) -> LogRoom {
    // The filter has been checked; `info` is what it falls back to.
    let filter = config.filter.parse().unwrap_or_else(|_| Targets::new().with_default(LevelFilter::INFO));
    let (filter, handle) = reload::Layer::new(filter);
    // Colours are for people: a file has none, nor has who asks for none (no-color.org).
    let is_seen =
        io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|asked| asked.is_empty());
    let lines = fmt::layer().with_writer(Lines { is_seen }).with_ansi(is_seen);
    let registry = tracing_subscriber::registry();
    let started = match config.format {
        LogFormat::Text => registry.with(lines.with_filter(filter)).try_init(),
        LogFormat::Json => registry.with(lines.json().with_filter(filter)).try_init(),
    };
    if let Err(error) = started {
        tracing::warn!(%error, "log not replaced");
    }
    LogRoom(handle)
}

/// Where events are written. Each is one line, whatever the names in it hold: what looks like a line was one event.
struct Lines {
    /// Escapes are colours.
    is_seen: bool,
}

impl MakeWriter<'_> for Lines {
    type Writer = Line<io::Stderr>;

    fn make_writer(&self) -> Self::Writer {
        Line { out: io::stderr(), is_seen: self.is_seen }
    }
}

/// Takes one event at once, as it is printed.
struct Line<W> {
    out: W,
    is_seen: bool,
}

impl<W: Write> Write for Line<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        self.out.write_all(one_line(&text, self.is_seen).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// The event with every control character but its last, the end of the line, written out.
fn one_line(event: &str, is_seen: bool) -> Cow<'_, str> {
    let (text, end) = event.strip_suffix('\n').map_or((event, ""), |text| (text, "\n"));
    let is_odd = |one: char| match one {
        '\u{1b}' => !is_seen,
        '\u{2028}' | '\u{2029}' => true,
        one => one.is_control() && one != '\t',
    };
    if !text.contains(is_odd) {
        return Cow::Borrowed(event);
    }
    let mut line = String::with_capacity(event.len() + 16);
    for one in text.chars() {
        if is_odd(one) {
            line.extend(one.escape_default());
        } else {
            line.push(one);
        }
    }
    line.push_str(end);
    Cow::Owned(line)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_event_is_one_line_whatever_it_names() {
        let kept = Kept::default();
        let out = kept.clone();
        let writer = move || Line { out: out.clone(), is_seen: false };
        let log = tracing_subscriber::registry().with(fmt::layer().with_writer(writer).with_ansi(false));
        tracing::subscriber::with_default(log, || {
            let name = "vol\n2026-01-01T00:00:00Z ERROR peregrine: forged\r\u{85}\u{2028}\u{1b}[2J";
            tracing::info!(model = %name, "model {name} is ready");
            tracing::info!(model = "größe", "plain");
        });
        let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].contains(r"vol\n2026-01-01T00:00:00Z ERROR peregrine: forged\r"), "{text}");
        assert!(!text.replace('\n', "").chars().any(|one| one.is_control() || one == '\u{2028}'), "{text}");
        assert!(lines[1].ends_with(r#"plain model="größe""#), "{text}");
    }

    #[test]
    fn colours_stay_where_they_are_seen() {
        assert_eq!(one_line("\u{1b}[32mINFO\u{1b}[0m a\n", true), "\u{1b}[32mINFO\u{1b}[0m a\n");
        assert_eq!(one_line("\u{1b}[32mINFO\nb\n", false), "\\u{1b}[32mINFO\\nb\n");
        assert_eq!(one_line("", false), "");
    }
}
