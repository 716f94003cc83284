//! Levels of load: `8`, `1:64` (doubling), `100:500:100`. Pure.

/// More levels than anyone waits for.
const LEVELS_MAX: usize = 256;

/// A text names no levels; whoever wrote it acts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RampError {
    /// Not `a`, `a:b` or `a:b:step` of numbers.
    #[error("`{0}` is not `a`, `a:b` or `a:b:step`")]
    Form(String),
    /// Zero, negative, infinite, or falling.
    #[error("`{0}`: levels are positive and rise")]
    Range(String),
    /// More than anyone waits for.
    #[error("`{0}` is more than {LEVELS_MAX} levels")]
    TooMany(String),
}

/// Reads a ramp of whole numbers or fractions. Without a step each level is twice the one before, and the last is `b`.
///
/// # Errors
/// [`RampError`] where the text names no rising list of at most 256 positive numbers.
pub fn ramp(text: &str) -> Result<Vec<f64>, RampError> {
    let form = || RampError::Form(text.to_owned());
    let numbers: Vec<f64> =
        text.split(':').map(|part| part.trim().parse().map_err(|_| form())).collect::<Result<_, _>>()?;
    let usable = |number: &f64| number.is_finite() && *number > 0.0;
    if !numbers.iter().all(usable) {
        return Err(RampError::Range(text.to_owned()));
    }
    let (from, to, step) = match numbers[..] {
        [one] => (one, one, None),
        [from, to] => (from, to, None),
        [from, to, step] => (from, to, Some(step)),
        _ => return Err(form()),
    };
    if to < from {
        return Err(RampError::Range(text.to_owned()));
    }
    let mut levels = Vec::new();
    let mut level = from;
    // A hair above `to` is `to`: 0.1 + 0.2 is not 0.3.
    while level < to * (1.0 - 1e-9) {
        if levels.len() == LEVELS_MAX {
            return Err(RampError::TooMany(text.to_owned()));
        }
        levels.push(level);
        level = match step {
            None => level * 2.0,
            // Multiplied, so that a hundred steps do not add up a hundred errors.
            Some(step) => from + step * levels.len() as f64,
        };
    }
    if step.is_none() || level <= to * (1.0 + 1e-9) {
        levels.push(to);
    }
    if levels.len() > LEVELS_MAX { Err(RampError::TooMany(text.to_owned())) } else { Ok(levels) }
}

/// The same, for what can be counted: connections.
///
/// # Errors
/// As [`ramp`], and for fractions.
pub fn counts(text: &str) -> Result<Vec<usize>, RampError> {
    let whole = |level: f64| {
        let count = level as usize;
        if count as f64 == level { Ok(count) } else { Err(RampError::Form(text.to_owned())) }
    };
    let mut levels: Vec<usize> = ramp(text)?.into_iter().map(whole).collect::<Result<_, _>>()?;
    levels.dedup();
    Ok(levels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_number_is_one_level() {
        check("8", &[8.0]);
        check("0.5", &[0.5]);
    }

    #[test]
    fn without_a_step_levels_double_and_end_where_said() {
        check("1:8", &[1.0, 2.0, 4.0, 8.0]);
        check("3:10", &[3.0, 6.0, 10.0]);
    }

    #[test]
    fn with_a_step_levels_stay_within_the_end() {
        check("100:300:100", &[100.0, 200.0, 300.0]);
        check("1:6:2", &[1.0, 3.0, 5.0]);
        assert_eq!(ramp("0.1:1:0.1").unwrap().len(), 10);
    }

    #[test]
    fn what_is_no_ramp_is_refused() {
        for text in ["", "a", "1:", "1:2:3:4", "nan"] {
            assert!(ramp(text).is_err(), "{text}");
        }
        for text in ["0", "-1", "8:1", "1:2:0", "inf", "1:inf"] {
            assert_eq!(ramp(text), Err(RampError::Range(text.to_owned())));
        }
        assert_eq!(ramp("1:1000:1"), Err(RampError::TooMany("1:1000:1".to_owned())));
        assert_eq!(counts("1:2:0.5"), Err(RampError::Form("1:2:0.5".to_owned())));
    }

    #[track_caller]
    fn check(text: &str, want: &[f64]) {
        assert_eq!(ramp(text).unwrap(), want);
    }
}
