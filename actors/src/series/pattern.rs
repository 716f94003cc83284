//! Which series somebody means: a name, or a name with `*` for any run of characters.

use super::tick::NAME_BYTES_MAX;

/// A name of a series in which `*` stands for any run of characters, the empty one and `/` included.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern(Box<str>);

/// A pattern that no series can match; the caller acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a pattern has 1 to {NAME_BYTES_MAX} bytes and no control characters")]
pub struct PatternError;

impl Pattern {
    /// # Errors
    /// Unless it is a pattern.
    pub fn new(pattern: &str) -> Result<Self, PatternError> {
        let fits = (1..=NAME_BYTES_MAX).contains(&pattern.len());
        if fits && !pattern.chars().any(char::is_control) {
            Ok(Self(pattern.into()))
        } else {
            Err(PatternError)
        }
    }

    /// Every series.
    #[must_use]
    pub fn all() -> Self {
        Self("*".into())
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is the name of one series.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        !self.0.contains('*')
    }

    /// Whether it means that series. Takes time in proportion to both lengths.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let Some((head, rest)) = self.0.split_once('*') else { return *self.0 == *name };
        let Some(mut name) = name.strip_prefix(head) else { return false };
        let (middle, tail) =
            rest.rsplit_once('*').map_or((None, rest), |(middle, tail)| (Some(middle), tail));
        for part in middle.into_iter().flat_map(|middle| middle.split('*')) {
            // The first place is the best one: it leaves the most for what follows.
            let Some(at) = name.find(part) else { return false };
            name = &name[at + part.len()..];
        }
        name.ends_with(tail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, matched: &[&str], others: &[&str]) {
        let pattern = Pattern::new(pattern).expect("a pattern");
        for name in matched {
            assert!(pattern.matches(name), "{} should match {name}", pattern.as_str());
        }
        for name in others {
            assert!(!pattern.matches(name), "{} should not match {name}", pattern.as_str());
        }
    }

    #[test]
    fn a_name_matches_itself() {
        check("AAPL", &["AAPL"], &["AAPL2", "AAP", "aapl", ""]);
    }

    #[test]
    fn a_star_matches_any_run() {
        check("*", &["", "AAPL", "crypto/BTC"], &[]);
        check("crypto/*", &["crypto/", "crypto/BTC", "crypto/a/b"], &["crypto", "xcrypto/BTC"]);
        check("*/USD", &["/USD", "BTC/USD", "USD/USD"], &["USD", "BTC/USDT"]);
        check("a*b*c", &["abc", "aXbYc", "abbc", "abcbc"], &["ab", "acb", "bc", "abcd"]);
        check("a**b", &["ab", "axb"], &["a", "b"]);
        check("ab*ba", &["abba", "abxba"], &["aba"]);
    }

    #[test]
    fn what_names_nothing_is_refused() {
        for bad in ["", "a\nb", &"x".repeat(NAME_BYTES_MAX + 1)] {
            assert_eq!(Pattern::new(bad), Err(PatternError));
        }
    }
}
