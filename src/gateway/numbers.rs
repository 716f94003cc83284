//! Decimal text to `f32` and back, both exact: nearest on the way in, shortest round trip on the way out.
//!
//! Knows no document: it reads one number at the start of a slice.

use super::fractions::{Portable, ShortFraction};

/// Powers of ten in f64; exact up to 1e22, half a unit in the last place off beyond.
const POWERS: [f64; 41] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
    1e19, 1e20, 1e21, 1e22, 1e23, 1e24, 1e25, 1e26, 1e27, 1e28, 1e29, 1e30, 1e31, 1e32, 1e33, 1e34, 1e35,
    1e36, 1e37, 1e38, 1e39, 1e40,
];
/// For up to eight digits taken at once.
const TENS: [u64; 9] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000];
/// A u64 holds any number of this many digits.
const DIGITS_MAX: usize = 19;
/// Bits of an f64 mantissa that an f32 drops, and the pattern that lies midway between two neighbours.
const DROPPED_MASK: u64 = (1 << 29) - 1;
const MIDWAY: u64 = 1 << 28;
/// The f64 estimate is at most 1.5 units off (integer, power and quotient or product each half a unit).
const DOUBT: u64 = 4;

/// Reads the JSON number at the start of `text`: its nearest `f32` (infinite when too large) and its length in
/// bytes. `None` when no JSON number stands there.
pub(crate) fn parse_f32(text: &[u8]) -> Option<(f32, usize)> {
    // SAFETY: the portable way asks nothing of the machine.
    unsafe { parse_f32_by::<Portable>(text) }
}

/// As [`parse_f32`], the usual form read by `Way`.
///
/// # Safety
/// The machine must have what `Way` needs.
#[inline(always)] // the pair comes back in registers only then; through memory it costs as much as the parsing
pub(crate) unsafe fn parse_f32_by<Way: ShortFraction>(text: &[u8]) -> Option<(f32, usize)> {
    // SAFETY: the caller's promise.
    match unsafe { Way::read(text) } {
        Some(found) => Some(found),
        None => any_number(text),
    }
}

/// Every form that JSON allows.
#[inline(never)]
fn any_number(text: &[u8]) -> Option<(f32, usize)> {
    let negative = text.first() == Some(&b'-');
    let integer_at = usize::from(negative);
    let (mut mantissa, mut at) = short_digits(text, integer_at, 0);
    let integer_len = at - integer_at;
    if integer_len == 0 || (integer_len > 1 && text[integer_at] == b'0') {
        return None;
    }
    let mut digits_len = integer_len;
    let mut exponent = 0_i64;
    if text.get(at) == Some(&b'.') {
        let fraction_at = at + 1;
        (mantissa, at) = digits(text, fraction_at, mantissa);
        let fraction_len = at - fraction_at;
        if fraction_len == 0 {
            return None;
        }
        digits_len += fraction_len;
        exponent = -(fraction_len as i64);
    }
    if let Some(b'e' | b'E') = text.get(at) {
        let (written, next) = written_exponent(text, at + 1)?;
        exponent += written;
        at = next;
    }
    let exact = digits_len <= DIGITS_MAX || significant(&text[integer_at..at]) <= DIGITS_MAX;
    match exact.then(|| estimate(mantissa, exponent)).flatten() {
        Some(value) => Some((if negative { -value } else { value }, at)),
        None => Some((std::str::from_utf8(&text[..at]).ok()?.parse().ok()?, at)),
    }
}

/// Appends the shortest text that reads back to `value`, which must be finite.
pub(crate) fn print_f32(out: &mut Vec<u8>, value: f32) {
    debug_assert!(value.is_finite(), "json has no {value}");
    out.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
}

/// Appends `[a,b,…]`.
pub(crate) fn print_list(out: &mut Vec<u8>, values: &[f32]) {
    out.reserve(values.len() * 12 + 2);
    out.push(b'[');
    for (index, &value) in values.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        print_f32(out, value);
    }
    out.push(b']');
}

