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

#[test]
fn short_fractions_among_others_agree_with_the_standard_library() {
    let mut rng = StdRng::seed_from_u64(3);
    for _ in 0..400_000 {
        let (value, places) = (rng.random_range(-2000.0..2000.0_f64), rng.random_range(0..14_usize));
        check(&format!("{value:.places$}"));
        let small = value * 1e-9;
        check(&format!("{small:.places$}"));
    }
    for text in
        ["0.5", "-0.0", "00.5", "1.5e3", "1.5E-3", "12345678.123456", "99999999999.999", "1.", ".5", "1.2.3"]
    {
        let alone = parse_f32(text.as_bytes());
        for among in every_way(format!("{text},1.25,-3.5,0.125]").as_bytes()) {
            assert_eq!(alone, among, "{text}");
        }
    }
}

/// Alone, and with more behind it: the two take different ways.
#[track_caller]
fn check(text: &str) {
    let want: f32 = text.parse().unwrap();
    for whole in
        [text.to_owned(), format!("{text},1.25,-3.5e2,0.125]"), format!("{text} \n, 17.5, 3.25, 1.0 ]")]
    {
        for found in every_way(whole.as_bytes()) {
            let (value, len) = found.unwrap_or_else(|| panic!("{text} is a number"));
            assert_eq!((value.to_bits(), len), (want.to_bits(), text.len()), "{whole}");
        }
    }
}

fn every_way(text: &[u8]) -> Vec<Option<(f32, usize)>> {
    let mut found = vec![parse_f32(text)];
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("sse4.1") {
        // SAFETY: just detected.
        found.push(unsafe { parse_f32_by::<crate::gateway::fractions::Sse41>(text) });
    }
    found
}
