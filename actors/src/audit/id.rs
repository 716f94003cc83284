//! What a prediction can be found by: its own number, the caller's name of the request, or its place in a stream.

use std::fmt;
use std::str::FromStr;

/// Numbers of the predictions of one request: one for each row, in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PredictionIds {
    /// When this run of the node began, in milliseconds since 1970.
    pub run: u64,
    /// Of the first row; those of the others follow.
    pub first: u64,
}

impl PredictionIds {
    /// Of one row.
    #[must_use]
    pub fn row(self, row: usize) -> PredictionId {
        PredictionId { run: self.run, number: self.first.saturating_add(row as u64) }
    }
}

/// Number of one prediction, unique across restarts of its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PredictionId {
    /// When its run of the node began, in milliseconds since 1970.
    pub run: u64,
    /// Counts from the start of that run.
    pub number: u64,
}

impl fmt::Display for PredictionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}", self.run, self.number)
    }
}

/// Text that is no number of a prediction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a prediction's id is two hexadecimal numbers with a hyphen between them")]
pub struct NoPredictionId;

impl FromStr for PredictionId {
    type Err = NoPredictionId;

    fn from_str(text: &str) -> Result<Self, NoPredictionId> {
        let (run, number) = text.split_once('-').ok_or(NoPredictionId)?;
        let parse = |digits: &str| u64::from_str_radix(digits, 16).map_err(|_| NoPredictionId);
        let id = Self { run: parse(run)?, number: parse(number)? };
        // No sign, no leading zero: one text for one number.
        if id.to_string() == text { Ok(id) } else { Err(NoPredictionId) }
    }
}

/// Under which a prediction stands in an index. Two may have the same: the record decides.
#[must_use]
pub(super) fn key_of_number(id: PredictionId) -> u64 {
    mixed(id.run ^ mixed(id.number))
}

/// See [`key_of_number`]; FNV-1a over the pieces.
#[must_use]
pub(super) fn key_of_text(pieces: &[&str]) -> u64 {
    let bytes = pieces.iter().flat_map(|piece| piece.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |key, byte| (key ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// The keys under which something of this name may stand.
#[must_use]
pub fn keys_of_name(name: &str) -> Vec<u64> {
    let number = name.parse().ok().map(key_of_number);
    let (of_any_epoch, epoch) = split_epoch(name);
    let of_stream = epoch.map(|_| key_of_text(&[of_any_epoch]));
    number.into_iter().chain([key_of_text(&[name])]).chain(of_stream).collect()
}

/// `model/series#seq@epoch` without its epoch, and that; of a name without one, all of it.
pub(super) fn split_epoch(name: &str) -> (&str, Option<u64>) {
    let digits = |text: &str| {
        let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|_: &u64| is_plain)
    };
    let parts = name.rsplit_once('@').and_then(|(of_stream, epoch)| {
        digits(of_stream.rsplit_once('#')?.1)?;
        Some((of_stream, digits(epoch)?))
    });
    parts.map_or((name, None), |(of_stream, epoch)| (of_stream, Some(epoch)))
}

/// Whether no two predictions are called so: by number, or by place in a stream with its epoch.
#[must_use]
pub fn is_unique(name: &str) -> bool {
    name.parse::<PredictionId>().is_ok() || split_epoch(name).1.is_some()
}

/// SplitMix64's finalizer.
const fn mixed(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}
