//! The command line. `--key value` pairs only.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::body::Encoding;

pub(crate) const USAGE: &str = "usage: load --address HOST:PORT --path PATH --cases DIR --window L --horizon H \
[--body json:ROWS|binary:ROWS] [--connections N] [--rate PER_SECOND] [--warmup S] [--seconds S] [--pid SERVER] [--label TEXT] [--started-at EPOCH_S]";

/// What to send where, for how long.
pub(crate) struct Args {
    pub(crate) address: SocketAddr,
    pub(crate) path: String,
    pub(crate) cases: PathBuf,
    pub(crate) window: usize,
    pub(crate) horizon: usize,
    pub(crate) encoding: Encoding,
    /// Windows in one request.
    pub(crate) rows: usize,
    pub(crate) connections: usize,
    /// Requests per second of an open loop; a closed loop without.
    pub(crate) rate: Option<f64>,
    pub(crate) warmup: Duration,
    pub(crate) measure: Duration,
    /// The server's process, whose tree is accounted.
    pub(crate) pid: Option<u32>,
    pub(crate) label: String,
    /// When the server was started, in seconds since 1970: waits for its first right answer instead of measuring.
    pub(crate) started_at: Option<f64>,
}

pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Args, String> {
    let (mut address, mut path, mut cases, mut window, mut horizon) = (None, None, None, None, None);
    let (mut encoding, mut rows, mut connections, mut rate, mut pid) = (Encoding::Json, 1, 1, None, None);
    let (mut warmup, mut measure, mut label, mut started_at) = (1.0, 5.0, String::new(), None);
    while let Some(key) = words.next() {
        let value = words.next().ok_or_else(|| format!("{key} needs a value\n{USAGE}"))?;
        match key.as_str() {
            "--address" => address = Some(number(&key, &value)?),
            "--path" => path = Some(value),
            "--cases" => cases = Some(PathBuf::from(value)),
            "--window" => window = Some(number(&key, &value)?),
            "--horizon" => horizon = Some(number(&key, &value)?),
            "--connections" => connections = number(&key, &value)?,
            "--rate" => rate = Some(number(&key, &value)?),
            "--warmup" => warmup = number(&key, &value)?,
            "--seconds" => measure = number(&key, &value)?,
            "--pid" => pid = Some(number(&key, &value)?),
            "--label" => label = value,
            "--started-at" => started_at = Some(number(&key, &value)?),
            "--body" => {
                let (name, count) = value.split_once(':').ok_or(USAGE)?;
                encoding = match name {
                    "json" => Encoding::Json,
                    "binary" => Encoding::Binary,
                    _ => return Err(USAGE.into()),
                };
                rows = number(&key, count)?;
            }
            _ => return Err(format!("unknown {key}\n{USAGE}")),
        }
    }
    if connections == 0 || rows == 0 || rate.is_some_and(|rate: f64| rate.is_nan() || rate <= 0.0) {
        return Err("connections, rows and rate are positive".into());
    }
    Ok(Args {
        address: address.ok_or(USAGE)?,
        path: path.ok_or(USAGE)?,
        cases: cases.ok_or(USAGE)?,
        window: window.ok_or(USAGE)?,
        horizon: horizon.ok_or(USAGE)?,
        encoding,
        rows,
        connections,
        rate,
        warmup: Duration::try_from_secs_f64(warmup).map_err(|error| error.to_string())?,
        measure: Duration::try_from_secs_f64(measure).map_err(|error| error.to_string())?,
        pid,
        label,
        started_at,
    })
}

fn number<T: std::str::FromStr>(key: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{key}: cannot read `{text}`"))
}
