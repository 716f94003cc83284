//! The form in which an `f32` prints, read without a branch on its lengths: two ways that agree to the bit.
//!
//! Digits, a point, digits, fourteen digits at most. A branch or a loop on their count would be mispredicted for
//! every other number. So the point is squeezed out of sixteen bytes and all digits are taken at once. Whatever else
//! stands there, a number or not, is left to the reader of every form in `numbers.rs`.

use super::numbers::{certain, eight_digits};

/// Negative powers of ten, each half a unit off at most.
const TENTHS: [f64; 15] =
    [1e0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-11, 1e-12, 1e-13, 1e-14];

/// One way to read the form.
pub(crate) trait ShortFraction {
    /// The number at the start of `text` and its length; `None` for any other form and near a midway point.
    ///
    /// # Safety
    /// The machine must have the instructions that the way is named after.
    unsafe fn read(text: &[u8]) -> Option<(f32, usize)>;
}

/// Where the point stands, where the number ends (both counted from its first digit), and its sign.
struct Form {
    negative: bool,
    point: usize,
    end: usize,
}

impl Form {
    /// `point` and `end` are the first two bytes that are no digits; `bytes[..]` begin with the first digit.
    #[inline(always)]
    fn is_plain(&self, bytes: &[u8; 16]) -> bool {
        self.point > 0
            && self.end < 16
            && self.end - self.point > 1
            && bytes[self.point] == b'.'
            && bytes[self.end] | 0x20 != b'e'
            && (self.point == 1 || bytes[0] != b'0')
    }

    /// `mantissa` is the number without its point.
    #[inline(always)]
    fn value(&self, mantissa: u64) -> Option<(f32, usize)> {
        #[expect(clippy::cast_possible_wrap, reason = "fourteen digits")]
        let estimate = mantissa as i64 as f64 * TENTHS[self.end - self.point - 1];
        let size = if mantissa == 0 { 0.0 } else { certain(estimate)? };
        let value = f32::from_bits(size.to_bits() | (u32::from(self.negative) << 31));
        Some((value, usize::from(self.negative) + self.end))
    }
}

/// In two machine words.
pub(crate) struct Portable;

impl ShortFraction for Portable {
    #[inline(always)]
    unsafe fn read(text: &[u8]) -> Option<(f32, usize)> {
        let negative = text.first() == Some(&b'-');
        let bytes = text.get(usize::from(negative)..)?.first_chunk::<16>()?;
        let digits = u128::from_le_bytes(*bytes) ^ u128::from_ne_bytes([0x30; 16]);
        let others = ((digits & u128::from_ne_bytes([0x7F; 16])) + u128::from_ne_bytes([0x76; 16])) | digits;
        let others = others & u128::from_ne_bytes([0x80; 16]);
        let behind = others & others.wrapping_sub(1);
        let position = |mask: u128| (mask.trailing_zeros() / 8) as usize;
        let form = Form { negative, point: position(others), end: position(behind) };
        if !form.is_plain(bytes) {
            return None;
        }
        let whole = digits & ((1 << (8 * form.point)) - 1);
        let joined = whole | ((digits >> (8 * form.point + 8)) << (8 * form.point));
        // The first digit in the lowest byte, the last in the highest; what stood behind falls out at the top.
        let aligned = joined << (8 * (17 - form.end));
        form.value(eight_digits(aligned as u64) * 100_000_000 + eight_digits((aligned >> 64) as u64))
    }
}

/// In one vector.
#[cfg(target_arch = "x86_64")]
pub(crate) struct Sse41;

#[cfg(target_arch = "x86_64")]
impl ShortFraction for Sse41 {
    #[inline(always)]
    unsafe fn read(text: &[u8]) -> Option<(f32, usize)> {
        use std::arch::x86_64::*;
        let negative = text.first() == Some(&b'-');
        let bytes = text.get(usize::from(negative)..)?.first_chunk::<16>()?;
        // SAFETY: `bytes` are sixteen; the caller promised the instructions.
        let (digits, is_digit) = unsafe {
            let digits = _mm_sub_epi8(_mm_loadu_si128(bytes.as_ptr().cast()), _mm_set1_epi8(0x30));
            let is_digit = _mm_cmpeq_epi8(_mm_min_epu8(digits, _mm_set1_epi8(9)), digits);
            (digits, _mm_movemask_epi8(is_digit).cast_unsigned())
        };
        let others = !is_digit; // bits from 16 on are set: an end is always found
        let behind = others & others.wrapping_sub(1);
        let form =
            Form { negative, point: others.trailing_zeros() as usize, end: behind.trailing_zeros() as usize };
        if !form.is_plain(bytes) {
            return None;
        }
        // SAFETY: the caller promised the instructions; all operands are values.
        let halves = unsafe {
            // Byte `i` of the result is digit `i − (17 − end)`: none for negative ones, one further behind the point.
            let iota = _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
            let digit = _mm_sub_epi8(iota, _mm_set1_epi8(17 - form.end as i8));
            let is_behind = _mm_cmpgt_epi8(digit, _mm_set1_epi8(form.point as i8 - 1));
            let aligned = _mm_shuffle_epi8(digits, _mm_sub_epi8(digit, is_behind));
            let pairs = _mm_maddubs_epi16(aligned, _mm_set1_epi16(0x010A));
            let fours = _mm_madd_epi16(pairs, _mm_set1_epi32(0x0001_0064));
            let eights = _mm_madd_epi16(_mm_packus_epi32(fours, fours), _mm_set1_epi32(0x0001_2710));
            _mm_cvtsi128_si64(eights).cast_unsigned()
        };
        form.value((halves & 0xFFFF_FFFF) * 100_000_000 + (halves >> 32))
    }
}
