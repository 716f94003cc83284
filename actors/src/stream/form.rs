//! In which form a subscriber reads, and the port by which an event becomes bytes of that form.

use bytes::Bytes;

use super::prediction::{Gap, Prediction};

/// Most interval levels of one form.
pub const LEVELS_MAX: usize = 8;

/// How messages are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Encoding {
    /// JSON, in text messages.
    Json,
    /// `MessagePack`, in binary messages.
    MessagePack,
}

/// Interval levels in hundredths of a percent, so that equal wishes are equal values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Levels {
    count: u8,
    hundredths: [u16; LEVELS_MAX],
}

/// Levels that nobody can have; the caller acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("levels are at most {LEVELS_MAX} percentages between 0 and 100, of two decimals at most")]
pub struct LevelsError;

impl Levels {
    /// Rising, each once.
    ///
    /// # Errors
    /// Unless all of them are percentages of two decimals within `(0, 100)`.
    pub fn new(percent: &[f64]) -> Result<Self, LevelsError> {
        if percent.len() > LEVELS_MAX {
            return Err(LevelsError);
        }
        let mut hundredths = [u16::MAX; LEVELS_MAX];
        for (slot, &level) in hundredths.iter_mut().zip(percent) {
            let scaled = level * 100.0;
            let fits = scaled > 0.5 && scaled < 9999.5 && (scaled - scaled.round()).abs() < 1e-6;
            if !fits {
                return Err(LevelsError);
            }
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "1 to 9999, just checked"
            )]
            let whole = scaled.round() as u16;
            *slot = whole;
        }
        hundredths.sort_unstable();
        let mut kept = [u16::MAX; LEVELS_MAX];
        let mut count = 0_u8;
        for level in hundredths.into_iter().filter(|&level| level != u16::MAX) {
            if count == 0 || kept[usize::from(count) - 1] != level {
                kept[usize::from(count)] = level;
                count += 1;
            }
        }
        Ok(Self { count, hundredths: kept })
    }

    /// In percent, rising.
    pub fn percent(&self) -> impl Iterator<Item = f64> + '_ {
        self.hundredths[..usize::from(self.count)].iter().map(|&level| f64::from(level) / 100.0)
    }
}

/// What subscribers must agree in to share frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Form {
    /// How messages are written.
    pub encoding: Encoding,
    /// Of the intervals; `None`: those that the model gives by itself.
    pub levels: Option<Levels>,
}

/// What is rendered.
#[derive(Clone, Copy, Debug)]
pub enum Item<'a> {
    /// As it came.
    Prediction(&'a Prediction),
    /// As the state of its series.
    Snapshot(&'a Prediction),
    /// What will not come.
    Gap(&'a Gap),
}

/// Writes events as the bytes that go to a subscriber's socket, framed.
pub trait Render: Send + Sync + 'static {
    /// The whole frame.
    fn render(&self, form: Form, item: Item<'_>) -> Bytes;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_sorted_and_stand_once() {
        check(&[95.0, 80.0, 80.0, 99.99], Ok(vec![80.0, 95.0, 99.99]));
        check(&[], Ok(vec![]));
    }

    #[test]
    fn what_is_no_percentage_is_refused() {
        for bad in [&[0.0][..], &[100.0], &[f64::NAN], &[-3.0], &[80.001], &[50.0; LEVELS_MAX + 1]] {
            check(bad, Err(LevelsError));
        }
    }

    #[track_caller]
    fn check(percent: &[f64], want: Result<Vec<f64>, LevelsError>) {
        assert_eq!(Levels::new(percent).map(|levels| levels.percent().collect()), want);
    }
}