/// Takes decimal digits from `at` on into `mantissa`, which wraps when there are too many for it.
///
/// The usual fraction has up to sixteen digits: they are taken without a branch on their count, which would be
/// mispredicted for every other number.
#[inline]
fn digits(text: &[u8], mut at: usize, mut mantissa: u64) -> (u64, usize) {
    if let Some((first, second)) = text.get(at..at + 16).and_then(|sixteen| sixteen.split_first_chunk::<8>())
        && let Some((second, _)) = second.split_first_chunk::<8>()
    {
        let (first, first_len) = leading_digits(u64::from_le_bytes(*first));
        let (second, second_len) = leading_digits(u64::from_le_bytes(*second));
        let (second, second_len) = if first_len == 8 { (second, second_len) } else { (0, 0) };
        mantissa = mantissa.wrapping_mul(TENS[first_len]).wrapping_add(first);
        mantissa = mantissa.wrapping_mul(TENS[second_len]).wrapping_add(second);
        at += first_len + second_len;
        if first_len + second_len < 16 {
            return (mantissa, at);
        }
    }
    short_digits(text, at, mantissa)
}

#[inline]
fn short_digits(text: &[u8], mut at: usize, mut mantissa: u64) -> (u64, usize) {
    while let Some(digit) = text.get(at).map(|byte| byte.wrapping_sub(b'0')).filter(|&digit| digit < 10) {
        mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(digit));
        at += 1;
    }
    (mantissa, at)
}

/// The digits at the start of eight bytes (the first is the lowest): their value and count.
#[inline]
fn leading_digits(eight: u64) -> (u64, usize) {
    let digits = eight ^ 0x3030_3030_3030_3030;
    let others =
        (((digits & 0x7F7F_7F7F_7F7F_7F7F) + 0x7676_7676_7676_7676) | digits) & 0x8080_8080_8080_8080;
    let len = (others.trailing_zeros() / 8) as usize;
    let aligned = if len == 0 { 0 } else { digits << (64 - 8 * len) };
    (eight_digits(aligned), len)
}

/// Eight digits, a byte each, first in the lowest: pairs, then fours, then all.
#[inline(always)]
pub(super) fn eight_digits(ones: u64) -> u64 {
    let pairs = ones.wrapping_mul(10).wrapping_add(ones >> 8) & 0x00FF_00FF_00FF_00FF;
    let fours = pairs.wrapping_mul(100).wrapping_add(pairs >> 16) & 0x0000_FFFF_0000_FFFF;
    fours.wrapping_mul(10_000).wrapping_add(fours >> 32) & 0xFFFF_FFFF
}

/// The signed digits behind an `e`, held within a range in which everything is zero or infinite anyway.
fn written_exponent(text: &[u8], mut at: usize) -> Option<(i64, usize)> {
    let negative = text.get(at) == Some(&b'-');
    if let Some(b'+' | b'-') = text.get(at) {
        at += 1;
    }
    let first_at = at;
    let mut value = 0_i64;
    while let Some(digit) = text.get(at).map(|byte| byte.wrapping_sub(b'0')).filter(|&digit| digit < 10) {
        value = (value * 10 + i64::from(digit)).min(1_000_000_000_000);
        at += 1;
    }
    (at > first_at).then_some((if negative { -value } else { value }, at))
}

/// Digits from the first that is not zero.
fn significant(number: &[u8]) -> usize {
    let mantissa = number.split(|byte| matches!(byte, b'e' | b'E')).next().unwrap_or_default();
    mantissa.iter().filter(|byte| byte.is_ascii_digit()).skip_while(|&&byte| byte == b'0').count()
}

/// `mantissa · 10^exponent` when rounding the f64 estimate to f32 is certain to be the nearest; `None` near a
/// midway point, outside the normal range, or outside the table.
#[inline]
fn estimate(mantissa: u64, exponent: i64) -> Option<f32> {
    if mantissa == 0 {
        return Some(0.0);
    }
    let power = *POWERS.get(usize::try_from(exponent.unsigned_abs()).ok()?)?;
    let value = if exponent < 0 { mantissa as f64 / power } else { mantissa as f64 * power };
    certain(value)
}

/// The `f32` nearest to what `value` estimates, when that is sure.
#[inline(always)]
pub(super) fn certain(value: f64) -> Option<f32> {
    let certain = (value.to_bits() & DROPPED_MASK).abs_diff(MIDWAY) > DOUBT;
    let normal = (2.0 * f64::from(f32::MIN_POSITIVE)..f64::from(f32::MAX) / 2.0).contains(&value);
    #[expect(clippy::cast_possible_truncation, reason = "the rounding is what is wanted")]
    (certain && normal).then_some(value as f32)
}

#[cfg(test)]
#[path = "tests/numbers.rs"]
mod tests;
