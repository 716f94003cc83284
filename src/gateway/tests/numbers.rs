//! Numbers: exactly what the standard library says, and back.

use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

use super::*;

#[test]
fn reads_what_json_allows() {
    for text in
        ["0", "-0", "1", "-1.5", "1e3", "1E+3", "1.25e-3", "0.1", "123456789012345678901234567890", "1e-50"]
    {
        check(text);
    }
}

#[test]
fn stops_behind_the_number() {
    assert_eq!(parse_f32(b"1.5,2"), Some((1.5, 3)));
    assert_eq!(parse_f32(b"12345678]"), Some((12_345_678.0, 8)));
}

#[test]
fn refuses_what_json_does_not_know() {
    for text in
        ["", "-", "+1", ".5", "1.", "01", "-01", "1e", "1e+", "NaN", "Infinity", "-Infinity", "\"1\"", "e1"]
    {
        assert_eq!(parse_f32(text.as_bytes()), None, "{text}");
    }
}

#[test]
fn too_large_is_infinite() {
    for text in ["1e400", "1e39", "1e999999999999999999999", "3.5e38"] {
        assert_eq!(parse_f32(text.as_bytes()), Some((f32::INFINITY, text.len())));
    }
}

#[test]
fn midway_points_round_to_even() {
    for text in
        ["16777217", "16777219", "16777217.000000001", "33554434", "1.00000005960464477539", "0.00000001e8"]
    {
        check(text);
    }
}

#[test]
fn every_bit_pattern_comes_back() {
    let mut rng = StdRng::seed_from_u64(1);
    let mut out = Vec::new();
    for _ in 0..200_000 {
        let value = f32::from_bits(rng.next_u32());
        if !value.is_finite() {
            continue;
        }
        out.clear();
        print_f32(&mut out, value);
        let (read, len) = parse_f32(&out).unwrap();
        assert_eq!((read.to_bits(), len), (value.to_bits(), out.len()), "{value:e}");
        check(&f64::from(value).to_string());
        check(&format!("{value:e}"));
    }
}

#[test]
fn random_digits_agree_with_the_standard_library() {
    let mut rng = StdRng::seed_from_u64(2);
    for _ in 0..200_000 {
        let (whole, fraction) = (rng.random_range(0..4_u32), rng.random_range(0..24_u32));
        let mut digits =
            |count: u32| (0..count).map(|_| char::from(b'0' + rng.random_range(0..10_u8))).collect();
        let (whole, fraction): (String, String) = (digits(whole), digits(fraction));
        let whole = whole.trim_start_matches('0');
        let exponent = rng.random_range(-50..40_i32);
        let fraction = if fraction.is_empty() { fraction } else { format!(".{fraction}") };
        check(&format!("{}{fraction}e{exponent}", if whole.is_empty() { "0" } else { whole }));
    }
}

#[track_caller]
fn check(text: &str) {
    let (value, len) = parse_f32(text.as_bytes()).unwrap_or_else(|| panic!("{text} is a number"));
    let want: f32 = text.parse().unwrap();
    assert_eq!((value.to_bits(), len), (want.to_bits(), text.len()), "{text}");
}
