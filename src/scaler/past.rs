//! The demand of the past on disk: a scaler that starts anew forecasts from what the one before it has seen.
//!
//! One small file for each group, written whole beside the old one and then put in its place. What cannot be read is as
//! if it had never been: forecasts then begin when enough was seen again.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use peregrine_scaler::demand::Demand;
use tracing::warn;

/// Longest file: a year of minutes.
const BYTES_MAX: u64 = 32 << 20;

/// Where the demand of one group is kept.
#[derive(Clone, Debug)]
pub(crate) struct Past {
    file: PathBuf,
    /// The newest step that is there.
    newest: Option<Timestamp>,
}

impl Past {
    /// That of a group, in the scaler's folder.
    pub(crate) fn of(dir: &Path, group: &str) -> Self {
        Self { file: dir.join(format!("demand-{group}.txt")), newest: None }
    }

    /// Tells `demand` what there was.
    pub(crate) fn recall(&mut self, demand: &mut Demand) {
        match read(&self.file) {
            Ok(text) => self.newest = tell(&text, demand).or(self.newest),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => warn!(file = %self.file.display(), %error, "the demand of the past cannot be read"),
        }
    }

    /// Keeps what there is, if a step has ended since.
    pub(crate) fn keep(&mut self, demand: &Demand) {
        let newest = demand.kept().last().map(|(at, _)| at);
        if newest.is_none() || newest == self.newest {
            return;
        }
        let mut text = String::new();
        for (at, rate) in demand.kept() {
            let _ = writeln!(text, "{} {rate}", at.as_second()); // text takes everything
        }
        match write(&self.file, &text) {
            Ok(()) => self.newest = newest,
            Err(error) => warn!(file = %self.file.display(), %error, "the demand of the past cannot be kept"),
        }
    }
}

/// Tells `demand` what a text says; the last step that it took.
pub(super) fn tell(text: &str, demand: &mut Demand) -> Option<Timestamp> {
    let steps = text.lines().filter_map(line);
    steps.filter(|&(at, rate)| demand.recall(at, rate).is_ok()).last().map(|(at, _)| at)
}

fn line(line: &str) -> Option<(Timestamp, f64)> {
    let (at, rate) = line.split_once(' ')?;
    Some((Timestamp::from_second(at.parse().ok()?).ok()?, rate.parse().ok()?))
}

fn read(file: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(file)?.take(BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

fn write(file: &Path, text: &str) -> io::Result<()> {
    let beside = file.with_extension("new");
    let mut new = File::create(&beside)?;
    new.write_all(text.as_bytes())?;
    new.sync_all()?;
    fs::rename(beside, file)
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;
    use peregrine_scaler::demand::Season;
    use peregrine_scaler::simulate::Forecast;

    use super::*;

    fn demand() -> Demand {
        Demand::new(Forecast::settings(), Season::Week(TimeZone::UTC), None).unwrap()
    }

    fn seen() -> Demand {
        let mut demand = demand();
        for minute in 0..600 {
            let at = Timestamp::from_second(1_800_000_000 + minute * 60).unwrap();
            demand.observe(at, 10.0 + (minute % 7) as f64).unwrap();
        }
        demand
    }

    #[test]
    fn what_was_seen_is_known_to_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let before = seen();
        let mut past = Past::of(dir.path(), "g");
        past.keep(&before);
        let mut after = demand();
        Past::of(dir.path(), "g").recall(&mut after);
        let kept: Vec<_> = before.kept().collect();
        let known: Vec<_> = after.kept().collect();
        assert!(kept.len() > 100);
        // The step that was the newest is open again for its next one.
        assert!(kept.len() - known.len() <= 1, "{} of {}", known.len(), kept.len());
        for ((at, rate), (known_at, known_rate)) in kept.iter().zip(&known) {
            assert_eq!(at, known_at);
            assert!((rate - known_rate).abs() < 1e-3 * rate, "{rate} {known_rate}");
        }
    }

    #[test]
    fn a_file_that_says_nothing_is_as_good_as_none() {
        let dir = tempfile::tempdir().unwrap();
        for bytes in
            [&b""[..], b"\xff\xfe", b"x y\n1 \n 5\n99999999999999999999 1\n1800000000 NaN\n1800000000 -4\n"]
        {
            fs::write(dir.path().join("demand-g.txt"), bytes).unwrap();
            let mut demand = demand();
            Past::of(dir.path(), "g").recall(&mut demand);
            assert_eq!(demand.kept().count(), 0);
        }
        let mut demand = demand();
        Past::of(&dir.path().join("nowhere"), "g").recall(&mut demand);
        Past::of(&dir.path().join("nowhere"), "g").keep(&seen());
    }
}
