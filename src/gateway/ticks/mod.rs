//! Ticks as clients write them, and times as they read them.

pub(crate) mod parse;

use peregrine_actors::series::Timestamp;

/// A time as the exact decimal number of milliseconds since 1970.
pub(crate) struct Millis(pub(crate) Timestamp);

impl std::fmt::Display for Millis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let nanos = self.0.0;
        let (whole, rest) = (nanos.unsigned_abs() / 1_000_000, nanos.unsigned_abs() % 1_000_000);
        let sign = if nanos < 0 { "-" } else { "" };
        if rest == 0 {
            return write!(f, "{sign}{whole}");
        }
        let fraction = format!("{rest:06}");
        write!(f, "{sign}{whole}.{}", fraction.trim_end_matches('0'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_exact() {
        for (nanos, text) in [
            (0, "0"),
            (1, "0.000001"),
            (-1_500_000, "-1.5"),
            (1_790_000_000_123_456_789, "1790000000123.456789"),
        ] {
            assert_eq!(Millis(Timestamp(nanos)).to_string(), text);
        }
    }
}
