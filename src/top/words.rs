//! Numbers and names as a person reads them. What is not known is a dash, never a zero.
//!
//! Names come from elsewhere, over the network: nothing that steers a terminal gets through.

use std::time::Duration;

use crate::client::visible;

/// What is not known.
pub(super) const UNKNOWN: &str = "–";
/// Of a name or a sentence; more is no name.
const CHARS_MAX: usize = 160;

/// Text that can be shown; see [`visible`].
pub(super) fn clean(text: &str) -> String {
    visible(text, CHARS_MAX)
}

/// Something that is counted or measured.
pub(super) fn number(value: f64) -> String {
    let size = value.abs();
    match size {
        _ if !value.is_finite() => UNKNOWN.to_owned(),
        0.0 => "0".to_owned(),
        _ if size < 0.01 => format!("{value:.4}"),
        _ if size < 1.0 => format!("{value:.3}"),
        _ if size < 10.0 => format!("{value:.2}"),
        _ if size < 100.0 => format!("{value:.1}"),
        _ if size < 10_000.0 => format!("{value:.0}"),
        _ if size < 1e6 => format!("{:.1}k", value / 1e3),
        _ if size < 1e9 => format!("{:.1}M", value / 1e6),
        _ if size < 1e12 => format!("{:.1}G", value / 1e9),
        _ => format!("{value:.1e}"),
    }
}

/// The same of something that may not be known.
pub(super) fn maybe(value: Option<f64>) -> String {
    value.map_or_else(|| UNKNOWN.to_owned(), number)
}

/// A share of one, in percent.
pub(super) fn percent(share: Option<f64>) -> String {
    share.filter(|share| share.is_finite()).map_or_else(
        || UNKNOWN.to_owned(),
        |share| {
            let percent = (share * 100.0).clamp(-1e6, 1e6);
            format!("{percent:.0}%")
        },
    )
}

/// Bytes, in the units of memory.
pub(super) fn bytes(value: Option<u64>) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let Some(value) = value else { return UNKNOWN.to_owned() };
    let (mut size, mut unit) = (value as f64, 0);
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && size < 100.0);
    format!("{size:.digits$} {}", UNITS[unit])
}

/// Used of all.
pub(super) fn part(used: Option<u64>, all: Option<u64>) -> String {
    match (used, all) {
        (None, None) => UNKNOWN.to_owned(),
        _ => format!("{} of {}", bytes(used), bytes(all)),
    }
}

/// A time that goes on.
pub(super) fn lasting(seconds: f64) -> String {
    let whole = Duration::try_from_secs_f64(seconds).unwrap_or_default().as_secs();
    let (days, hours, minutes) = (whole / 86_400, whole / 3600 % 24, whole / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{whole} s"),
        (0, 0, _) => format!("{minutes} min {} s", whole % 60),
        (0, ..) => format!("{hours} h {minutes:02} min"),
        _ => format!("{days} d {hours:02} h"),
    }
}

/// A line of blocks, the newest value last, as high as the highest of them; what is not known is a gap.
pub(super) fn spark(values: &[Option<f64>], width: usize) -> String {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let shown = &values[values.len().saturating_sub(width)..];
    let known = |value: &Option<f64>| value.filter(|value| value.is_finite() && *value >= 0.0);
    let highest = shown.iter().filter_map(known).fold(0.0, f64::max);
    let block = |value: &Option<f64>| match known(value) {
        None => ' ',
        Some(value) if highest > 0.0 => {
            BLOCKS[((value / highest * 7.0).round() as usize).min(BLOCKS.len() - 1)]
        }
        Some(_) => BLOCKS[0],
    };
    let gap = std::iter::repeat_n(' ', width.saturating_sub(shown.len()));
    gap.chain(shown.iter().map(block)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_exact_as_they_can_be_read() {
        for (value, want) in [
            (0.0, "0"),
            (0.001_23, "0.0012"),
            (0.25, "0.250"),
            (7.126_4, "7.13"),
            (42.42, "42.4"),
            (1234.5, "1234"),
            (56_789.0, "56.8k"),
            (1.5e6, "1.5M"),
            (2.5e300, "2.5e300"),
            (-3.0, "-3.00"),
            (f64::NAN, "–"),
        ] {
            assert_eq!(number(value), want);
        }
        assert_eq!((maybe(None).as_str(), percent(None).as_str(), bytes(None).as_str()), ("–", "–", "–"));
        assert_eq!(percent(Some(0.456)), "46%");
        assert_eq!((bytes(Some(512)), bytes(Some(3 << 30))), ("512 B".into(), "3.0 GiB".into()));
        assert_eq!(part(Some(1 << 20), None), "1.0 MiB of –");
    }

    #[test]
    fn times_lose_what_does_not_matter() {
        for (seconds, want) in [
            (5.9, "5 s"),
            (65.0, "1 min 5 s"),
            (7260.0, "2 h 01 min"),
            (200_000.0, "2 d 07 h"),
            (-1.0, "0 s"),
            (1e300, "0 s"),
        ] {
            assert_eq!(lasting(seconds), want);
        }
    }

    #[test]
    fn what_steers_a_terminal_is_not_shown() {
        let hostile = "a\x1b[2Jb\u{9b}31mc\r\n\u{202e}d\u{200b}\u{7f}e";
        let shown = clean(hostile);
        assert_eq!(shown, "a\u{fffd}[2Jb\u{fffd}31mc\u{fffd}\u{fffd}\u{fffd}d\u{fffd}\u{fffd}e");
        assert_eq!(clean("nhits-vol-quantile · größer"), "nhits-vol-quantile · größer");
        assert_eq!(clean(&"x".repeat(1 << 20)).len(), CHARS_MAX);
    }

    #[test]
    fn a_spark_is_as_high_as_its_highest_value() {
        let values = [Some(0.0), None, Some(5.0), Some(10.0)];
        assert_eq!(spark(&values, 6), "  ▁ ▅█");
        assert_eq!(spark(&values, 2), "▅█");
        assert_eq!(spark(&[Some(0.0), Some(f64::INFINITY), Some(-1.0)], 3), "▁  ");
        assert_eq!(spark(&values, 0), "");
    }
}
